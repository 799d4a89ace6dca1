"""What tasks in virtual time have in common: their runs, and what they can ask of themselves."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from .._backend import Batch
from .._describe import describe_call
from .._errors import TaskAbortedError
from .._future import TaskFuture
from .._public import public_in_testing as public
from .._task import CurrentTask
from ..backends._run import LocalRun
from ._clock import VirtualClock
from ._errors import Ended
from ._host import Host


@public
@attrs.frozen(eq=False)
class PendingTask:
    """A task that has been handed to an executor for tests.

    Attributes:
        number: Its place in the order of submission, from 0; a further attempt keeps it.
        fn: Its function.
        args: The positional arguments of the call.
        kwargs: The keyword arguments.
        attempt: Which attempt, from 1.
        future: Its future; None if it came from a verb, such as `map_ordered`.
    """

    number: int
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    attempt: int
    future: TaskFuture[Any] | None
    _batch: Batch
    _index: int

    def __str__(self) -> str:
        return describe_call(self.fn, self.args, self.kwargs)

    def __repr__(self) -> str:
        again = f", attempt {self.attempt}" if self.attempt > 1 else ""
        return f"<task {self.number}: {self}{again}>"


class Numbers:
    """Numbers tasks in the order in which they come in."""

    def __init__(self) -> None:
        self._next = 0
        # Of tasks that may be tried again: by batch and item.
        self._known: dict[tuple[Batch, int], int] = {}

    def tasks(self, batch: Batch) -> list[PendingTask]:
        """Return what a batch brings, in the order of its items."""
        return [self._task(batch, index) for index in reversed(batch.todo)]

    def _task(self, batch: Batch, index: int) -> PendingTask:
        origin: Any = batch.origin
        item = batch.item + index
        number = self._known.get((origin, item))
        if number is None:
            number, self._next = self._next, self._next + 1
            if batch.options.retry is not None:
                self._known[origin, item] = number
        future: TaskFuture[Any] | None = getattr(origin, "future", None)
        # As the user knows them; what runs may be something around it.
        fn, args, kwargs = origin.fn, origin.items[item], origin.kwargs
        return PendingTask(number, fn, args, kwargs, batch.attempt, future, batch, index)


class VirtualTask(CurrentTask):
    """A `CurrentTask` in virtual time."""

    def __init__(self, deadline: float | None, attempt: int, clock: VirtualClock, host: Host):
        super().__init__(deadline, attempt)
        self._clock = clock
        self._host = host

    @property
    def cancelled(self) -> bool:
        late = self.deadline is not None and self._clock.monotonic() >= self.deadline
        return late or self._stop.is_set()

    def wait(self, seconds: float) -> bool:
        left = math.inf if self.deadline is None else self.deadline - self._clock.monotonic()
        self._host.pause(max(0.0, min(seconds, left)), self._stop.is_set)
        return self.cancelled

    def check(self) -> None:
        self._host.checkpoint()
        super().check()


class VirtualRun(LocalRun):
    """One item's run, in virtual time."""

    def __init__(
        self, batch: Batch, index: int, worker: str, clock: VirtualClock, host: Host
    ) -> None:
        super().__init__(batch, worker, host)
        self._index = index
        self._clock = clock
        self._host = host
        self.clock = clock.monotonic

    def make_token(self) -> CurrentTask:
        limit = self.batch.options.task_timeout
        deadline = None if limit is None else self.start + limit
        return VirtualTask(deadline, self.batch.attempt, self._clock, self._host)

    def _run_all(self, batch: Batch) -> bool:
        number = self._index
        if not batch.claim(number):
            return True
        self.number = number
        self.start = self.clock()
        batch.running[number] = self
        try:
            self._begun()
        except BaseException as error:  # the test's own mistake, or the end
            if batch.running.pop(number, None) is not None:
                batch.report_failed([number], self._judge(error, self.clock() - self.start))
            del batch, error
            return True
        goes_on = self._run_begun(batch, number, batch.context.copy())
        del batch  # see the end of what was called
        return goes_on

    def _begun(self) -> None:
        """Take note that the item runs."""

    interrupt: KeyboardInterrupt | None = None
    """Ctrl-C, if it has struck in there."""

    def _judge(self, error: BaseException, duration: float) -> BaseException:
        if isinstance(error, KeyboardInterrupt):
            self.interrupt = error
        if isinstance(error, Ended):
            return TaskAbortedError(self.batch.describe(self.number))
        return super()._judge(error, duration)
