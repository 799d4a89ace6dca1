"""Time, as a dependency: what waits or measures takes a `Clock`, so that tests can own it."""

import math
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol


class Clock(Protocol):
    """Monotonic time, and waiting in that time."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never goes back."""
        ...

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        """Wait on `condition`, which the caller holds, for at most `timeout` seconds."""
        ...


class SystemClock:
    """The machine's own monotonic clock."""

    def monotonic(self) -> float:
        """Return `time.monotonic`, which on Linux all processes share."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        """Wait on `condition`; a limit that the platform can't express counts as none."""
        if timeout is not None and timeout > threading.TIMEOUT_MAX:
            timeout = None
        condition.wait(timeout)


SYSTEM_CLOCK: Final = SystemClock()


# How long the main thread may sleep without looking whether there was a signal, in seconds.
_NAP: Final = 0.5


# Whether somebody else than the machine keeps the time of this thread; see `poolkit.testing`.
hosted: Callable[[], bool] = bool


def nap(left: float) -> float | None:
    """Return how long to wait at once, of so many seconds that are left.

    In the main thread, no long: a signal that comes just before it begins to wait for a lock
    does not end that wait, as CPython looks for signals before, and then only when it wakes up.
    So Ctrl-C would be lost now and then.

    Args:
        left: Seconds; infinite for no limit.

    Returns:
        Seconds; None for no limit.
    """
    if threading.current_thread() is threading.main_thread() and not hosted():
        return min(left, _NAP)
    return None if left == math.inf else min(left, threading.TIMEOUT_MAX)
