"""The task that runs in this thread: what it can ask, and what happens while it waits.

A `Run` is one worker's pass over a batch; runs are nested where a task runs another one on its
own stack. A `Slot` is a worker's permission to run tasks. `threads` knows both for its thread.

Who waits for whom
------------------

A run that waits for other tasks, without a time limit, names them in ``awaiting``. The runs and
their ``awaiting`` form a graph. A run is *stuck* if it waits for all of several tasks of which
one is stuck, or for any of several that are all stuck; a task that has not started can still be
run, and is never stuck. Whoever is about to wait adds its edges and looks, under `_graph_lock`,
whether that made it stuck itself: the waiter that closes a cycle gets a `DeadlockError`.

Removing an edge takes no lock: it happens after the awaited task has left `Batch.running`, and a
task that is neither there nor in `Batch.todo` counts as done.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple, Protocol

from ._errors import DeadlockError, TaskCancelled, UnsupportedError
from ._public import public


class Slot(Protocol):
    """A worker, as seen by code that runs in its thread."""

    @property
    def backend(self) -> Any:
        """The pool that the worker belongs to."""
        ...

    def run_here(self, batch: Any) -> None:
        """Run what is left of `batch` on the current thread's stack, inside the current task."""
        ...

    def lend(self, awaited: Collection[Any]) -> bool:
        """Let a spare worker have the slot, which takes `awaited` first; say whether it may."""
        ...

    def reclaim(self) -> None:
        """Go on as before `lend`, at once, even if that makes one worker too many for a while."""
        ...


def _not_yet() -> bool:
    return False


class Awaiting(NamedTuple):
    """What a run waits for: batches, and whether any of their items will do."""

    batches: Collection[Any]
    any_of: bool
    come: Callable[[], bool] = _not_yet
    """Whether what is waited for has come already, though the waiter has not noticed."""
    timeout: float | None = None
    """Seconds to wait at most; None for no limit."""


class Run:
    """One worker's pass over a batch, as far as the task that runs can see it."""

    # Read until an instance has its own: one is made for every task.
    number = 0
    """The item that runs."""
    start = 0.0
    outer: "Run | None" = None
    awaiting: Awaiting | None = None
    stopping = False
    token: "CurrentTask | None" = None

    def __init__(self, batch: Any) -> None:
        self.batch: Any = batch

    def make_token(self) -> "CurrentTask":
        """Return what `current_task` gives to the item at hand."""
        limit = self.batch.options.task_timeout
        deadline = None if limit is None else self.start + limit
        return CurrentTask(deadline, self.batch.attempt)

    def has_news(self) -> bool:
        """Whether earlier items of the batch have ended, and nobody was told yet."""
        return False

    def ask_to_stop(self) -> None:
        """Tell the item at hand that nobody wants its result any more."""
        self.stopping = True  # before the token is looked for; `current_task` does the reverse
        token = self.token
        if token is not None:
            token._stop.set()
            for group in list(token._groups):
                group._cancel()


class ThreadState(threading.local):
    """What the current thread is busy with; None outside of workers and tasks."""

    slot: Slot | None = None
    run: Run | None = None
    serving: Any = None
    """The pool whose results this thread reads, and so must not wait for."""
    hosted: ClassVar[bool] = False
    """Whether there are pools that run only while somebody waits for them, in any thread."""
    patient = False
    """Whether it waits for tasks that run by themselves, in real time."""

    def __init__(self) -> None:
        self.settling: list[Any] = []
        """Batches whose futures' callbacks run."""

    @property
    def in_pool(self) -> bool:
        """Whether waiting concerns a pool: one of which this is a worker, or that hosts tasks."""
        return (
            self.run is not None or self.slot is not None or self.serving is not None or self.hosted
        )

    def runs(self) -> Iterator[Run]:
        """Return what this thread runs, innermost first."""
        run = self.run
        while run is not None:
            yield run
            run = run.outer


threads = ThreadState()


@public
class CurrentTask:
    """What a running task can know about itself, and how it can stop by itself.

    A thread can't be killed. A task that may take long should call `check` now and then, and
    `wait` where it would sleep; otherwise its thread goes on to the end though its future has
    long failed.

    Attributes:
        deadline: When its time is over, on `time.monotonic`'s clock, in seconds; None for never.
        attempt: Which try this is, from 1.
    """

    def __init__(self, deadline: float | None, attempt: int = 1) -> None:
        self.deadline = deadline
        self.attempt = attempt
        self._stop = threading.Event()
        self._groups: list[Any] = []
        """The groups whose blocks it is in; they end with it. Changed by atomic operations."""

    @property
    def cancelled(self) -> bool:
        """Whether the task was given up, or is past its deadline."""
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return late or self._stop.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but no longer than until the task is cancelled or late.

        Returns:
            Whether it is.
        """
        left = math.inf if self.deadline is None else self.deadline - time.monotonic()
        self._stop.wait(min(max(0.0, min(seconds, left)), threading.TIMEOUT_MAX))
        return self.cancelled

    def check(self) -> None:
        """Do nothing, or raise `TaskCancelled` if the task is cancelled or late."""
        if self.cancelled:
            raise TaskCancelled


@public
def current_task() -> CurrentTask:
    """Return the task that the current thread runs.

    Raises:
        RuntimeError: It runs none. To call a task's function directly, in a test for instance,
            submit it to ``make_executor("inline")``.
    """
    run = threads.run
    if run is None:
        raise RuntimeError(
            "current_task() was called outside of a task; to call the function directly, "
            'use make_executor("inline").submit'
        )
    if run.token is None:
        run.token = run.make_token()
        if run.stopping or run.batch.unwanted:
            run.token._stop.set()
    return run.token


# Guards the adding of edges: `Run.awaiting`, when set to anything but None.
_graph_lock = threading.Lock()


@contextmanager
def waiting_for(
    batches: Collection[Any],
    *,
    any_of: bool,
    untimed: bool,
    come: Callable[[], bool],
    timeout: float | None = None,
) -> Iterator[bool]:
    """Surround a wait for tasks, so that a task that waits can't lock up its pool.

    What is surrounded is given whether its time is over already, on the clock of the pool.

    Args:
        batches: What is waited for; all that is known of it.
        any_of: Whether one of their items will do, or all are needed.
        untimed: Whether the wait ends only when they do. Nothing else can be in a deadlock.
        come: Tells whether what is waited for has come already.
        timeout: Seconds to wait at most; None for no limit.

    Raises:
        DeadlockError: They can't end before the current task does.
        UnsupportedError: They can't end before the current callback does.
    """
    serving = threads.serving
    if serving is not None and _known_to(serving, batches):
        raise UnsupportedError(
            serving.name,
            "waiting for its own tasks in a callback, which holds up all results",
            "submit a task of another pool that waits, or wait in a thread",
        )
    run, slot = threads.run, threads.slot
    awaiting = Awaiting(batches, any_of, come, timeout)
    if run is not None and untimed:
        with _graph_lock:
            run.awaiting = awaiting
            cycle = _cycle(run)
        if cycle:
            run.awaiting = None
            raise DeadlockError([member.batch.describe(member.number) for member in cycle])
    try:
        lent = slot is not None and slot.lend(_known_to(slot.backend, batches))
        try:
            if threads.hosted:
                threads.patient = not all(batch.backend.hosted for batch in batches)
                yield _is_late(awaiting)
            else:
                yield False
        finally:
            threads.patient = False
            if lent and slot is not None:
                slot.reclaim()
    finally:
        if run is not None:
            run.awaiting = None


def _known_to(backend: Any, batches: Collection[Any]) -> list[Any]:
    """Return those batches that the workers of a pool run, as they know them."""
    known = (batch.backend.known_to(backend, batch) for batch in batches)
    return [batch for batch in known if batch is not None]


def _is_late(awaiting: Awaiting) -> bool:
    """Have pools run that only do so while somebody waits; say whether the wait's time is over."""
    hosted = [backend for batch in awaiting.batches if (backend := batch.backend).hosted]
    for backend in dict.fromkeys(hosted):
        if awaiting.come():
            break
        if backend.attend(awaiting):
            return True
    return False


def _alternatives(awaiting: Awaiting) -> list[Run | None]:
    """Return the run of each awaited item; None for one that can go on."""
    found: list[Run | None] = []
    if awaiting.come():
        return [None]
    for batch in awaiting.batches:
        parts = batch.unfinished_parts
        runs = [run for part in parts for run in list(part.running.values())]
        idle = not runs or any(part.todo for part in parts)
        found += [None] if idle else [None if run.has_news() else run for run in runs]
    return found


def _cycle(start: Run) -> list[Run]:
    """Return runs that wait for each other, `start` first; empty if `start` is not stuck."""
    waits: dict[Run, list[Run | None]] = {}
    unseen = [start]
    while unseen:
        run = unseen.pop()
        awaiting = run.awaiting
        if awaiting is not None and run not in waits:
            waits[run] = _alternatives(awaiting)
            unseen += [other for other in waits[run] if other is not None]
    modes = {run: all if run.awaiting and run.awaiting.any_of else any for run in waits}
    # Suppose that all who wait are stuck, and strike out who is not, until nothing changes.
    stuck = set(waits)
    while free := {run for run in stuck if not modes[run](other in stuck for other in waits[run])}:
        stuck -= free
    if start not in stuck:
        return []
    cycle = [start]
    while (following := next(o for o in waits[cycle[-1]] if o in stuck)) not in cycle:
        assert following is not None
        cycle.append(following)
    return cycle


def forget_parent() -> None:
    """In a forked child: renew a lock that a thread of the parent may have held."""
    global _graph_lock  # noqa: PLW0603
    _graph_lock = threading.Lock()
