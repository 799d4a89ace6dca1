"""`SimulatedExecutor`: virtual workers on a virtual clock, in an order that a seed decides."""

import contextlib
import itertools
import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

from .._backend import Backend, Batch, Capabilities, Running, Statistics
from .._checks import check_callable, check_initializer, check_positive_int, check_seconds
from .._errors import PoolBrokenError, TaskAbortedError, TaskTimeoutError
from .._events import open_stream
from .._executor import PoolExecutor
from .._inherit import WhenFull
from .._options import TaskOptions, check_retry
from .._public import public_in_testing as public
from .._task import Awaiting, ThreadState, threads
from ..backends._run import MAX_NESTED, running_items, surrender
from ._errors import Ended, WouldBlockError
from ._host import check_pause, here, never, taking_part
from ._preempt import tracing
from ._room import TaskQueue
from ._schedule import Schedule, make_choices
from ._simulation import Participant, Simulation, current
from ._virtual import Numbers, PendingTask, VirtualRun

if TYPE_CHECKING:
    from .._events import Observer
    from .._retry import Retry

Durations = Callable[[PendingTask], float] | tuple[float, float] | None
_numbers = itertools.count(1)
# How many durations there are between two bounds.
_STEPS: Final = 20


class _Run(VirtualRun):
    """A run that tells the pool when it has begun, and takes its time."""

    def __init__(self, task: PendingTask, worker: "_Worker") -> None:
        backend = worker.backend
        simulation = backend.simulation
        super().__init__(task._batch, task._index, worker.name, simulation.clock, simulation)
        self.owner = worker
        self._task = task

    def _begun(self) -> None:
        worker: Any = self.owner
        worker.backend.begun(self, self._task)


class _Worker(Participant):
    """A thread that runs tasks when it has the turn; a `Slot` for the tasks in it."""

    def __init__(self, backend: "SimulatedBackend", place: int) -> None:
        super().__init__(backend.simulation, f"simulated_{place}")
        self.backend = backend
        self.task: PendingTask | None = None
        self.runs: list[_Run] = []
        """What it runs, one on top of the other."""
        self.lost = False
        """It was abandoned with a task in it."""
        self.waiting = False
        """It has lent its slot."""

    @property
    def what(self) -> Any:
        return self.task or self.name

    def start(self) -> None:
        """Start its thread, which waits for the turn."""
        # The starter waits for the thread to exist, which must not be a matter of turns.
        participant, here.participant = here.participant, None
        try:
            threading.Thread(target=self._main, name=f"poolkit-{self.name}", daemon=True).start()
        finally:
            here.participant = participant

    def _main(self) -> None:
        self.ident, self.thread_id = threading.get_ident(), threading.get_native_id()
        self.simulation.threads.add(self.ident)
        self.sleep()
        here.participant = self
        here.enter(self.simulation)
        threads.slot = self
        with contextlib.suppress(Ended, WouldBlockError):
            self.backend.initialize()
            while self.task is not None:
                self._run(self.task)
                self.task = None
                self.backend.done(self)
                if self.lost:
                    break
                self.simulation.dismiss()
        self.simulation.threads.discard(self.ident)
        self.simulation.resign()

    def _run(self, task: PendingTask) -> None:
        self.runs.append(_Run(task, self))
        try:
            with tracing(self.simulation, self.backend.preempt):
                self.runs[-1].execute()
            self.simulation.log.append((task, "ends", ""))
        finally:
            self.runs.pop()

    def run_here(self, batch: Batch) -> None:
        if len(self.runs) <= MAX_NESTED:
            self.backend.take_in()
            for task in self.backend.queue.waiting():
                if task._batch is batch:
                    self._run(task)

    def lend(self, awaited: Collection[Batch]) -> bool:
        if not awaited or self.waiting or self.lost:
            return False
        self.waiting = True
        self.backend.active -= 1
        self.backend.queue.push_first(awaited)
        return True

    def reclaim(self) -> None:
        self.waiting = False
        if not self.lost:
            self.backend.active += 1


class SimulatedBackend(Backend):
    """A pool of virtual workers; the simulation's rules hold for its fields.

    Invariants:

    * ``active`` counts workers that hold a slot; a task gets a worker while it is less than
      ``max_workers``. Workers that wait have lent theirs, abandoned ones have lost it.
    """

    capabilities = Capabilities(priorities=True, deadlines="hard", stops="abandoned")
    hosted = True

    def __init__(
        self,
        name: str,
        simulation: Simulation,
        max_workers: int,
        durations: "Callable[[PendingTask], float]",
        preempt: str | None,
        initializer: Callable[[], object] | None,
    ) -> None:
        self.name = name
        self.simulation = simulation
        self.max_workers = max_workers
        self.clock = simulation.clock
        self.waiting_room = simulation.room
        self.durations = durations
        self.preempt = preempt
        self.queue = TaskQueue()
        self.active = 0
        self._numbers = Numbers()
        self._arrived: deque[Batch] = deque()  # any thread appends
        self._initializer = initializer
        self._broken: PoolBrokenError | None = None
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._closing = False
        self.face: weakref.ref[SimulatedExecutor] | None = None
        """Who owns it, once that has been made."""
        ThreadState.hosted = True
        simulation.pools.append(self)
        simulation.joined.append(self)

    # -- work -------------------------------------------------------------------------------

    def dispatch(self, batch: Batch) -> None:
        if self._broken is not None:
            raise PoolBrokenError(self.name, self._broken.reason) from self._broken.__cause__
        self._arrived.append(batch)

    def take_in(self) -> None:
        """Queue what has been dispatched."""
        while self._arrived:
            self.queue.add(self._numbers.tasks(self._arrived.popleft()))

    def staff(self) -> None:
        """Give pending tasks to free workers, the first to the one that was busy last."""
        self.take_in()
        while self.active < self.max_workers:
            task = self.queue.take_first()
            if task is None:
                return
            if self._idle:
                worker = self._idle.pop()
            else:
                worker = _Worker(self, len(self._workers))
                self._workers.append(worker)
                self.simulation.workers.append(worker)
                worker.start()
            worker.task = task
            worker.number = task.number
            self.active += 1
            self.simulation.enlist(worker)

    def begun(self, run: "_Run", task: PendingTask) -> None:
        """Let a task that has just begun take its time."""
        limit = task._batch.options.task_timeout
        if limit is not None:
            self.simulation.limit(run.start + limit, _Limit(self, run, limit))
        self.simulation.log.append((task, "begins", ""))
        seconds = self.durations(task)
        if seconds:
            self.simulation.pause(check_pause(seconds), never)

    def done(self, worker: "_Worker") -> None:
        """Take a worker back that has run its task."""
        if not worker.lost:
            self.active -= 1
            self._idle.append(worker)

    def initialize(self) -> None:
        """Run the initializer, in a new worker."""
        if self._initializer is not None and self._broken is None:
            try:
                self._initializer()
            except BaseException as error:
                self._broken = PoolBrokenError(self.name, "its initializer failed")
                self._broken.__cause__ = error
        broken = self._broken
        if broken is not None:
            self.take_in()
            tasks = self.queue.waiting()
            tasks += [worker.task for worker in self._workers if worker.task is not None]
            for task in tasks:
                if task._batch.claim(task._index):
                    task._batch.report_failed([task._index], broken)

    # -- what the face asks for -------------------------------------------------------------

    def attend(self, awaiting: Awaiting) -> bool:
        simulation = self.simulation
        if not simulation.open or simulation.broken:
            raise WouldBlockError(
                [batch.describe(0) for batch in awaiting.batches], "Its simulation has ended"
            )
        if current() is not simulation:  # another thread: the test's will let it happen
            return False
        timeout = awaiting.timeout
        end = math.inf if timeout is None else self.clock.monotonic() + timeout
        simulation.switch(awaiting.come, end)
        return not awaiting.come()

    def spin(self) -> None:
        if current() is self.simulation:
            self.simulation.pause(0.001, never)
        else:
            super().spin()

    def draw(self) -> float:
        return self.simulation.draw()

    def withdraw(self, batch: Batch) -> list[int]:
        return batch.claim_rest()

    def stop(self, batch: Batch, number: int, error: BaseException) -> bool:
        surrendered = surrender(batch, number, error)
        if surrendered is None:
            return False
        run, records = surrendered
        worker: Any = run.owner
        if not worker.lost:
            worker.lost = True
            if not worker.waiting:
                self.active -= 1
        batch.report(records)
        return True

    def running(self) -> list[Running]:
        return running_items([run.batch for worker in self._workers for run in worker.runs])

    def statistics(self) -> Statistics:
        self.take_in()
        live = [worker for worker in self._workers if not worker.lost]
        return Statistics(
            workers=len(live),
            idle=len(self._idle),
            running=len(self.running()),
            waiting=sum(worker.waiting for worker in live),
            abandoned=sum(worker.lost and bool(worker.runs) for worker in self._workers),
        )

    def shutdown(self, wait: bool) -> None:
        self._closing = True
        taking_part()  # which ends what is over

    @property
    def over(self) -> bool:
        """Whether nothing will come of it any more: it is closed and idle, or forgotten."""
        self.take_in()
        idle = not self.active and not self.queue.waiting()
        return (self._closing and idle) or (self.face is not None and self.face() is None)

    def close_face(self) -> None:
        """Take no more tasks, and cancel what has not started."""
        face = None if self.face is None else self.face()
        if face is not None:
            face._link.scopes[0].close()
        self.take_in()
        assigned = [worker.task for worker in self._workers if worker.task is not None]
        for task in [*self.queue.waiting(), *assigned]:
            batch: Any = task._batch.origin
            batch.take_back()

    def give_up_rest(self) -> None:
        """Let everything fail that has not ended: its thread won't come back, or is forgotten."""
        for batch, number, _ in self.running():
            self.stop(batch, number, TaskAbortedError(batch.describe(number)))

    def close(self) -> None:
        """Take no more part, whatever is left; the last pool that leaves ends the simulation."""
        if self in self.simulation.pools:
            self.simulation.pools.remove(self)
        taking_part()


@attrs.frozen(eq=False)
class _Limit:
    """A task's time limit: a `Limited`."""

    _backend: SimulatedBackend
    _run: _Run
    _seconds: float

    @property
    def runs(self) -> bool:
        run = self._run
        return run.batch is not None and run.batch.running.get(run.number) is run

    def stop(self) -> None:
        batch, number = self._run.batch, self._run.number
        late = TaskTimeoutError(batch.describe(number), self._seconds)
        self._backend.stop(batch, number, late)


@public
class SimulatedExecutor(PoolExecutor):
    """An executor of virtual workers, whose order of events a seed decides, on a virtual clock.

    A `PoolExecutor` in every respect. While the test's thread waits (for a future, for results, at
    the end of the ``with`` block), tasks run, one at a time. They change over at *switch points*:
    where a task starts and ends, `checkpoint`, `sleep`, ``current_task().check`` and ``.wait``,
    each wait for a future of the pool, and each wait for a lock, an event, a queue (of `threading`
    and `queue`) made in the simulation; with ``preempt="lines"`` also between the lines of the code
    under test. Who goes on there is drawn from the seed: the same seed gives the same order on
    every machine and every version of Python, as long as the code under test does the same.

    Time passes only when nobody can go on, and takes no time. ``task_timeout``, the pauses of
    retries, ``current_task().wait``, `sleep` and limits of waits follow it. A task that is late
    fails on time; its call goes on at its next switch point, as that of an abandoned thread does.

    If nobody can ever go on, the test's wait raises `WouldBlockError`, which tells who waits where.
    Threads that the code under test starts itself take no part: they run as they like.

    An executor that is made by somebody who takes part in a simulation already joins it: one clock,
    one order; its own seed does not count then.

    Args:
        seed: What decides the order: a number, or a `Schedule` (or its text) to be followed.
        max_workers: How many tasks are under way at once.
        durations: How long tasks take, in seconds of virtual time, before what they do: a
            function of the `PendingTask`, or a pair of bounds between which the seed draws. By
            default no time.
        preempt: ``"lines"`` for switch points between lines; None for none.
        max_pending: As for `make_executor`, like the arguments that follow.
        when_full: What ``submit`` does at that bound; to wait for room is a wait like any other.
        task_timeout: Seconds of virtual time that a task may run.
        retry: Whether and how failed tasks are tried again.
        initializer: Called in each worker before its first task.
        initargs: Its arguments.
        observers: Called with each `TaskEvent`.
    """

    def __init__(
        self,
        seed: int | str | Schedule = 0,
        max_workers: int = 4,
        *,
        durations: Durations = None,
        preempt: Literal["lines"] | None = None,
        max_pending: int | None = None,
        when_full: WhenFull = "block",
        task_timeout: float | None = None,
        retry: "Retry | None" = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        observers: "Iterable[Observer]" = (),
    ) -> None:
        choices = make_choices(seed)
        workers = check_positive_int("max_workers", max_workers)
        check_initializer(initializer, initargs)
        if preempt not in (None, "lines"):
            raise ValueError(f'preempt must be "lines" or None, not {preempt!r:.80}')
        options = TaskOptions(task_timeout=task_timeout, retry=check_retry(retry))
        events = open_stream(observers)
        taken = _check_durations(durations, lambda: self._simulation)
        begin = None if initializer is None else partial(initializer, *initargs)
        name = f"simulated executor {next(_numbers)}"
        self._seed = seed
        self._simulation = current() or Simulation(choices)
        self._backend = SimulatedBackend(name, self._simulation, workers, taken, preempt, begin)
        try:
            super().__init__(
                "simulated", self._backend, options, max_pending, when_full, events=events
            )
        except BaseException:
            self._backend.close()
            raise
        self._backend.face = weakref.ref(self)

    @property
    def elapsed(self) -> float:
        """Seconds of virtual time that have passed since the simulation began."""
        return self._simulation.clock.elapsed

    @property
    def schedule(self) -> Schedule:
        """What was chosen so far; ``SimulatedExecutor(schedule)`` chooses the same again."""
        return self._simulation.choices.schedule

    @property
    def log(self) -> tuple[str, ...]:
        """What happened so far, in order, for people."""
        return tuple(
            f"{task} {what}" + (f" at {place}" if place else "")
            for task, what, place in self._simulation.log
        )

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:  # which matters more than what is left
            self._tell_how_to_replay(exc)
            self.end()
            return
        try:
            super().__exit__(exc_type, exc, traceback)
        except BaseException as error:
            self._tell_how_to_replay(error)
            raise
        finally:
            self.end()

    def end(self) -> None:
        """Shut down without waiting, and end what has not ended; safe to repeat.

        The last executor of a simulation that ends, in the test's thread, ends the simulation:
        `threading` makes real locks again.
        """
        self._cancel()
        self._backend.close()

    def _tell_how_to_replay(self, error: BaseException) -> None:
        if self._simulation.explored:
            return
        note = f"poolkit: in SimulatedExecutor({self._seed!r}); the same seed gives the same order"
        with contextlib.suppress(Exception):  # an error that can't be added to
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)


def _check_durations(
    durations: Any, simulation: Callable[[], Simulation]
) -> Callable[[PendingTask], float]:
    if durations is None:
        return lambda task: 0.0
    if not isinstance(durations, (tuple, list)):
        check_callable("durations", durations)
        function: Callable[[PendingTask], float] = durations
        return function
    try:
        given: list[Any] = [*durations]
        low, high = (check_seconds("durations", each, allow_zero=True) for each in given)
    except ValueError as error:
        raise ValueError(f"durations must be a function or (least, most): {error}") from None
    if low is None or high is None or low > high:
        raise ValueError(f"durations must be (least, most) in seconds, not {durations!r:.80}")
    least, most = low, high
    # A choice like any other, so that it is replayed and made smaller with the rest.
    return lambda task: (
        least + (most - least) * simulation().choices.choose(_STEPS + 1, stays=False) / _STEPS
    )
