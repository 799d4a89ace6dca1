"""`Scope`: the books of one executor, or of one view of it.

A scope knows the batches that came in through it and have not been settled. From that follow
the bound of ``max_pending``, what ``shutdown`` waits for, and what it cancels. A view has a scope
of its own, and its work is entered in the pool's as well, so that both bounds apply.
"""

import math
import threading
from collections.abc import Callable, Collection
from typing import Protocol

from ._clock import nap
from ._errors import PoolShutdownError, QueueFullError
from ._inherit import WhenFull


class Booked(Protocol):
    """A batch, as the books see it."""

    @property
    def unstarted(self) -> int:
        """How many of its items have not started."""
        ...

    @property
    def may_come_back(self) -> bool:
        """Whether its items may be dispatched again."""
        ...

    def take_back(self) -> bool:
        """Cancel what has not started; say whether that was anything."""
        ...

    def ask_to_stop(self) -> None:
        """Tell what runs that nobody wants its result any more."""
        ...

    def let_go(self) -> None:
        """Release what an interrupt made this thread leave locked."""
        ...


class Scope:
    """Admits batches until it is closed; thread-safe.

    Invariants:

    * A batch is on the books from before its dispatch until all its callbacks have run.
    * Entering and leaving the books takes no lock. Who enters looks afterwards whether the scope
      is closed, who closes it looks at the books afterwards; who leaves looks afterwards for
      sleepers, who sleeps looks at the books afterwards. So one of each two sees the other.
    * A place under the bound is freed exactly once per item, by whoever settled it: whoever
      took it out of `Batch.todo` or `Batch.running`.
    """

    def __init__(self, name: str, max_pending: int | None, when_full: WhenFull) -> None:
        self._name = name
        self._max_pending = max_pending
        self._when_full = when_full
        # In the order in which they came. Changed by single, atomic operations.
        self._batches: dict[Booked, None] = {}
        # Guards all fields below. Re-entrant, as the collector may strike while it is held, and
        # what it finalizes may be an iterator that gives its items back.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._sleepers = 0
        self._bells: list[Callable[[], object]] = []
        self._pending = 0
        self._closed = False
        self.cancels = False
        """Whether what fails is final, as pending tasks were told to end. Set once."""
        self.unwanted = False
        """Whether those that run were told to end, too. Set once."""

    @property
    def max_pending(self) -> int | None:
        """The bound, if there is one."""
        return self._max_pending

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def busy(self) -> bool:
        """Whether any batch is on the books."""
        return bool(self._batches)

    @property
    def size(self) -> int:
        """How many batches are on the books."""
        return len(self._batches)

    def anything_to_do(self) -> bool:
        """Whether any of them has items that have not started."""
        return any(batch.unstarted for batch in self.unsettled())

    def take_places(self, places: int, *, may_block: bool) -> None:
        """Take places under the bound, waiting for them if need be.

        Args:
            places: How many; 0 for work that has a bound of its own.
            may_block: Whether the caller may wait. A task of the same pool may not: those it
                would wait for may need its slot.

        Raises:
            PoolShutdownError: The scope was closed while this call waited.
            QueueFullError: There are not so many, and ``when_full`` is ``"raise"``.
        """
        most = self._max_pending
        if most is None or not places:
            return
        with self._lock:
            if not self._closed and self._pending + places > most:
                if self._when_full == "raise":
                    raise QueueFullError(self._name, most)
                if may_block:
                    self._sleep(lambda: self._closed or self._pending + places <= most)
            if self._closed:
                raise PoolShutdownError(self._name)
            self._pending += places

    def has_room(self, places: int) -> bool:
        """Whether `take_places` would not wait."""
        full = self._max_pending is not None and self._pending + places > self._max_pending
        return self._closed or not full or self._when_full == "raise"

    def enter(self, batch: Booked) -> None:
        """Put a batch on the books, whose places have been taken.

        Raises:
            PoolShutdownError: The scope is closed; the batch is on the books all the same.
        """
        self._batches[batch] = None
        if self._closed:
            raise PoolShutdownError(self._name)

    def release(self, places: int) -> None:
        """Free places: so many items have been settled."""
        if not places or self._max_pending is None:
            return
        with self._lock:
            self._pending -= places
            if self._sleepers:
                self._changed.notify_all()
        if self._bells:
            self._ring()

    def ring_when_changed(self, ring: Callable[[], object]) -> None:
        """Have something called once, when places are freed or the scope is closed."""
        with self._lock:  # not to a list that is just being rung through
            self._bells.append(ring)

    def _ring(self) -> None:
        with self._lock:
            bells, self._bells = self._bells, []
        for ring in bells:
            ring()

    def forget(self, batch: Booked) -> None:
        """Strike a batch off: all its items are settled, and their callbacks have run."""
        self._batches.pop(batch, None)
        if self._sleepers:
            with self._lock:
                self._changed.notify_all()

    def close(self) -> None:
        """Admit nothing more, and send away who waits to be admitted."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        self._ring()

    def abandon(self) -> None:
        """Close for good, in a forked child, where whoever held the lock does not exist."""
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._closed = True
        self._batches = {}

    def unsettled(self) -> list[Booked]:
        """Return the batches on the books, in the order in which they came."""
        return list(self._batches)

    def drain(self, but: Collection[Booked] = ()) -> None:
        """Wait until the books are empty, `but` for the batches that the caller is a part of.

        Often this is where Ctrl-C leads to, so what it left locked in this thread is released.
        """
        for batch in self.unsettled():
            batch.let_go()
        with self._lock:
            self._sleep(lambda: self.is_drained(but))

    def is_drained(self, but: Collection[Booked] = ()) -> bool:
        """Whether the books are empty, `but` for these batches."""
        return self._batches.keys() <= set(but)

    def _sleep(self, enough: Callable[[], bool]) -> None:
        self._sleepers += 1  # before the first look
        try:
            while not enough():
                self._changed.wait(nap(math.inf))
        finally:
            self._sleepers -= 1
