"""How much memory this process has in use."""

import os
from functools import cache
from pathlib import Path

_STATM = Path("/proc/self/statm")


def can_be_measured() -> bool:
    """Whether this system tells."""
    return _STATM.exists()


@cache
def _open() -> tuple[int, int]:
    return os.open(_STATM, os.O_RDONLY | os.O_CLOEXEC), os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Return the bytes of this process that are in main memory now."""
    descriptor, page = _open()
    return int(os.pread(descriptor, 256, 0).split()[1]) * page
