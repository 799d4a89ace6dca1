"""`Store`: keeps segments for reuse, and knows when one may be written to again.

Fresh memory costs four times what copying to such as was used before does: the kernel has to find
and clear each page. So a sender keeps some of the segments that it has filled.

Invariants:

* A segment is filled again only when nobody has a view on it: it was lent to receivers that live,
  and each has written `FREE` to its slot. Where that can't be known, it is closed instead, and the
  kernel frees it when the last mapping is gone.
* A slot is lent again only when its receiver has written to it, so that a late word can't be
  taken for one about another segment.
"""

import contextlib
import threading
import weakref
from collections import deque
from typing import Any, Final

from .board import SLOTS
from .mapping import FREE, GONE, LENT, Placed, Segment

KEPT_BY_PARENT: Final = 64 * 2**20
KEPT_BY_WORKER: Final = 32 * 2**20
"""The most bytes of segments that are kept for reuse, while there is work."""

# So many segments may be there at once, each of which is a descriptor; and so many of them to be
# used again. What else is to be sent travels through the socket.
_MOST_SEGMENTS: Final = 128
_MOST_KEPT: Final = 48


class Lender:
    """What was lent to one receiver. The store's lock guards it."""

    def __init__(self, flags: memoryview) -> None:
        """Prepare; the receiver writes to `flags`."""
        self._flags = flags
        # Who has each slot; it stays so until the receiver was heard.
        self._holders: list[Segment | None] = [None] * SLOTS

    def lend(self, segment: Segment) -> int | None:
        """Return the slot at which the receiver is to say that it gives the segment back.

        None if there is none left. Then nobody will know.
        """
        for slot, holder in enumerate(self._holders):
            if holder is None or (holder.closed and self._flags[slot] != LENT):
                self._flags[slot] = LENT
                self._holders[slot] = segment
                segment.loans.append((self, slot))
                return slot
        segment.loans.append((None, 0))
        return None

    def state(self, slot: int) -> int:
        """Return what the receiver says."""
        return self._flags[slot]

    def forgive(self, slot: int) -> None:
        """Free the slot of a segment that was given back."""
        self._holders[slot] = None

    def close(self) -> None:
        """Take note that the receiver is gone. Its children may have views that it had."""
        for slot, holder in enumerate(self._holders):
            if holder is not None:
                holder.loans.remove((self, slot))
                if self._flags[slot] != FREE:
                    holder.loans.append((None, 0))
        self._holders.clear()


class Store:
    """The segments of one sender."""

    def __init__(self, most_kept: int) -> None:
        """Prepare; `most_kept` bytes are kept at most for reuse."""
        self._most_kept = most_kept
        # Guards the fields below, all lenders, and the loans of segments. The pool's own, if there
        # is one: the collector may strike while it is held, and run what takes the pool's. So it is
        # re-entrant, and nothing below relies on a look that is older than a call.
        self.lock = threading.RLock()
        self._kept: deque[Segment] = deque()  # the oldest first
        self._all: weakref.WeakSet[Segment] = weakref.WeakSet()
        self._closed = False
        self._returned: deque[Segment] = deque()

    def fill(self, placed: Placed, size: int) -> Segment:
        """Copy content to a segment that nobody else uses.

        Raises:
            OSError: There is no memory, there are no descriptors, or enough segments.
        """
        with self.lock:
            segment = self._take(size)
            if segment is None:
                while len(self._all) >= _MOST_SEGMENTS:
                    if not self._drop_oldest():
                        raise OSError("there are enough segments")
                segment = Segment(size)
                self._all.add(segment)
        try:
            segment.fill(placed)
        except BaseException:
            with self.lock:
                self._drop(segment)
            raise
        return segment

    def keep(self, segment: Segment) -> None:
        """Take back a segment whose content is no more to be sent. Finalizers may call it."""
        self._returned.append(segment)
        with self.lock:
            self._sort_in()

    def lend(self, segment: Segment, lender: Lender) -> int | None:
        """Lend a segment to a receiver; see `Lender.lend`."""
        with self.lock:
            return lender.lend(segment)

    def part_with(self, lender: Lender) -> None:
        """Take note that a receiver is gone."""
        with self.lock:
            lender.close()

    @property
    def kept(self) -> int:
        """How many bytes are kept for reuse."""
        return sum([segment.size for segment in self._kept.copy()])

    def rest(self) -> None:
        """Give back the memory that is kept for reuse."""
        with self.lock:
            self._sort_in()
            while self._drop_oldest():
                pass

    def close(self) -> None:
        """Keep nothing any more."""
        self._closed = True
        self.rest()

    def abandon(self, lock: "threading.RLock") -> None:
        """In a forked child: close the descriptors that were inherited."""
        self.lock = lock
        self._closed = True
        for segment in list(self._all):
            segment.close()
        self._kept.clear()
        self._returned.clear()

    def _sort_in(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                segment = self._returned.popleft()
                if self._closed or segment.size > self._most_kept:
                    self._drop(segment)
                else:
                    self._kept.append(segment)
        while self.kept > self._most_kept or len(self._kept) > _MOST_KEPT:
            self._drop_oldest()

    def _take(self, size: int) -> Segment | None:
        """Take a segment from what is kept that may be written to, and is not far too large."""
        self._sort_in()
        for segment in reversed(self._kept.copy()):
            state = _state(segment)
            if not size <= segment.size <= 2 * size or state == LENT:
                continue
            try:
                self._kept.remove(segment)
            except ValueError:  # the collector has struck
                continue
            if state == FREE:
                for lender, slot in segment.loans:
                    lender.forgive(slot)
                segment.loans.clear()
                return segment
            self._drop(segment)
        return None

    def _drop_oldest(self) -> bool:
        try:
            self._drop(self._kept.popleft())
        except IndexError:
            return False
        return True

    def _drop(self, segment: Segment) -> None:
        segment.close()
        self._all.discard(segment)


def _state(segment: Segment) -> int:
    """Return whether any receiver has a view on it, or may have."""
    states: list[Any] = [
        GONE if lender is None else lender.state(slot) for lender, slot in segment.loans
    ]
    return max(states, default=FREE)


class Shipment:
    """The right to send a segment's content; it ends with the last parcel that has it."""

    __slots__ = ("_store", "segment", "size")

    def __init__(self, store: Store, segment: Segment, size: int) -> None:
        self._store = store
        self.segment = segment
        self.size = size

    def __del__(self) -> None:
        self._store.keep(self.segment)
