"""Virtual time: it passes only when somebody says so."""

import threading

# A start of zero would be taken for that of a task which has never started.
_START = 1000.0


class VirtualClock:
    """A `poolkit._clock.Clock` that stands still until it is advanced."""

    def __init__(self) -> None:
        self._now = _START
        self._glances = 0

    @property
    def elapsed(self) -> float:
        """Seconds that have passed since it was made."""
        return self._now - _START

    def monotonic(self) -> float:
        """Return the time, in seconds."""
        return self._now

    def glance(self) -> float:
        """Return the time, for code that waits in a loop until its time is *past*.

        A bit later at each glance, as it is on a real clock.
        """
        self._glances += 1
        return self._now + self._glances * 1e-9

    def advance_to(self, moment: float) -> None:
        """Let time pass until `moment`, unless it has."""
        self._now = max(self._now, moment)

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        """Not for threads that wait: nobody would wake them."""
        raise NotImplementedError
