"""The pool behind a `SimulatedExecutor`: virtual workers, which take turns in a simulation."""

import contextlib
import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import attrs

from .._backend import Backend, Batch, Capabilities, Running, Statistics
from .._errors import PoolBrokenError, TaskAbortedError, TaskTimeoutError
from .._task import Awaiting, ThreadState, threads
from ..backends._run import MAX_NESTED, running_items, surrender
from ._errors import Ended, WouldBlockError
from ._host import check_pause, here, never, taking_part
from ._participant import Participant
from ._preempt import tracing
from ._room import TaskQueue
from ._simulation import Simulation, current
from ._virtual import Numbers, PendingTask, VirtualRun

if TYPE_CHECKING:
    from ._simulated import SimulatedExecutor


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
