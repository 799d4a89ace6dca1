"""A cluster's workers as a backend: what its kinds have in common.

::

    dispatch ──pack──> pending ──feed──> engine.send ──> the cluster ──> run_parcel
    batches <──records── the results' thread <── a parcel's `Sent` <── the engine

An `Engine` knows one kind of cluster: it sends a parcel, gives one up, and tells how each goes.
All else is here.

Invariants:

* An item that was dispatched is in its batch's ``todo``, or in ``left`` of exactly one `Sent` that
  is in ``_sent``, or was reported or given back. Who takes it out of either settles it.
* At most ``max_workers`` parcels are under way, so that what has not been sent can be cancelled and
  goes by priority. Quick ones are sent ahead, as they would wait for the network more than for
  workers; but only where the cluster itself lets no more run at once.
* A parcel of one item whose worker dies is charged to it. One of several is sent again, item by
  item, so that the next death shows whose fault it was. What may not be repeated travels alone.
* The engine's threads only queue what they tell. Results are unpickled, and callbacks run, in a
  thread of ours, with no lock held.
"""

import logging
import math
import queue
import threading
import time
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from .._backend import Backend, Batch, Running, Statistics, make_record
from .._errors import PoolBrokenError, TaskSerializationError, TaskTimeoutError, WorkerCrashedError
from .._task import threads
from ._packing import Packed, dump_afar, pack, unpack
from ._pending import PendingQueue
from ._remote_engine import Engine, Sent
from ._remote_worker import Message, Parcel
from ._serialization import load_error

_log = logging.getLogger("poolkit")

# A cluster takes milliseconds to hand out a task. So each worker is sent, besides the parcel it
# is at, so many seconds of work ahead.
AHEAD: Final = 0.05
# But no more parcels than these: they can't be taken back without asking all workers.
MOST_AHEAD: Final = 16
# For so long nothing is sent ahead once something had to be taken back, in seconds.
AFTER_RECALL: Final = 0.5
# A task that was never heard to begin may be innocent of so many deaths of its workers.
MOST_DEATHS: Final = 2


class RemoteBackend(Backend):
    """Runs batches on a cluster; see the module for its rules.

    Args:
        name: The pool, for people.
        engine: The cluster.
        max_workers: How many parcels may run at once; None for as many as the cluster can.
        initializer: Called in each process of the cluster that runs tasks of this pool, once.
        initargs: Its arguments.

    Raises:
        TaskSerializationError: The initializer or its arguments can't be sent.
    """

    chunk_seconds = 0.05  # a parcel costs a cluster a few milliseconds

    def __init__(
        self,
        name: str,
        engine: Engine,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        self.name = name
        self.max_workers = max_workers or engine.slots
        self.capabilities = engine.capabilities
        self._engine = engine
        self._id = uuid.uuid4().hex
        self._initializer = (
            None if initializer is None else dump_afar("the initializer", (initializer, initargs))
        )
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # Guards all fields below. Re-entrant, as the collector may strike while it is held.
        self._lock = threading.RLock()
        self._pending = PendingQueue()
        self._withdrawn = 0  # roughly, since the queue was swept
        self._sent: dict[Sent, None] = {}
        self._apart: weakref.WeakSet[Batch] = weakref.WeakSet()
        """Batches whose items travel one by one, as a worker died of some."""
        self._deaths: weakref.WeakKeyDictionary[Batch, Counter[int]] = weakref.WeakKeyDictionary()
        """How often a worker has died with an item alone in its parcel."""
        self._mean = math.inf
        """Seconds that a parcel takes; infinite while nobody knows."""
        self._ahead_from = 0.0
        """When parcels may be sent ahead."""
        self._thread: threading.Thread | None = None
        self._closing = False
        self._closed = False
        self._broken: PoolBrokenError | None = None

    # -- on the way to the cluster ------------------------------------------------------------

    def dispatch(self, batch: Batch) -> None:
        if self._is_broken():
            raise self._error()
        if not self._pack(batch):
            return
        with self._lock:
            self._pending.push(batch)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._serve, name="poolkit-remote-results", daemon=True
                )
                self._thread.start()
        self._feed()
        if self._is_broken():  # since we looked
            self._fail(batch)

    def _pack(self, batch: Batch) -> bool:
        """Pack a batch; report what can't be sent, and say whether anything is left."""
        packed: Packed | None = batch.origin.parcel
        if packed is not None:  # another attempt, at what was pickled when it was submitted
            batch.parcel = packed.part(batch.item)
            return bool(batch.todo)
        try:
            batch.parcel, refused = pack(batch)
        except TaskSerializationError as error:
            batch.report_failed(batch.claim_rest(), error)
            return False
        for number, refusal in refused.items():
            if batch.claim(number):
                batch.report_failed([number], refusal)
        return bool(batch.todo)

    def _feed(self) -> None:
        """Send what there is room for."""
        while True:
            with self._lock:
                sent = self._next()
            if sent is None:
                return
            batch = sent.batch
            packed: Packed = batch.parcel
            parcel = Parcel(
                self._id,
                self._initializer,
                packed.call,
                [(number, packed.entries[number]) for number in sent.left],
                batch.options.task_timeout,
                batch.attempt,
            )
            try:
                handle = self._engine.send(parcel, sent)
            except BaseException as error:
                sent.lost(error, died=False)
                if not isinstance(error, Exception):
                    raise
                continue
            with self._lock:
                sent.handle = handle
                given_up = sent not in self._sent
            if given_up:
                self._engine.give_up(handle)

    def _next(self) -> Sent | None:
        """Enter the next parcel in the books, if there is room for it. Call with the lock held."""
        while (batch := self._pending.peek()) is not None:
            alone = batch.options.at_most_once or batch in self._apart
            ahead = 0
            may_wait = not alone and time.monotonic() >= self._ahead_from
            if may_wait and self._engine.slots <= self.max_workers:
                ahead = min(MOST_AHEAD, int(AHEAD / self._mean))
            if len(self._sent) >= self.max_workers * (1 + ahead):
                return None
            numbers = _claim_one(batch) if alone else batch.claim_rest()
            if numbers:
                sent = Sent(self._inbox, batch, numbers)
                self._sent[sent] = None
                return sent
        return None

    # -- on the way back ----------------------------------------------------------------------

    def _serve(self) -> None:
        """Take in what engines tell, until the pool is closed and nothing is left."""
        threads.serving = self
        while True:
            news = self._inbox.get()
            try:
                if news is not None:
                    self._take_in(*news)
                self._feed()
            except BaseException:
                _log.exception("%s failed to take in a result", self.name)
            del news  # keep nothing alive while waiting for more
            with self._lock:
                over = self._closing and not self._sent and self._pending.peek() is None
                if over:
                    self._closed = True
            if over:
                self._close_engine()
                return

    def _take_in(self, sent: Sent, message: Message) -> None:
        with self._lock:
            if sent not in self._sent:  # given up
                return
            if message[0] == "began":
                _, sent.number, sent.worker, sent.pid = message
                sent.start = time.monotonic()
                return
        if message[0] == "ended":
            self._ended(sent, *message[1:])
        elif message[0] == "late":
            _, number, duration = message
            limit = sent.batch.options.task_timeout or 0.0
            late = TaskTimeoutError(sent.batch.describe(number), limit)
            self._report(sent, [number], lambda number: late, duration)
        elif message[0] == "broken":
            self._break("its initializer failed", load_error(message[1]))
            self._report(sent, list(sent.left), lambda number: self._error())
        elif message[0] == "finished":
            self._strike_off(sent)
        else:
            self._lost(sent, *message[1:])

    def _ended(self, sent: Sent, endings: Sequence[Any], now: float) -> None:
        ahead = time.monotonic() - now
        with self._lock:
            endings = [ending for ending in endings if ending[0] in sent.left]
            for ending in endings:
                del sent.left[ending[0]]
        if endings:
            spent = max(1e-6, sum(ending[4] for ending in endings))
            self._mean = spent if self._mean == math.inf else (self._mean + spent) / 2
            sent.batch.report([unpack(ending, sent.worker, ahead) for ending in endings])

    def _lost(self, sent: Sent, error: BaseException, died: bool, worker: str | None) -> None:
        """Settle a parcel that will not end."""
        batch = sent.batch
        sent.worker = sent.worker or worker or ""
        if not died:
            self._report(sent, list(sent.left), lambda number: error)
        elif not self._may_go_again(sent):
            self._report(sent, list(sent.left), partial(self._crash, sent, error=error))
        elif len(batch.items) > 1:
            with self._lock:
                self._apart.add(batch)
        self._strike_off(sent)

    def _may_go_again(self, sent: Sent) -> bool:
        """Whether what is left of a parcel whose worker has died is to be sent again."""
        batch = sent.batch
        if batch.options.at_most_once or not batch.may_repeat:
            return False
        if len(sent.left) > 1:
            return True
        (number,) = sent.left
        with self._lock:
            deaths = self._deaths.setdefault(batch, Counter())
            deaths[number] += 1
        return sent.number is None and deaths[number] < MOST_DEATHS

    def _crash(self, sent: Sent, number: int, *, error: BaseException | None) -> BaseException:
        crash = WorkerCrashedError(sent.batch.describe(number), sent.pid, None, sent.worker or None)
        crash.__cause__ = error
        return crash

    def _report(
        self,
        sent: Sent,
        numbers: list[int],
        make_error: Callable[[int], BaseException],
        duration: float | None = None,
    ) -> None:
        """Settle items of a parcel by an error."""
        with self._lock:
            numbers = [number for number in numbers if number in sent.left]
            for number in numbers:
                del sent.left[number]
        start = sent.start or time.monotonic()
        spent = time.monotonic() - start if duration is None else duration
        worker = sent.worker or "unknown"
        for number in numbers:
            failure = (number, None, make_error(number), start, spent, worker)
            sent.batch.report([make_record(failure)])

    def _strike_off(self, sent: Sent) -> None:
        """Take a parcel off the books; what is left of it is sent again."""
        batch = sent.batch
        with self._lock:
            if sent not in self._sent:
                return
            del self._sent[sent]
            left = list(sent.left)
            sent.left.clear()
            batch.todo.extend(left)
            batch.todo.sort(reverse=True)
            if left:
                self._pending.push_first([batch])
        if self._broken is not None:
            self._fail(batch)

    def _close_engine(self) -> None:
        try:
            self._engine.close()
        except Exception:
            _log.exception("%s failed to release its cluster", self.name)

    # -- taking back and giving up ------------------------------------------------------------

    def withdraw(self, batch: Batch) -> list[int]:
        with self._lock:
            numbers = batch.claim_rest()
            self._withdrawn += 1
            if self._withdrawn > max(256, len(self._pending) // 2):
                self._withdrawn = 0
                self._pending.sweep()
            sent = self._sent_of(batch, 0)
            if sent is None or sent.number is not None or len(batch.items) > 1:
                return numbers
        # It waits in the cluster, perhaps for long. Where one is cancelled others will be, and
        # asking for all costs the same; but then they must not be sent ahead again at once.
        self._recall()
        with self._lock:
            numbers = batch.claim_rest()
        self._inbox.put(None)  # there is room for others
        return numbers

    def _recall(self) -> None:
        """Put back into the queue what was sent and has not begun."""
        with self._lock:
            self._ahead_from = time.monotonic() + AFTER_RECALL
            silent = [sent for sent in self._sent if sent.number is None and sent.handle]
        answers = self._engine.revoke([sent.handle for sent in silent])
        recalled = [sent for sent, is_back in zip(silent, answers, strict=True) if is_back]
        for sent in recalled:
            self._strike_off(sent)
            self._engine.give_up(sent.handle)

    def _sent_of(self, batch: Batch, number: int) -> Sent | None:
        """Return the parcel that an item is in, if it is under way. Call with the lock held."""
        for sent in self._sent:
            if sent.batch is batch and number in sent.left:
                return sent
        return None

    def stop(self, batch: Batch, number: int, error: BaseException) -> bool:
        with self._lock:
            sent = self._sent_of(batch, number)
        if sent is None:
            return False
        self._give_up(sent, [number], lambda number: error)
        return True

    def _give_up(
        self, sent: Sent, numbers: list[int], make_error: Callable[[int], BaseException]
    ) -> None:
        """Stop a parcel; settle some of its items, and send the rest again."""
        if not sent.batch.may_repeat:  # nobody wants the rest
            numbers = list(sent.left)
        self._report(sent, numbers, make_error)
        self._strike_off(sent)
        if sent.handle is not None:  # else, who sends it sees to that
            self._engine.give_up(sent.handle)
        self._inbox.put(None)

    def end_workers(self, number: int) -> None:
        with self._lock:
            everything = list(self._sent)
        for sent in everything:
            self._give_up(sent, list(sent.left), partial(self._crash, sent, error=None))

    # -- what goes on -------------------------------------------------------------------------

    def running(self) -> list[Running]:
        with self._lock:
            silent = [sent for sent in self._sent if sent.number is None and sent.handle]
        if silent:  # what has begun is heard of milliseconds later
            begun = self._engine.begun([sent.handle for sent in silent])
            with self._lock:
                for sent, has_begun in zip(silent, begun, strict=True):
                    if has_begun and sent.number is None:
                        sent.number, sent.start = next(iter(sent.left), None), time.monotonic()
        with self._lock:
            return [
                Running(sent.batch, _at(sent), sent.start)
                for sent in self._sent
                if sent.number is not None and sent.left
            ]

    def statistics(self) -> Statistics:
        running = len(self.running())
        with self._lock:
            under_way = sum(len(sent.left) for sent in self._sent)
        workers = min(self.max_workers, self._engine.slots)
        return Statistics(
            workers=workers,
            idle=max(0, workers - running),
            running=running,
            pending=under_way - running,
        )

    def spin(self) -> None:
        time.sleep(0.001)  # what is waited for takes a cluster that long

    # -- the end ------------------------------------------------------------------------------

    def _is_broken(self) -> bool:
        return self._broken is not None

    def _error(self) -> PoolBrokenError:
        assert self._broken is not None
        error = PoolBrokenError(self.name, self._broken.reason)
        error.__cause__ = self._broken.__cause__
        return error

    def _break(self, reason: str, cause: BaseException) -> None:
        """Refuse all further work and fail what has not been sent."""
        with self._lock:
            if self._broken is None:
                self._broken = PoolBrokenError(self.name, reason)
                self._broken.__cause__ = cause
            batches = list(self._pending)
            self._pending.clear()
        for batch in batches:
            self._fail(batch)

    def _fail(self, batch: Batch) -> None:
        batch.report_failed(batch.claim_rest(), self._error())

    def shutdown(self, wait: bool) -> None:
        with self._lock:
            self._closing = True
            thread = self._thread
            close = thread is None and not self._closed
            self._closed = self._closed or close
        if close:
            self._close_engine()
        elif thread is not None:
            self._inbox.put(None)
            if wait and thread is not threading.current_thread():
                thread.join()


def _claim_one(batch: Batch) -> list[int]:
    try:
        return [batch.todo.pop()]
    except IndexError:  # somebody has withdrawn it
        return []


def _at(sent: Sent) -> int:
    """Return the item that a parcel is at, as far as anybody knows."""
    assert sent.number is not None
    return sent.number if sent.number in sent.left else next(iter(sent.left))
