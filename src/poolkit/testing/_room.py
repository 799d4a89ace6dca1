"""Where further attempts of failed tasks wait in virtual time, and tasks for a worker."""

import heapq
import math
from bisect import insort
from collections import deque
from collections.abc import Collection

from .._backend import Batch
from .._retrying import Retrial
from ._clock import VirtualClock
from ._virtual import PendingTask


class VirtualRoom:
    """A `poolkit._retrying.WaitingRoom` without a thread: it is asked when time has passed."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._waiting: list[Retrial] = []  # a heap

    def enter(self, retrial: Retrial) -> bool:
        """Have a retrial dispatched when it is due."""
        if retrial.todo:  # else it was taken back on the way
            heapq.heappush(self._waiting, retrial)
        return True

    def leave(self, retrial: Retrial) -> None:
        """Forget a retrial that was taken back."""
        if retrial in self._waiting:
            self._waiting.remove(retrial)
            heapq.heapify(self._waiting)

    @property
    def next_due(self) -> float:
        """When the next one is due; infinite if there is none."""
        return self._waiting[0].due if self._waiting else math.inf

    def release(self) -> None:
        """Dispatch what is due."""
        while self.next_due <= self._clock.monotonic():
            retrial = heapq.heappop(self._waiting)
            retrial.owner.dispatch_again(retrial)


class TaskQueue:
    """Tasks that wait for a worker: smaller priorities first, then first come, first served."""

    def __init__(self) -> None:
        self._tasks: deque[PendingTask] = deque()

    def add(self, tasks: Collection[PendingTask]) -> None:
        """Put tasks at the end of those of their priority."""
        for task in tasks:
            priority = task._batch.options.priority
            if not self._tasks or self._tasks[-1]._batch.options.priority <= priority:
                self._tasks.append(task)
            else:
                insort(self._tasks, task, key=lambda each: each._batch.options.priority)

    def push_first(self, batches: Collection[Batch]) -> None:
        """Let the tasks of some batches go first."""
        parts = {part for batch in batches for part in batch.unfinished_parts}
        self._tasks = deque(sorted(self._tasks, key=lambda task: task._batch not in parts))

    def waiting(self) -> list[PendingTask]:
        """Return the tasks that still can be run, in order."""
        self._tasks = deque(task for task in self._tasks if task._index in task._batch.todo)
        return list(self._tasks)

    def first_of(self, batches: Collection[Batch]) -> PendingTask | None:
        """Return the first task of some batches, or of further attempts at them."""
        self._drop_taken()
        for task in self._tasks:
            if task._batch.origin in batches and task._index in task._batch.todo:
                return task
        return None

    def take_first(self) -> PendingTask | None:
        """Take the next task out; None if there is none."""
        self._drop_taken()
        return self._tasks.popleft() if self._tasks else None

    def _drop_taken(self) -> None:
        while self._tasks and self._tasks[0]._index not in self._tasks[0]._batch.todo:
            self._tasks.popleft()
