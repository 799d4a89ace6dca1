"""`FaultyBackend`: a pool in front of a pool, which strikes some of the calls on their way.

::

    face ──batch──> FaultyBackend ──FaultyBatch──> the pool behind ──records──> batch

Each batch goes on as a `FaultyBatch`, which shares the original's ``todo`` and ``running``, and so
its life. Where an item is struck, the function is replaced by a `FaultyCall`, and every item has
one argument more: its faults. The original stays as the user knows it, and so do descriptions,
notes and outcomes, which are made from it.

Invariants:

* The face never sees a `FaultyBatch`, the pool behind never sees an original; or else what is to
  be struck could be spared. A `FaultyBatch` is in ``_sent`` for as long as the pool behind, or
  anybody else, holds it.
* Each attempt at a task is packed by itself: where arguments are pickled, a further attempt sees
  what they have become since the first, which it does not without a plan.
"""

import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from .._backend import Backend, Batch, Running, Statistics
from .._errors import PoolShutdownError
from .._executor import PoolExecutor
from ._fault_batch import FaultyBatch
from ._fault_effects import make_fault
from ._fault_rules import FaultCall

if TYPE_CHECKING:
    from ._faults import FaultPlan


class FaultyBackend(Backend):
    """Runs batches on another backend, and strikes those that a plan tells.

    Args:
        name: The pool, for people.
        behind: What runs the tasks.
        plan: What befalls them.
        owned: The executor of the pool behind, if it is to be shut down with this.
    """

    def __init__(
        self, name: str, behind: Backend, plan: "FaultPlan", owned: Executor | None
    ) -> None:
        self.name = name
        self.behind = behind
        self.max_workers = behind.max_workers
        self.capabilities = can = behind.capabilities
        self.clock = behind.clock
        self.chunk_seconds = behind.chunk_seconds
        self.hosted = behind.hosted
        self.waiting_room = behind.waiting_room
        self.shares_threads = not (can.serializes or can.runs_in_caller)
        self.face: Callable[[], PoolExecutor | None] = lambda: None
        """Returns the pool in front, if it still is there."""
        self._plan = plan
        self._owned = owned
        # Changed by single, atomic operations.
        self._sent: weakref.WeakValueDictionary[Batch, FaultyBatch] = weakref.WeakValueDictionary()
        # Guards the two fields below. Re-entrant, as the collector may strike while it is held.
        self._lock = threading.RLock()
        self._numbers: weakref.WeakKeyDictionary[Batch, int] = weakref.WeakKeyDictionary()
        """The task number of the first item of each batch."""
        self._next = 0

    # -- on the way to the workers ----------------------------------------------------------

    def dispatch(self, batch: Batch) -> None:
        calls = self._calls(batch)
        struck = {
            number: rules
            for number, call in enumerate(calls)
            if (rules := self._plan.rules_for(call))
        }
        for number, rules in struck.items():
            for rule in rules:
                if rule.what == "shut_down":
                    self._plan.note(calls[number], [rule])
                    self._shut_down(batch, rule.cancel_futures)
                    raise PoolShutdownError(self.name)
        faults = {
            number: [make_fault(rule, batch, number, self.behind) for rule in rules]
            for number, rules in struck.items()
        }
        sent = self._sent[batch] = FaultyBatch(batch, self, faults)
        for number, rules in struck.items():
            sent.noted[number] = self._plan.note(calls[number], rules)
        try:
            self.behind.dispatch(sent)
        except BaseException:  # it was refused, or somebody is about to take back what is left
            self._strike_out(sent, list(batch.todo))
            raise

    def _calls(self, batch: Batch) -> list[FaultCall]:
        """Return a batch's calls, as the user knows them."""
        origin = batch.origin
        with self._lock:
            first = self._numbers.get(origin)
            if first is None:
                first = self._numbers[origin] = self._next
                self._next += len(batch.items)
        first += batch.item
        while isinstance(batch, FaultyBatch):  # several plans are around each other
            batch = batch.inner
        return [
            FaultCall(first + number, batch.attempt, batch.fn, args, batch.kwargs)
            for number, args in enumerate(batch.items)
        ]

    def _shut_down(self, batch: Batch, cancel: bool) -> None:
        """Shut the pool in front down, before a batch that is to be refused."""
        unclaimed = batch.claim_rest()  # refused, not cancelled
        face = self.face()
        if face is not None:
            face.shutdown(wait=False, cancel_futures=cancel)
        batch.todo.extend(reversed(unclaimed))

    def _strike_out(self, sent: FaultyBatch, numbers: Iterable[int]) -> None:
        """Strike from the record what befell nobody."""
        for number in numbers:
            self._plan.strike_out(sent.noted.pop(number, ()))

    # -- what was sent ----------------------------------------------------------------------

    def sent(self, batch: Batch) -> FaultyBatch:
        """Return a batch as the pool behind knows it; with nothing to do, if it does not."""
        sent = self._sent.get(batch)
        if sent is None:
            sent = FaultyBatch(batch, self, {})
            sent.todo = []
        return sent

    @property
    def runner(self) -> Backend:
        return self.behind.runner

    def known_to(self, backend: Backend, batch: Batch) -> Batch | None:
        return self.behind.known_to(backend, self.sent(batch))

    def withdraw(self, batch: Batch) -> list[int]:
        sent = self._sent.get(batch)
        if sent is None:
            return batch.claim_rest()
        numbers = self.behind.withdraw(sent)
        self._strike_out(sent, numbers)
        if len(numbers) == len(sent.items):
            sent.empty()
        return numbers

    def stop(self, batch: Batch, number: int, error: BaseException) -> bool:
        return self.behind.stop(self.sent(batch), number, error)

    def running(self) -> list[Running]:
        return [
            item._replace(batch=item.batch.inner)
            for item in self.behind.running()
            if isinstance(item.batch, FaultyBatch) and item.batch.front is self
        ]

    # -- as the pool behind does ------------------------------------------------------------

    def statistics(self) -> Statistics:
        return self.behind.statistics()

    def attend(self, awaiting: Any) -> bool:
        return self.behind.attend(awaiting)

    def end_workers(self, number: int) -> None:
        self.behind.end_workers(number)

    def shutdown(self, wait: bool) -> None:
        if self._owned is not None:
            self._owned.shutdown(wait=wait)


def make_faulty(pool: PoolExecutor, plan: "FaultPlan", *, owned: bool) -> PoolExecutor:
    """Return a pool in front of another one.

    Args:
        pool: The one behind.
        plan: What befalls the tasks.
        owned: Whether the pool behind ends with the one in front, which else is like a view.
    """
    name = f"{pool._name} with faults"
    backend = FaultyBackend(name, pool._link.backend, plan, pool if owned else None)
    face = PoolExecutor(
        pool.kind,
        backend,
        pool._options,
        pool._max_pending if owned else None,
        pool._when_full,
        None if owned else pool,
        events=pool._link.events,
        name=name,
    )
    backend.face = weakref.ref(face)
    return face
