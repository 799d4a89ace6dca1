"""Who keeps the time in this thread: a simulation, a `ManualExecutor`, or just the machine."""

import math
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from .. import _clock
from .._checks import check_seconds
from .._public import public_in_testing as public


class Host(Protocol):
    """Somebody in whose time a thread runs."""

    def pause(self, seconds: float, until: Callable[[], bool]) -> None:
        """Let so many seconds pass for this thread, or fewer if something has come true."""
        ...

    def checkpoint(self) -> None:
        """Give others the opportunity to run."""
        ...


class _Here(threading.local):
    """The hosts of the current thread.

    Without an ``__init__``: the collector may strike in there, and what it finalizes look at this.
    """

    participant: Any = None
    """As which this thread takes part in a simulation, if it does."""

    @property
    def _hosts(self) -> "list[weakref.ref[Host]]":
        # Innermost last. Weakly, as an executor may be dropped without being shut down.
        hosts: list[weakref.ref[Host]] = self.__dict__.setdefault("_hosts_", [])
        return hosts

    def enter(self, host: Host) -> None:
        """Let this thread live in a host's time."""
        self._hosts.append(weakref.ref(host))

    def leave(self, host: Host) -> None:
        """Undo the latest `enter` of a host, if there is one; they need not be nested."""
        for index in reversed(range(len(self._hosts))):
            if self._hosts[index]() is host:
                del self._hosts[index]
                return

    def __contains__(self, host: Host) -> bool:
        return any(each() is host for each in self._hosts)

    @property
    def host(self) -> Host | None:
        """In whose time this thread lives; None if in the machine's."""
        while self._hosts:
            host = self._hosts[-1]()
            if host is not None:
                return host
            self._hosts.pop()
        return None


here = _Here()


def taking_part() -> Any:
    """Return as which this thread takes part in an open simulation; None if it does not.

    A simulation whose executors have all been shut down, or forgotten, ends when the test's thread
    comes here.
    """
    participant = here.participant
    if participant is None:
        return None
    simulation = participant.simulation
    if participant is simulation.main and simulation.over:
        simulation.end()
    return participant if simulation.open else None


_clock.hosted = lambda: here.participant is not None


def never() -> bool:
    """Stand for something that does not come true."""
    return False


def check_pause(seconds: float) -> float:
    """Return how long a pause is to be, in seconds; refuse what is none."""
    number: object = seconds
    if isinstance(number, (int, float)) and not 0 <= number < math.inf:
        raise ValueError(f"seconds must be at least 0, and finite, not {seconds}")
    checked = check_seconds("seconds", seconds, allow_zero=True)
    if checked is None:
        raise TypeError(f"seconds must be a number of seconds, not {seconds!r:.80}")
    return checked


@public
def sleep(seconds: float) -> None:
    """Let time pass: virtual time in a simulated or manual executor, real time elsewhere.

    In a simulated executor other tasks run meanwhile. Give it to the code under test in place of
    ``time.sleep``.

    Args:
        seconds: How long; at least 0.
    """
    checked = check_pause(seconds)
    host = here.host
    if host is not None:
        host.pause(checked, never)
    else:
        time.sleep(checked)


@public
def checkpoint() -> None:
    """Mark a place where a simulated executor may go on with another task; else, do nothing."""
    host = here.host
    if host is not None:
        host.checkpoint()
