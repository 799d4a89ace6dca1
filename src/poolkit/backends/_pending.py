"""`PendingQueue`: batches that wait for a worker, by priority."""

from bisect import insort
from collections import deque
from collections.abc import Collection, Iterator

from .._backend import Batch


class PendingQueue:
    """First in, first out within a priority; smaller priorities first.

    Nearly all batches have priority 0 and stand in ``plain``, to which any thread may append,
    and from which it may take the leftmost while `special` is false: both are single operations
    that the interpreter makes atomic. All else is guarded by the owner's lock.

    Batches that have nothing left to claim may stand anywhere in it, as cancelling and helping
    a waiter leave them there; `pop` passes over them.
    """

    def __init__(self) -> None:
        self.plain: deque[Batch] = deque()
        self.special = False
        """Whether `pop` has more to look at than ``plain``."""
        self._first: deque[Batch] = deque()
        self._levels: dict[int, deque[Batch]] = {0: self.plain}
        self._order = [0]

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over what can still be run, each once, in order."""
        levels = [self._first, *(self._levels[priority] for priority in self._order)]
        return iter({batch: None for level in levels for batch in list(level) if batch.todo})

    def __len__(self) -> int:
        """Return how many batches stand in it, those among them that can't be run any more."""
        return len(self._first) + sum(len(level) for level in self._levels.values())

    def peek(self) -> Batch | None:
        """Return the next batch that can still be run, and leave it where it is."""
        if not self.special:
            plain = self.plain
            while plain:
                if plain[0].todo:
                    return plain[0]
                plain.popleft()
            return None
        for level in (self._first, *(self._levels[priority] for priority in self._order)):
            while level:
                if level[0].todo:
                    return level[0]
                level.popleft()
        self._forget_empty_levels()
        return None

    def push(self, batch: Batch) -> None:
        """Add a batch behind all others of its priority."""
        priority = batch.options.priority
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = deque()
            insort(self._order, priority)
            self.special = True
        level.append(batch)

    def push_first(self, batches: Collection[Batch]) -> None:
        """Put batches before all others; they may stand elsewhere in the queue, too."""
        self._first.extendleft(batch for batch in reversed(list(batches)) if batch.todo)
        self.special = True

    def pop(self) -> Batch | None:
        """Take out the next batch that can still be run; None if there is none."""
        for level in (self._first, *(self._levels[priority] for priority in self._order)):
            batch = pop_runnable(level)
            if batch is not None:
                return batch
        self._forget_empty_levels()
        return None

    def clear(self) -> None:
        """Forget everything."""
        self._first.clear()
        self.plain.clear()
        self._forget_empty_levels()

    def sweep(self) -> None:
        """Drop what has nothing left to claim; others may append to ``plain`` meanwhile."""
        self.special = True  # keeps those who pop without the lock away
        for level in (self._first, *self._levels.values()):
            kept: list[Batch] = []
            for _ in range(len(level)):  # steady appending must not keep us here
                batch = pop_runnable(level)
                if batch is None:
                    break
                kept.append(batch)
            level.extendleft(reversed(kept))
        self.special = bool(self._first) or len(self._order) > 1

    def _forget_empty_levels(self) -> None:
        self._levels = {0: self.plain}
        self._order = [0]
        self.special = False


def pop_runnable(level: deque[Batch]) -> Batch | None:
    """Take the leftmost batch that has something left to claim; thread-safe."""
    while True:
        try:
            batch = level.popleft()
        except IndexError:
            return None
        if batch.todo:
            return batch
