"""How much memory this process has in use, and whether it keeps what was freed."""

import os
from collections.abc import Callable
from functools import cache
from typing import Any, Final

_STATM = "/proc/self/statm"


def can_be_measured() -> bool:
    """Whether this system tells."""
    return os.path.exists(_STATM)  # noqa: PTH110 - pathlib takes a worker long to import


@cache
def _open(_pid: int) -> tuple[int, int]:
    return os.open(_STATM, os.O_RDONLY | os.O_CLOEXEC), os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Return the bytes of this process that are in main memory now."""
    descriptor, page = _open(os.getpid())  # a fork's file would tell of its parent
    return int(os.pread(descriptor, 256, 0).split()[1]) * page


# As large as glibc lets a block be that it does not map by itself.
_LARGEST: Final = 31 * 2**20


@cache
def _trim() -> Callable[[int], int] | None:
    """Return glibc's function that gives back what was freed; None elsewhere."""
    try:
        import ctypes

        trim: Any = ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, AttributeError, TypeError):
        return None
    return lambda rest: int(trim(rest))


def keep_freed() -> None:
    """Have the allocator keep up to some 60 MiB of what is freed, until `give_back_freed`.

    By default, glibc gives memory back to the system at 16 MiB or less. A task that handles two
    blocks of 8 MiB then gets fresh pages for each of them, at ten times the cost of copying. To
    free a large block raises that limit: that is how glibc learns what a program needs.
    """
    if _trim() is not None:
        bytes(_LARGEST)  # never touched: it costs microseconds


def give_back_freed() -> None:
    """Give freed memory back to the system."""
    trim = _trim()
    if trim is not None:
        trim(0)


def hoards(most: int) -> bool:
    """Whether this process has more bytes in main memory than that, even if it gives some back."""
    if resident_bytes() <= most:
        return False
    give_back_freed()
    return resident_bytes() > most
