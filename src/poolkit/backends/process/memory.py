"""How much memory this process has in use."""

import os
from functools import cache

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
