"""Locks that take part in a simulation, in place of those that `threading` makes.

A task that waits for a lock of the operating system would keep its turn for ever, as who holds the
lock never gets one. So while a simulation is open, ``threading.Lock`` and ``RLock`` make locks for
which a participant waits by giving its turn away; for other threads they are plain locks, and stay
so when the simulation has ended. All else that `threading` and `queue` have to wait with is built
on these: conditions, events, semaphores, barriers, queues. Their time limits are in virtual time.

Locks that stand in modules and classes of the code under test, and that nobody holds, are wrapped
meanwhile. Other locks that are older than the simulation are not.
"""

import _thread
import concurrent.futures
import contextlib
import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import ModuleType, SimpleNamespace
from typing import Any, Final

from .._task import threads
from ._code import is_under_test
from ._host import here, taking_part


def _take_in_turn(simulation: Any, lock: Any, is_free: Callable[[], bool], timeout: float) -> bool:
    """Take a lock of the system, and give the turn away while somebody else has it."""
    end = math.inf if timeout < 0 else simulation.clock.monotonic() + timeout
    while not lock.acquire(False):
        if simulation.clock.monotonic() >= end:
            return False
        simulation.switch(is_free, end)
    return True


class TurnLock:
    """A lock as `threading.Lock` makes them, for participants and for other threads.

    Args:
        lock: The one that it stands for, and is; by default a new one.
    """

    def __init__(self, lock: Any = None) -> None:
        self._lock: Any = lock or _thread.allocate_lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, as a `threading.Lock` is taken."""
        if blocking and self._lock.acquire(False):
            return True
        participant = taking_part() if blocking else None
        if participant is None:
            taken: bool = self._lock.acquire(blocking, timeout)
            return taken
        return _take_in_turn(
            participant.simulation, self._lock, lambda: not self._lock.locked(), timeout
        )

    def release(self) -> None:
        """Give it back; any thread may."""
        self._lock.release()

    def locked(self) -> bool:
        """Whether somebody has it."""
        held: bool = self._lock.locked()
        return held

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
    moment: float = participant.simulation.clock.glance()
    return moment


class TurnRLock:
    """An older `threading.RLock`, for which participants wait by giving their turn away."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, as a `threading.RLock` is taken."""
        participant = taking_part() if blocking else None
        if participant is None:
            taken: bool = self._lock.acquire(blocking, timeout)
        else:
            taken = _take_in_turn(
                participant.simulation, self._lock, lambda: not self._depth, timeout
            )
        self._depth += taken
        return taken

    def release(self) -> None:
        """Give it back once."""
        self._lock.release()
        self._depth -= 1

    __enter__ = acquire

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        owned: bool = self._lock._is_owned()
        return owned


_python_rlock: Callable[[], Any] = vars(threading)["_PyRLock"]  # made of `_allocate_lock`
_start, _join = threading.Thread.start, threading.Thread.join


def _start_at_once(thread: threading.Thread) -> None:
    """Do what `threading.Thread.start` does, which waits for the thread to exist."""
    participant, here.participant = here.participant, None
    try:
        _start(thread)
    finally:
        here.participant = participant


def _join_in_turn(thread: threading.Thread, timeout: float | None = None) -> None:
    """Do what `threading.Thread.join` does; a participant gives its turn away meanwhile."""
    participant = taking_part()
    if participant is not None and thread is not threading.current_thread():
        simulation = participant.simulation
        end = math.inf if timeout is None else simulation.clock.monotonic() + timeout
        was, threads.patient = threads.patient, True
        try:
            simulation.switch(lambda: not thread.is_alive(), end)
        finally:
            threads.patient = was
        timeout = None if timeout is None else 0
    _join(thread, timeout)


# Names in modules of the standard library, and what stands there during a simulation.
_REPLACED: Final[tuple[tuple[Any, str, Any], ...]] = (
    (threading, "Lock", TurnLock),
    (threading, "RLock", _python_rlock),
    (threading, "_allocate_lock", TurnLock),
    (threading, "_time", _now),
    (threading.Thread, "start", _start_at_once),
    (threading.Thread, "join", _join_in_turn),
    (queue, "time", _now),
    (queue, "SimpleQueue", vars(queue)["_PySimpleQueue"]),
    (concurrent.futures._base, "time", SimpleNamespace(monotonic=_now)),
)


_LOCK, _RLOCK = type(_thread.allocate_lock()), type(_thread.RLock())
# Who makes locks, by another name: ``from threading import Lock``.
_MAKERS: Final = {id(threading.Lock): TurnLock, id(threading.RLock): _python_rlock}


@lru_cache(maxsize=1)
def _modules(loaded: int) -> list[ModuleType]:
    """Return the modules of the code under test, when so many modules are loaded."""
    modules = list(sys.modules.values())
    files = [(module, getattr(module, "__file__", None)) for module in modules]
    return [m for m, file in files if isinstance(file, str) and is_under_test(file)]


def _older_locks() -> Iterator[tuple[Any, str, Any]]:
    """Return where the code under test has free locks, or who makes them, and what to put there."""
    replacements: dict[int, Any] = {}  # the same lock may stand in several places
    for module in _modules(len(sys.modules)):
        contents: dict[str, Any] = module.__dict__.copy()
        classes = [
            each
            for each in contents.values()
            if isinstance(each, type) and each.__module__ == module.__name__
        ]
        for owner in (module, *classes):
            for name, value in owner.__dict__.copy().items():
                maker = _MAKERS.get(id(value))
                if maker is not None:
                    yield owner, name, maker
                elif type(value) in (_LOCK, _RLOCK) and _is_free(value):
                    replace = TurnLock if type(value) is _LOCK else TurnRLock
                    yield owner, name, replacements.setdefault(id(value), replace(value))


def _is_free(lock: Any) -> bool:
    if getattr(lock, "_is_owned", bool)():
        return False
    free: bool = lock.acquire(False)
    if free:
        lock.release()
    return free


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
                    original = vars(owner)[name]
                    with contextlib.suppress(Exception):  # a class that refuses
                        setattr(owner, name, replacement)
                        self._originals.append((owner, name, original))

    def end(self) -> None:
        """Count one less."""
        with self._lock:
            self._open -= 1
            if not self._open:
                while self._originals:
                    with contextlib.suppress(Exception):
                        setattr(*self._originals.pop())


COOPERATION: Final = Cooperation()
