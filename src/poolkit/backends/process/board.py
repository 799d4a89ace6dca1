"""`Board`: a page of memory that the parent shares with one worker.

The worker says which item it has begun, the parent which ones it must not begin. Who writes what,
in which order, and why no lock is needed is in ``docs/explanation/process-pool.md``, "Stopping
one item, and no other".
"""

import mmap
import os
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final, Literal

FLAGS: Final = 16384
"""How many items may be outstanding at a worker: each has a flag of its own on the board."""

# Words of eight bytes. Those of the two writers stand in different cache lines.
SERIAL, START, ENDED = 0, 1, 2
ATTENTION = 8
_FIRST_FLAG: Final = 128  # in bytes
SLOTS: Final = 64
"""How many segments each side may have lent to the other; see `mapping`."""
_FIRST_SLOT: Final = _FIRST_FLAG + FLAGS
SIZE: Final = _FIRST_SLOT + 2 * SLOTS

LOOK: Final = 1
CONDEMNED: Final = 2


class Board:
    """Both sides' view of the page. The fields are for the side that writes them."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._bytes = memoryview(memory)
        self.words = self._bytes[:_FIRST_FLAG].cast("Q")
        self.times = self._bytes[:_FIRST_FLAG].cast("d")
        self.flags = self._bytes[_FIRST_FLAG:_FIRST_SLOT]
        self.arguments = self._bytes[_FIRST_SLOT : _FIRST_SLOT + SLOTS]
        """What the parent has lent; the worker writes that it has given it back."""
        self.results = self._bytes[_FIRST_SLOT + SLOTS : SIZE]
        """What the worker has lent; the parent writes."""

    @classmethod
    def make(cls) -> "tuple[Board, int]":
        """Make a page; return it, and a descriptor for the worker to open, to be closed then."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("poolkit-board", os.MFD_CLOEXEC)
        else:
            import tempfile

            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, SIZE)
        return cls(mmap.mmap(descriptor, SIZE)), descriptor

    @classmethod
    def open(cls, descriptor: int) -> "Board":
        """Open, in a worker, what `make` has made."""
        board = cls(mmap.mmap(descriptor, SIZE))
        os.close(descriptor)
        return board

    def close(self) -> None:
        """Give the memory back; the other side keeps its own view."""
        for view in (
            self.words,
            self.times,
            self.flags,
            self.arguments,
            self.results,
            self._bytes,
        ):
            view.release()
        self._memory.close()

    # -- the parent's side ------------------------------------------------------------------

    @property
    def serial(self) -> int:
        """The item that the worker has begun last; 0 for none."""
        return self.words[SERIAL]

    @property
    def start(self) -> float:
        """When it began it, or a later item, on the machine's monotonic clock."""
        return self.times[START]

    @property
    def ended(self) -> int:
        """The item whose call has ended last; its result may still be on its way."""
        return self.words[ENDED]

    def flag(self, serial: int) -> None:
        """Ask the worker to pass over an item; true only after `call_attention` and `barrier`."""
        self.flags[serial % FLAGS] = 1

    def unflag(self, serial: int) -> None:
        """Free an item's flag for a later one."""
        self.flags[serial % FLAGS] = 0

    def call_attention(self, word: Literal[0, 1, 2]) -> None:
        """Have the worker look at its flags, or stop for good (`CONDEMNED`), or none of it (0)."""
        self.words[ATTENTION] = word

    # -- the worker's side ------------------------------------------------------------------

    def flagged(self, serial: int) -> bool:
        """Whether the parent wants the item passed over."""
        return self.flags[serial % FLAGS] == 1

    @property
    def condemned(self) -> bool:
        """Whether the parent is about to kill this worker."""
        return self.words[ATTENTION] == CONDEMNED


# Commands of Linux's membarrier(2).
_GLOBAL, _GLOBAL_EXPEDITED, _REGISTER_GLOBAL_EXPEDITED = 1, 2, 4
_SYSTEM_CALLS: Final = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}


def _membarrier() -> Callable[[int], int] | None:
    number = _SYSTEM_CALLS.get(os.uname().machine) if sys.platform == "linux" else None
    if number is None or sys.maxsize < 2**32:
        return None
    try:  # what ctypes is made of: ctypes itself would be a good part of what a worker imports
        import _ctypes

        program: Any = None  # this one, and all that it is linked to
        address = _ctypes.dlsym(_ctypes.dlopen(program, os.RTLD_NOW), "syscall")
        call: Callable[..., int] = _ctypes.call_function
    except (ImportError, OSError, AttributeError):
        return None
    return lambda command: call(address, (number, command, 0, 0))


def register_for_barriers() -> None:
    """In a worker: let the parent's barriers reach it quickly."""
    membarrier = _membarrier()
    if membarrier is not None:
        membarrier(_REGISTER_GLOBAL_EXPEDITED)


@cache
def _barrier() -> Callable[[], object]:
    membarrier = _membarrier()
    if membarrier is not None:
        for command in (_GLOBAL_EXPEDITED, _GLOBAL):
            if membarrier(command) == 0:
                return partial(membarrier, command)
    # No proof, but a million times as long as a store buffer needs.
    return partial(time.sleep, 0.001)


def barrier() -> None:
    """Have every CPU on which a worker runs execute a full memory barrier."""
    _barrier()()
