"""`PendingQueue`: batches that wait for a worker, by priority."""

from bisect import insort
from collections import deque
from collections.abc import Collection, Iterator

from .._backend import Batch


class PendingQueue:
    """First in, first out within a priority; smaller priorities first. Not thread-safe.

    Batches that have nothing left to claim may stand anywhere in it, as cancelling and helping
    a waiter leave them there; `pop` passes over them, and `push` sweeps when they may be many.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._first: deque[Batch] = deque()
        self._levels: dict[int, deque[Batch]] = {0: deque()}
        self._order = [0]
        self._count = 0
        self._sweep_at = 64

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over what can still be run, each once, in order."""
        seen = {batch: None for batch in self._first if batch.todo}
        for priority in self._order:
            seen |= {batch: None for batch in self._levels[priority] if batch.todo}
        return iter(seen)

    def __bool__(self) -> bool:
        return self._count > 0 and any(True for _ in self)

    def push(self, batch: Batch) -> None:
        """Add a batch behind all others of its priority."""
        priority = batch.options.priority
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = deque()
            insort(self._order, priority)
        level.append(batch)
        self._count += 1
        if self._count > self._sweep_at:
            self._sweep()

    def push_first(self, batches: Collection[Batch]) -> None:
        """Put batches before all others; they may stand elsewhere in the queue, too."""
        waiting = [batch for batch in batches if batch.todo]
        self._first.extendleft(reversed(waiting))
        self._count += len(waiting)

    def pop(self) -> Batch | None:
        """Take out the next batch that can still be run; None if there is none."""
        if not self._count:
            return None
        for level in (self._first, *(self._levels[priority] for priority in self._order)):
            while level:
                self._count -= 1
                batch = level.popleft()
                if batch.todo:
                    return batch
        self._order = [0]
        self._levels = {0: deque()}
        return None

    def _sweep(self) -> None:
        """Drop what has nothing left to claim; amortised, this costs each push a constant."""
        self._first = deque(batch for batch in self._first if batch.todo)
        self._count = len(self._first)
        for priority, level in self._levels.items():
            self._levels[priority] = kept = deque(batch for batch in level if batch.todo)
            self._count += len(kept)
        self._sweep_at = max(64, 2 * self._count)
