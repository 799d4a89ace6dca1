"""What becomes of tasks, told as it happens: `TaskEvent`, `Observer`, and the stream between.

Nothing here is built, and no task is numbered, unless a pool was made with ``observers``. Workers
report a start together with the end that follows it, so that it costs them nothing; the time of a
start is right all the same.
"""

import itertools
import logging
from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

from ._checks import check_callable
from ._clock import SYSTEM_CLOCK, Clock
from ._describe import function_name
from ._errors import TaskAbortedError, TaskTimeoutError, WorkerCrashedError
from ._public import public
from ._records import Record

_log = logging.getLogger("poolkit")

What = Literal[
    "submitted",
    "started",
    "finished",
    "failed",
    "timed_out",
    "crashed",
    "abandoned",
    "retried",
    "cancelled",
]
"""What happened. ``"timed_out"``, ``"crashed"`` and ``"abandoned"`` (by `TaskFuture.abort`, or
because its group or iterator had ended) are failures of their own kinds; ``"retried"`` is a failure
of any kind that another attempt will follow."""


@public
class TaskEvent(NamedTuple):
    """Something that happened to a task.

    Attributes:
        what: What happened.
        task: The task's number; in this process, no other has it.
        function: The name of its function.
        attempt: Which attempt, from 1.
        time: When it happened, in seconds, on the clock of `time.monotonic`.
        worker: Who ran it; "" if it did not run.
        run_s: Seconds that this attempt ran; 0 if it did not end with this.
        error: Why it failed; None if it did not.
    """

    what: What
    task: int
    function: str
    attempt: int
    time: float
    worker: str = ""
    run_s: float = 0.0
    error: BaseException | None = None


@public
class Observer(Protocol):
    """Whoever wants to know: any callable that takes a `TaskEvent`, such as a list's ``append``.

    It is called by pool threads, several at once, and holds them up while it runs. If it raises,
    that is logged, and it is called no more.
    """

    def __call__(self, event: TaskEvent, /) -> object:
        """Take note of an event."""
        ...


class Told(Protocol):
    """A batch, as far as events tell of it."""

    fn: Any
    items: Sequence[Any]
    tasks: list[int]
    """The numbers of its items, which `EventStream.submitted` gives them."""

    def attempt_at(self, number: int) -> int:
        """Return which attempt an item is at, from 1."""
        ...


_tasks = itertools.count(1)
_KINDS: Final[tuple[tuple[type[BaseException], What], ...]] = (
    (TaskTimeoutError, "timed_out"),
    (WorkerCrashedError, "crashed"),
    (TaskAbortedError, "abandoned"),
)


def _how(error: BaseException | None) -> What:
    if error is None:
        return "finished"
    for kind, what in _KINDS:
        if isinstance(error, kind):
            return what
    return "failed"


class EventStream:
    """Tells a pool's observers; thread-safe."""

    clock: Clock = SYSTEM_CLOCK
    """The clock of the pool that it tells of."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)  # changed by single, atomic operations

    def submitted(self, batch: Told) -> None:
        """Number the items of a batch that is about to be dispatched."""
        batch.tasks = [next(_tasks) for _ in batch.items]
        self._tell_all(batch, range(len(batch.tasks)), "submitted")

    def cancelled(self, batch: Told, numbers: Collection[int]) -> None:
        """Tell of items that will not run."""
        self._tell_all(batch, numbers, "cancelled")

    def ended(self, batch: Told, records: Sequence[Record]) -> None:
        """Tell of items that have ended for good, and of their starts."""
        for record in records:
            self._tell_end(batch, record, batch.attempt_at(record.number), _how(record.error))

    def retried(self, batch: Told, record: Record, attempt: int) -> None:
        """Tell of an item that has failed and is tried again, and of its start."""
        self._tell_end(batch, record, attempt, "retried")

    def _tell_all(self, batch: Told, numbers: Collection[int], what: What) -> None:
        name, now = function_name(batch.fn), self.clock.monotonic()
        for number in numbers:
            attempt = batch.attempt_at(number)
            self._tell(TaskEvent(what, batch.tasks[number], name, attempt, now))

    def _tell_end(self, batch: Told, record: Record, attempt: int, what: What) -> None:
        task, name = batch.tasks[record.number], function_name(batch.fn)
        start, spent, worker = record.start, record.duration, record.worker
        if start:
            self._tell(TaskEvent("started", task, name, attempt, start, worker))
        end = start + spent if start else self.clock.monotonic()
        self._tell(TaskEvent(what, task, name, attempt, end, worker, spent, record.error))

    def _tell(self, event: TaskEvent) -> None:
        for observer in list(self._observers):
            try:
                observer(event)
            except BaseException as error:  # it must not stop the thread that settles others
                if isinstance(error, KeyboardInterrupt) and event.what == "submitted":
                    raise  # in the caller's thread: this is Ctrl-C
                _log.exception("an observer has failed, and is not called any more")
                if observer in self._observers:
                    self._observers.remove(observer)


def open_stream(observers: Any) -> EventStream | None:
    """Return a stream for the ``observers`` argument; None if nobody listens.

    Raises:
        TypeError: It is no iterable of callables.
    """
    try:
        listed: list[Any] = list(observers)
    except TypeError:
        raise TypeError(
            f"observers must be several callables, not {observers!r:.80}; try [it]"
        ) from None
    for observer in listed:
        check_callable("each of observers", observer)
    return EventStream(listed) if listed else None
