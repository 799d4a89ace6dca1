"""Locks that take part in a simulation, in place of those that `threading` makes.

A task that waits for a lock of the operating system would keep its turn for ever, as who holds the
lock never gets one. So while a simulation is open, ``threading.Lock`` and ``RLock`` make locks for
which a participant waits by giving its turn away; for other threads they are plain locks, and stay
so when the simulation has ended. All else that `threading` and `queue` have to wait with is built
on these: conditions, events, semaphores, barriers, queues. Their time limits are in virtual time.

Locks that stand in modules and classes of the code under test, and that nobody holds, are replaced
meanwhile as well. Other locks that are older than the simulation are not.
"""

import _thread
import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

from ._code import is_under_test
from ._host import taking_part


class TurnLock:
    """A lock as `threading.Lock` makes them, for participants and for other threads."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, as a `threading.Lock` is taken."""
        if not blocking:
            return self._lock.acquire(blocking, timeout)
        if self._lock.acquire(False):
            return True
        participant = taking_part()
        if participant is None:
            return self._lock.acquire(blocking, timeout)
        simulation = participant.simulation
        end = math.inf if timeout < 0 else simulation.clock.monotonic() + timeout
        while not self._lock.acquire(False):
            if simulation.clock.monotonic() >= end:
                return False
            simulation.switch(lambda: not self._lock.locked(), end)
        return True

    def release(self) -> None:
        """Give it back; any thread may."""
        self._lock.release()

    def locked(self) -> bool:
        """Whether somebody has it."""
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()

    def __repr__(self) -> str:
        return f"<{'locked' if self.locked() else 'unlocked'} TurnLock at {id(self):#x}>"

    def _at_fork_reinit(self) -> None:
        self._lock = _thread.allocate_lock()


def _now() -> float:
    """Return the time of this thread, in place of ``time.monotonic``."""
    participant = taking_part()
    if participant is None:
        return time.monotonic()
    moment: float = participant.simulation.clock.monotonic()
    return moment


_python_rlock: Callable[[], Any] = vars(threading)["_PyRLock"]  # made of `_allocate_lock`

# Names in modules of the standard library, and what stands there during a simulation.
_REPLACED: Final[tuple[tuple[Any, str, Any], ...]] = (
    (threading, "Lock", TurnLock),
    (threading, "RLock", _python_rlock),
    (threading, "_allocate_lock", TurnLock),
    (threading, "_time", _now),
    (queue, "time", _now),
)


_LOCK, _RLOCK = type(_thread.allocate_lock()), type(_thread.RLock())


@lru_cache(maxsize=1)
def _owners(modules: int) -> list[Any]:
    """Return the modules and classes of the code under test, when so many modules are loaded."""
    owners: list[Any] = []
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and is_under_test(file):
            owners.append(module)
            owners += [
                each
                for each in list(vars(module).values())
                if isinstance(each, type) and each.__module__ == module.__name__
            ]
    return owners


def _older_locks() -> Iterator[tuple[Any, str, Any]]:
    """Return where the code under test has locks that are free, and what is to stand there."""
    replacements: dict[int, Any] = {}  # the same lock may stand in several places
    for owner in _owners(len(sys.modules)):
        names: dict[str, Any] = owner.__dict__.copy()
        for name, value in names.items():
            if type(value) in (_LOCK, _RLOCK) and value.acquire(False):
                value.release()
                make = TurnLock if type(value) is _LOCK else _python_rlock
                yield owner, name, replacements.setdefault(id(value), make())


class Cooperation:
    """Replaces locks, and what makes them, while any simulation is open."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()  # guards the fields below, and the replacing
        self._open = 0
        self._originals: list[tuple[Any, str, Any]] = []

    def begin(self) -> None:
        """Count one more simulation."""
        with self._lock:
            self._open += 1
            if self._open == 1:
                for owner, name, replacement in (*_REPLACED, *_older_locks()):
                    self._originals.append((owner, name, vars(owner)[name]))
                    setattr(owner, name, replacement)

    def end(self) -> None:
        """Count one less."""
        with self._lock:
            self._open -= 1
            if not self._open:
                while self._originals:
                    setattr(*self._originals.pop())


COOPERATION: Final = Cooperation()
