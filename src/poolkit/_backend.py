"""The waist: what a kind of pool has to implement, and what it is given to run.

The face gives a backend *batches* and gets *records* back. A backend knows nothing of futures,
bounds, retries, views or progress; the face knows nothing of threads, processes or clusters.

The life of an item, which every backend keeps to::

    todo ── claimed by a worker ──> running ── finished ──────────> reported
      │                               └────── taken by stop() ────> reported
      └──── claimed by withdraw() ──> given back to the face, never reported

Invariants:

* Each arrow is one atomic operation on `Batch.todo` or `Batch.running`, and only the thread
  that performed it goes on with the item. So nothing is run, reported or given back twice.
* A dispatched item ends in exactly one of "reported" and "given back".
"""

import abc
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import Context, copy_context
from typing import Any, Literal, NamedTuple, Protocol

from ._clock import SYSTEM_CLOCK, Clock
from ._describe import describe_call
from ._options import TaskOptions
from ._public import public
from ._records import Lone as Lone
from ._records import Record as Record
from ._records import Successes as Successes
from ._records import make_record as make_record


class Running(NamedTuple):
    """An item that a worker has started and not finished."""

    batch: "Batch"
    number: int
    start: float


class Batch(abc.ABC):
    """A function and one or more argument tuples to call it with.

    Made by the face, for one `Backend.dispatch`. The fields are for backends; `todo` and
    `running` are the two that change, by single operations that the interpreter makes atomic.

    Attributes:
        fn: The function.
        items: An argument tuple for each call; a record's number is an index of these. `Lone` if
            each has one argument, and there may be many.
        kwargs: Keyword arguments that all calls share.
        options: How to run them.
        context: A copy of the submitter's context variables; each of several calls needs one of
            its own.
        todo: Indices that nobody has claimed, last first, so that ``pop()`` claims in order.
        running: Index of each item that runs in this process, and what runs it; or a negative
            number, where only that knows which item it is.
        parcel: Whatever the backend makes of it, for itself.
    """

    attempt: int = 1
    """Which attempt at its items this is."""
    unwanted: bool = False
    """Whether its tasks should stop by themselves."""
    may_repeat: bool = True
    """Whether items may be run again that were finished when their worker was lost."""
    is_due: bool = True
    """Whether it may start now."""
    timed: bool = True
    """Whether anybody asks when each of its items ran. If not, and if none has a limit, they may be
    told as if all had taken equally long: a look at the clock costs more than a quick item."""
    item: int = 0
    """Which item of its `origin` its only one is, if that is another batch."""

    __slots__ = (
        "__weakref__",
        "context",
        "fn",
        "items",
        "kwargs",
        "options",
        "parcel",
        "running",
        "todo",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        items: Sequence[tuple[Any, ...]],
        kwargs: Mapping[str, Any],
        options: TaskOptions,
    ) -> None:
        self.fn = fn
        self.items = items
        self.kwargs = kwargs
        self.options = options
        self.context: Context = copy_context()
        self.todo = [0] if len(items) == 1 else list(range(len(items) - 1, -1, -1))
        self.running: dict[int, Any] = {}
        self.parcel: Any = None

    @abc.abstractmethod
    def report(self, records: Sequence[Record]) -> None:
        """Take the results of some items. Any thread may call it; it never raises."""

    def weigh(self, size: int) -> None:  # noqa: B027 - most have no use for it
        """Be told how many bytes its arguments take on their way, if that is many."""

    def describe(self, number: int) -> str:
        """Return one of its calls as text, for people."""
        return describe_call(self.fn, self.items[number], self.kwargs)

    @property
    def origin(self) -> "Batch":
        """The batch as the face knows it: itself, or the one that it is a further attempt at."""
        return self

    @property
    def unfinished_parts(self) -> "Sequence[Batch]":
        """Where its items are: in itself, and in further attempts at some of them."""
        return (self,)

    def claim(self, index: int) -> bool:
        """Take one item out of `todo`; False if somebody else has claimed it."""
        try:
            self.todo.remove(index)
        except ValueError:
            return False
        return True

    def report_failed(self, numbers: Collection[int], error: BaseException) -> None:
        """Report items that could not be run; the caller has claimed them."""
        if numbers:
            self.report([Record(number, None, error, 0.0, 0.0, "") for number in numbers])

    def ask_to_stop(self) -> None:
        """Tell the items that run in this process that nobody wants their results any more."""
        for part in self.unfinished_parts:
            for run in list(part.running.values()):
                run.ask_to_stop()

    def claim_rest(self) -> list[int]:
        """Take all that is left in `todo`."""
        claimed: list[int] = []
        while True:
            try:
                claimed.append(self.todo.pop())
            except IndexError:
                return claimed


@public
class Capabilities(NamedTuple):
    """What a backend can do; the face refuses the rest with `UnsupportedError`.

    Attributes:
        runs_in_caller: `dispatch` returns only when the batch is done.
        priorities: Smaller ``TaskOptions.priority`` goes first.
        serializes: Functions, arguments and results are pickled.
        deadlines: Who keeps ``task_timeout``: the backend itself ("hard"), the face by calling
            `Backend.stop` ("soft"), the backend once the call has returned ("after"), or nobody.
        stops: What `Backend.stop` does to a running task: "killed" ends it with its worker,
            "abandoned" leaves it to itself; both with a new worker in its worker's place. None if
            it can't be stopped.
    """

    runs_in_caller: bool = False
    priorities: bool = False
    serializes: bool = False
    deadlines: Literal["hard", "soft", "after", "none"] = "none"
    stops: Literal["abandoned", "killed"] | None = None


@public
class Statistics(NamedTuple):
    """What a pool is doing, at one moment.

    Attributes:
        workers: Workers that exist, abandoned ones not counted.
        idle: Workers that have nothing to do.
        running: Tasks that workers have started and not finished.
        waiting: Tasks, of those that run, that wait for other tasks and have lent their slot.
        blocked: Tasks, of those that run, that seem to wait for something that poolkit can't
            see: a lock, a queue, the standard library's ``wait``. A guess, from where in the
            standard library their threads are.
        pending: Tasks that no worker has started.
        abandoned: Workers given up because a task overran its time-out, or was aborted, and
            that have not come back yet.
    """

    workers: int = 0
    idle: int = 0
    running: int = 0
    waiting: int = 0
    blocked: int = 0
    pending: int = 0
    abandoned: int = 0


class Backend(Protocol):
    """Runs batches. All methods may be called from any thread."""

    name: str
    """The pool, for people: used in error messages."""
    max_workers: int
    capabilities: Capabilities
    clock: Clock = SYSTEM_CLOCK
    """The time in which its tasks run."""
    chunk_seconds: float = 0.002
    """How long a chunk of a verb's input should run, if nobody says how many items it has: a
    thousand times what sending it costs, and short enough that nobody waits for its neighbours."""
    hosted: bool = False
    """Whether its tasks run only while somebody waits for them, or has them run; see `attend`."""
    waiting_room: Any = None
    """Where further attempts wait until they are due, if it has a `WaitingRoom` of its own."""

    @property
    def runner(self) -> "Backend":
        """The backend whose workers run its tasks: itself, unless it hands them on."""
        return self

    def known_to(self, backend: "Backend", batch: Batch) -> Batch | None:
        """Return one of its batches as the workers of a backend know it.

        Returns:
            None if they are not those that run it.
        """
        return batch if self is backend.runner else None

    def dispatch(self, batch: Batch) -> None:
        """Run all of `batch`, some time. Never blocks (unless `runs_in_caller`).

        Raises:
            PoolBrokenError: The pool can run nothing more; nothing of `batch` was taken.
        """
        ...

    def withdraw(self, batch: Batch) -> list[int]:
        """Give back the numbers of all items that have not started; they will not run."""
        ...

    def stop(self, batch: Batch, number: int, error: BaseException) -> bool:
        """Give up a running item, report `error` for it, and say whether that came in time."""
        ...

    def running(self) -> list[Running]:
        """Return what runs at this moment."""
        ...

    def statistics(self) -> Statistics:
        """Return what the pool is doing.

        Its ``pending`` counts only what has left `Batch.todo` and not started; the face adds
        the rest.
        """
        ...

    def end_workers(self, number: int) -> None:
        """Send a signal to all workers, after `shutdown`; where `Capabilities.stops` is "killed".

        Args:
            number: The signal.
        """
        raise RuntimeError(f"the workers of {self.name} can't be ended")

    def spin(self) -> None:
        """Let others go on, in a loop that waits for what comes in an instant."""
        time.sleep(0)

    def draw(self) -> float:
        """Return a random number from 0 to 1, for pauses between attempts."""
        from random import random  # who never tries again needs none

        return random()

    def attend(self, awaiting: Any) -> bool:
        """Be told that this thread is about to wait for batches; where `hosted`.

        Args:
            awaiting: The `Awaiting` that says for what.

        Returns:
            Whether the time of the wait is over, though what is waited for has not come.
        """
        return False

    def shutdown(self, wait: bool) -> None:
        """Take no more batches; finish those dispatched, then release every resource.

        May be called again, with `wait=True` after `wait=False`.
        """
        ...
