"""Memory that two processes share: a `Segment` at the sender's end, a `Loan` at the receiver's.

It has no name in any file system. The kernel counts who has a descriptor of it, or a mapping, and
frees it with the last one, however that process ends.

The receiver maps it privately: what it writes is copied, page by page, and the sender's content
stays. So arrays arrive writable, what is only read is not copied, and a task whose worker has died
is sent again as it was.
"""

import contextlib
import mmap
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

# What a receiver writes to the board when it is done with a segment, and before.
FREE: Final = 0
"""Nobody has a view on it any more: the sender may write to it again."""
LENT: Final = 1
GONE: Final = 2
"""Somebody may still have a view, of whom nobody will hear: it must not be written to any more."""

# So many are mapped at once; what else comes is copied. In older Pythons each mapping costs a
# descriptor, of which most systems allow 1,024. Linux allows 65,530 mappings.
_MOST_MAPPED: Final = 16_384 if sys.version_info >= (3, 13) else 192

Placed = Sequence[tuple[int, Any]]
"""Pieces of content: where each begins, and a buffer of bytes."""


class Segment:
    """Shared memory to put content in, for others to read. The owner's lock guards its use."""

    __slots__ = ("__weakref__", "_descriptor", "loans", "size")

    def __init__(self, size: int) -> None:
        """Make one; `size` is how much the first content takes, and each later one may.

        Raises:
            OSError: There are no more descriptors, or there is no memory.
        """
        self.loans: list[Any] = []
        """To whom it was lent since it was filled; see `poolkit.backends.process.lending`."""
        self.size = size
        self._descriptor: int | None = None
        self._descriptor = os.memfd_create("poolkit-buffers", os.MFD_CLOEXEC)

    def fill(self, placed: Placed) -> None:
        """Copy content in.

        By system calls: they are as quick as a mapping, let other threads run meanwhile, and say if
        there is no memory, where a mapping would end the process.

        Raises:
            OSError: There is no memory for it.
        """
        for at, piece in placed:
            with memoryview(piece) as view:
                done = 0
                while done < len(view):
                    with view[done:] as rest:
                        done += os.pwrite(self.descriptor, rest, at + done)

    @property
    def descriptor(self) -> int:
        """What to send to a receiver."""
        if self._descriptor is None:
            raise ValueError("the segment is closed")
        return self._descriptor

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._descriptor is None

    def read(self, start: int, stop: int) -> bytes:
        """Return a part of the content."""
        parts: list[bytes] = []
        while start < stop:
            parts.append(os.pread(self.descriptor, stop - start, start))
            start += len(parts[-1])
        return b"".join(parts)

    def close(self) -> None:
        """Give the memory back, as soon as receivers have; safe to repeat."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class Loan(mmap.mmap):
    """Another process' segment, mapped here until the last view on it is gone."""

    mapped = 0
    """How many there are, roughly."""
    forks = 0
    """How often this process was forked, or is about to be: a child has the mappings that we have
    then, and we can't know for how long."""

    _flags: memoryview | None = None
    _slot: int | None = None
    _made = 0, 0

    def lend_by(self, flags: memoryview, slot: int | None, forks: int) -> None:
        """Say where to tell the sender that it is given back.

        Args:
            flags: Where to write.
            slot: At which place; None for nowhere.
            forks: How many there had been before it was mapped.
        """
        Loan.mapped += 1
        self._made = os.getpid(), forks
        self._flags, self._slot = flags, slot

    def __del__(self) -> None:
        if self._flags is None or self._made[0] != os.getpid():
            return  # in a child, it is not ours to give back
        Loan.mapped -= 1
        try:
            self.close()
        except BufferError:  # the collector has found a cycle, somebody in which may still read
            state = GONE
        else:
            state = FREE if self._made[1] == Loan.forks else GONE
        give_back(self._flags, self._slot, state)

    @classmethod
    def _count_fork(cls) -> None:
        cls.forks += 1


class Landed:
    """A segment that has come, and is mapped when somebody needs it."""

    __slots__ = ("_descriptor", "_flags", "_made", "_size", "_slot", "_view")

    def __init__(self, descriptor: int, size: int, flags: memoryview, slot: int | None) -> None:
        """Take over a descriptor.

        Args:
            descriptor: What has come from the sender.
            size: How many bytes there are.
            flags: Where to write that it is given back, at `slot`.
            slot: The place there; None if the sender does not want to know.
        """
        self._descriptor: int | None = descriptor
        self._size = size
        self._flags = flags
        self._slot = slot
        self._made = os.getpid()
        self._view: memoryview | None = None

    def view(self) -> memoryview:
        """Return a view on the content, writable: a mapping, or where there can be none, a copy.

        Raises:
            OSError: There is no content.
            MemoryError: There is no memory for a copy.
        """
        if self._view is None:
            assert self._descriptor is not None
            self._view = self._map()
            self._close(FREE)
        return self._view

    def _map(self) -> memoryview:
        assert self._descriptor is not None
        if Loan.mapped < _MOST_MAPPED:
            forks = Loan.forks
            try:
                loan = _map(self._descriptor, self._size)
            except (OSError, ValueError):  # no more mappings, or descriptors
                pass
            else:
                loan.lend_by(self._flags, self._slot, forks)
                self._slot = None  # it is the loan's now
                return memoryview(loan)
        content = memoryview(bytearray(self._size))
        done = 0
        while done < self._size:
            with content[done:] as rest:
                count = os.preadv(self._descriptor, [rest], done)
            if not count:
                raise OSError("the segment is shorter than its sender has said")
            done += count
        return content

    def _close(self, state: int) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        slot, self._slot = self._slot, None
        give_back(self._flags, slot, state)

    def __del__(self) -> None:
        if self._descriptor is not None:
            if self._made != os.getpid():
                self._slot = None  # in a child, it is not ours to give back
            self._close(FREE)


def _map(descriptor: int, size: int) -> Loan:
    prot = mmap.PROT_READ | mmap.PROT_WRITE
    if sys.version_info >= (3, 13):
        return Loan(descriptor, size, flags=mmap.MAP_PRIVATE, prot=prot, trackfd=False)
    return Loan(descriptor, size, flags=mmap.MAP_PRIVATE, prot=prot)


def give_back(flags: memoryview, slot: int | None, state: int) -> None:
    """Tell the sender, whatever it is doing."""
    if slot is not None:
        with contextlib.suppress(ValueError):  # the board is closed, as its worker is gone
            flags[slot] = state


if hasattr(os, "register_at_fork"):
    # Before, and after: another thread may borrow between our count and the fork.
    os.register_at_fork(before=Loan._count_fork, after_in_parent=Loan._count_fork)
