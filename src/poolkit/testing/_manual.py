"""`ManualExecutor`: nothing runs before the test says so; all runs in the thread of the test."""

import math
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._backend import Batch, Capabilities, Statistics
from .._checks import check_callable, check_initializer, check_positive_int
from .._events import open_stream
from .._executor import PoolExecutor
from .._inherit import WhenFull
from .._options import TaskOptions, check_retry
from .._public import public_in_testing as public
from .._task import Awaiting, ThreadState
from ..backends.inline import InlineBackend, LateCalls
from ._clock import VirtualClock
from ._errors import WouldBlockError
from ._host import check_pause, here, taking_part
from ._room import TaskQueue, VirtualRoom
from ._virtual import Numbers, PendingTask, VirtualRun

if TYPE_CHECKING:
    from .._events import Observer
    from .._retry import Retry

_REMEDY = "Nothing runs it: call run_next(), run_all() or cancel_all() first, or use auto_run=True"


class ManualBackend(InlineBackend):
    """Keeps batches until somebody has their items run; not for several threads at once."""

    capabilities = Capabilities(priorities=True, deadlines="after")
    hosted = True

    def __init__(
        self,
        name: str,
        max_workers: int,
        auto_run: bool,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        super().__init__(name, initializer, initargs)
        self.max_workers = max_workers
        self.clock = self.time = VirtualClock()
        self.waiting_room = self.room = VirtualRoom(self.time)
        self._auto_run = auto_run
        self._queue = TaskQueue()
        self._numbers = Numbers()
        self._thread = threading.get_ident()
        ThreadState.hosted = True
        here.enter(self)

    def dispatch(self, batch: Batch) -> None:
        self._queue.add(self._numbers.tasks(batch))

    def pending(self) -> list[PendingTask]:
        """Return what could run now, in order."""
        self.room.release()
        return self._queue.waiting()

    def run(self, task: PendingTask) -> KeyboardInterrupt | None:
        """Run a task that is pending; return Ctrl-C, if it has struck in there."""
        self._initialize()
        batch, limit = task._batch, task._batch.options.task_timeout
        runnable = batch if limit is None else LateCalls(batch, limit)
        self._running.append(batch)
        here.enter(self)
        try:
            run = VirtualRun(runnable, task._index, "manual", self.time, self)
            run.execute()
        finally:
            here.leave(self)
            self._running.remove(batch)
        return run.interrupt

    # -- time -------------------------------------------------------------------------------

    def pause(self, seconds: float, until: Callable[[], bool]) -> None:
        """Let time pass, as nothing else can happen meanwhile."""
        if not until():
            self.time.advance_to(self.time.monotonic() + seconds)

    def checkpoint(self) -> None:
        """Nothing runs beside a task."""

    # -- waits ------------------------------------------------------------------------------

    def attend(self, awaiting: Awaiting) -> bool:
        mine = threading.get_ident() == self._thread or self in here
        in_turn = taking_part() is not None  # one of several threads that act as one
        if not mine and not (in_turn and self._auto_run):
            return False  # the test's thread may run it
        timeout = awaiting.timeout
        end = None if timeout is None else self.time.monotonic() + timeout
        while not awaiting.come():
            task = self._next_for(awaiting, end) if self._auto_run else None
            if task is not None:
                self.run(task)
            elif end is None:
                batches = awaiting.batches
                waiting = [t for t in self._queue.waiting() if t._batch.origin in batches]
                raise WouldBlockError([str(task) for task in waiting], _REMEDY)
            if end is not None and (task is None or self.time.monotonic() >= end):
                self.time.advance_to(end)
                return not awaiting.come()
        return False

    def _next_for(self, awaiting: Awaiting, end: float | None) -> PendingTask | None:
        """Return the next task that is waited for; let time pass until it is due, if need be."""
        while True:
            self.room.release()
            task = self._queue.first_of(awaiting.batches)
            if task is not None:
                return task
            due = self.room.next_due
            if due == math.inf or (end is not None and due > end):
                return None
            self.time.advance_to(due)

    def draw(self) -> float:
        return 1.0  # the longest pause, each time

    def statistics(self) -> Statistics:
        return Statistics(workers=self.max_workers, running=len(self.running()))

    def shutdown(self, wait: bool) -> None:
        here.leave(self)


@public
class ManualExecutor(PoolExecutor):
    """An executor whose tasks run when the test says so, in the order that it chooses.

    A `PoolExecutor` in every respect: verbs, views, retries and groups work on it. Tasks
    run in the thread that calls `run_next` and its like, on virtual time: `poolkit.testing.sleep`,
    ``current_task().wait`` and the pauses between attempts take no time at all. A task that
    overruns its ``task_timeout`` in virtual time fails when its call has returned.

    To wait for a task that has not been run raises `WouldBlockError`, in the thread that made the
    executor and in its own tasks; other threads wait until it is run. A wait with a limit ends with
    `TimeoutError` at once, and that much virtual time has passed. Leaving the ``with`` block while
    tasks are pending is such a wait; afterwards, what is left is cancelled.

    Not to be used by two threads at once.

    Args:
        max_workers: What `max_workers` says, for code that looks at it; one task runs at a time.
        auto_run: Whether a wait runs what it waits for, instead of raising `WouldBlockError`.
        max_pending: As for `make_executor`, like the arguments that follow.
        when_full: What ``submit`` does at that bound; to wait for room is a wait like any other.
        task_timeout: Seconds of virtual time that a task may run.
        retry: Whether and how failed tasks are tried again.
        initializer: Called once, before the first task.
        initargs: Its arguments.
        observers: Called with each `TaskEvent`.
    """

    def __init__(
        self,
        max_workers: int = 1,
        *,
        auto_run: bool = False,
        max_pending: int | None = None,
        when_full: WhenFull = "block",
        task_timeout: float | None = None,
        retry: "Retry | None" = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        observers: "Iterable[Observer]" = (),
    ) -> None:
        check_initializer(initializer, initargs)
        if not isinstance(auto_run, bool):
            raise TypeError(f"auto_run must be True or False, not {auto_run!r:.80}")
        workers = check_positive_int("max_workers", max_workers)
        options = TaskOptions(task_timeout=task_timeout, retry=check_retry(retry))
        events = open_stream(observers)
        self._backend = ManualBackend("manual executor", workers, auto_run, initializer, initargs)
        super().__init__("manual", self._backend, options, max_pending, when_full, events=events)

    @property
    def pending(self) -> tuple[PendingTask, ...]:
        """The tasks that could run now, in the order in which `run_all` would run them."""
        return tuple(self._backend.pending())

    @property
    def elapsed(self) -> float:
        """Seconds of virtual time that have passed since the executor was made."""
        return self._backend.time.elapsed

    def advance(self, seconds: float) -> None:
        """Let so many seconds of virtual time pass; attempts that are due become `pending`."""
        pause = check_pause(seconds)
        self._backend.time.advance_to(self._backend.time.monotonic() + pause)

    def run(self, index: int) -> PendingTask:
        """Run the task that stands at a place of `pending`.

        Args:
            index: The place, from 0; negative ones count from the end.

        Returns:
            The task, which has ended: in whichever way, its future tells.

        Raises:
            IndexError: There is no such place.
        """
        pending = self._backend.pending()
        if isinstance(index, bool) or not isinstance(index, int):
            raise TypeError(f"run takes a place of pending, an int, not {index!r:.80}")
        try:
            task = pending[index]
        except IndexError:
            raise IndexError(f"no task at {index}: {len(pending)} are pending") from None
        self._run(task)
        return task

    def run_next(self) -> PendingTask:
        """Run the first pending task; if none is, let time pass until another attempt is due.

        Returns:
            The task, which has ended.

        Raises:
            IndexError: There is nothing to run.
        """
        task = self._first()
        if task is None:
            raise IndexError("nothing is pending")
        self._run(task)
        return task

    def run_all(self, limit: int = 10_000) -> list[PendingTask]:
        """Run all that is pending, and what that submits, until nothing is left to run.

        Args:
            limit: So many tasks are too many: a mistake that would never end.

        Returns:
            The tasks, in the order in which they ran.

        Raises:
            RuntimeError: There were more than ``limit``.
        """
        return self._run_while(lambda: True, limit)

    def run_until(self, predicate: Callable[[], bool], limit: int = 10_000) -> list[PendingTask]:
        """Run pending tasks, in order, until something is true.

        Args:
            predicate: Called without arguments before each task.
            limit: As for `run_all`.

        Returns:
            The tasks, in the order in which they ran.

        Raises:
            WouldBlockError: Nothing is left to run, and it is not true.
            RuntimeError: There were more than ``limit``.
        """
        check_callable("predicate", predicate)
        ran = self._run_while(lambda: not predicate(), limit)
        if not predicate():
            raise WouldBlockError(["the predicate of run_until"], "Nothing is left to run")
        return ran

    def cancel_all(self) -> int:
        """Cancel all that has not started, attempts that are not due among it.

        Returns:
            How many tasks that were.
        """
        batches = self._link.scopes[0].unsettled()
        count = sum(batch.unstarted for batch in batches)
        for batch in batches:
            batch.take_back()
        return count

    def _run(self, task: PendingTask) -> None:
        interrupt = self._backend.run(task)
        if interrupt is not None:  # it was meant for the test
            raise interrupt

    def _first(self) -> PendingTask | None:
        pending = self._backend.pending()
        if not pending and self._backend.room.next_due != math.inf:
            self._backend.time.advance_to(self._backend.room.next_due)
            pending = self._backend.pending()
        return pending[0] if pending else None

    def _run_while(self, wanted: Callable[[], bool], limit: int) -> list[PendingTask]:
        limit = check_positive_int("limit", limit)
        ran: list[PendingTask] = []
        while wanted() and (task := self._first()) is not None:
            if len(ran) == limit:
                raise RuntimeError(f"{limit} tasks have run, and {task} is next; is there an end?")
            self._run(task)
            ran.append(task)
        return ran

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:  # which matters more than what is left
            self.cancel_all()
        try:
            super().__exit__(exc_type, exc, traceback)
        finally:
            self.end()

    def end(self) -> None:
        """Shut down without waiting, and cancel what has not started; safe to repeat."""
        self.shutdown(wait=False, cancel_futures=True)
        here.leave(self._backend)
