"""What the workers are given to do.

Workers import this module: it loads nothing but what a task needs, and is not the main program,
which some pools would run again in each worker.
"""

import itertools
import signal
import time
from typing import Any

PAGE = 4096  # bytes


def nothing(item: Any = None) -> Any:
    """Do nothing: what is left is the pool."""
    return item


def spin(seconds: float) -> float:
    """Compute for so long; return how long it took in fact."""
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        pass
    return spent


def wait(seconds: float) -> float:
    """Wait for so long, as for a network; return how long it took in fact."""
    start = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - start


def hang() -> None:
    """Hang, as in a read that never returns."""
    time.sleep(1000)


def hang_on() -> None:
    """Hang, and take no notice of a polite request to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)


def hang_in_c() -> None:
    """Hang in C code that holds the GIL: no other thread and no signal handler runs."""
    sum(itertools.repeat(1, 10**12))


def touch(data: Any) -> int:
    """Read a byte of each page, so that data that were only promised are fetched."""
    return sum(memoryview(data).cast("B")[::PAGE])


def copy(data: Any) -> Any:
    """Return the same again, in other memory."""
    return bytes(memoryview(data)) if isinstance(data, bytes) else data.copy()
