"""Time, as a dependency: what waits or measures takes a `Clock`, so that tests can own it."""

import threading
import time
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
