"""The tasks of `ExecutorContract`: functions that workers of every kind can import.

Nothing here imports pytest: a worker process imports this module before its first task.
"""

import contextlib
import pickle
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import attrs


def square(x: int) -> int:
    """Return the square of a number."""
    return x * x


def add(a: int, b: int = 0) -> int:
    """Return the sum of two numbers."""
    return a + b


def keywords(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what it was called with."""
    return args, kwargs


def identity(x: object = None) -> object:
    """Return its argument."""
    return x


def thread_id(_x: object = None) -> int:
    """Return which thread calls it."""
    return threading.get_ident()


def fail(x: object) -> NoReturn:
    """Raise an error."""
    raise KeyError(x)


def fail_on_multiples_of_three(x: int) -> int:
    """Raise an error for some numbers, and return the others."""
    if x % 3 == 0:
        raise ValueError(x)
    return x


def exit_with(code: int) -> NoReturn:
    """Raise `SystemExit`."""
    raise SystemExit(code)


def interrupt() -> NoReturn:
    """Raise `KeyboardInterrupt`."""
    raise KeyboardInterrupt


def stop_iteration(x: object) -> NoReturn:
    """Raise `StopIteration`, which ends an iterator if nobody takes care."""
    raise StopIteration(x)


def returned_error(x: object) -> ValueError:
    """Return an error, which makes it a value."""
    return ValueError(x)


def total(items: Sequence[int]) -> int:
    """Add up numbers."""
    return sum(items)


def total_without_three(items: Sequence[int]) -> int:
    """Add up numbers, but refuse a three."""
    if 3 in items:
        raise ValueError("no threes, please")
    return sum(items)


def spin(seconds: float) -> float:
    """Use up at least so much time."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return seconds


def unpicklable(_x: object = None) -> Any:
    """Return what can't be pickled."""
    return threading.Lock()


class Unloadable:
    """A value that can be pickled, and not be unpickled."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> NoReturn:
    raise pickle.UnpicklingError("not here")


def unloadable() -> Unloadable:
    """Return what can be pickled, and not be unpickled."""
    return Unloadable()


class LoadsBadlyError(Exception):
    """An error that can be pickled, and be made anew only by who knows how."""

    def __new__(cls, a: int, b: int) -> "LoadsBadlyError":
        return super().__new__(cls, a, b)

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a}, {b}")


class DemandingError(Exception):
    """An error whose ``__init__`` wants what its ``args`` don't hold, and that holds a lock."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a}, {b}")
        self.sum = a + b
        self.lock = threading.Lock()


def fail_demandingly() -> NoReturn:
    """Raise an error that pickle can't take, but that can travel in parts."""
    raise DemandingError(1, 2)


def fail_badly() -> NoReturn:
    """Raise an error that can't travel."""
    raise LoadsBadlyError(1, 2)


def count_call(folder: Path, name: object) -> int:
    """Count a call by a file each, in whatever process it runs; return how many came before."""
    for number in range(10_000):
        try:
            (folder / f"{name}-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return number
    raise AssertionError("too many calls")


def fail_first(folder: Path, failures: int, name: object = "task") -> tuple[object, int]:
    """Fail so many times, then return the name and which call this is."""
    before = count_call(folder, name)
    if before < failures:
        raise ConnectionError(f"{name} is not ready")
    return name, before + 1


@attrs.frozen
class Gate:
    """Holds tasks, in any thread or process of this machine, until the test lets them go.

    A task that comes to the gate connects to the test, which so learns that it has started, and
    goes on when the test hangs up. A gate that is gone is open.
    """

    address: tuple[str, int]

    def hold(self, value: object = None) -> object:
        """Say that the task has started; return ``value`` when the gate is open."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(self.address) as connection,
        ):
            # A connection made just while the other end closes its socket may never hear of that;
            # it does when it sends something.
            connection.sendall(b".")
            connection.recv(1)
        return value

    def hold_first(self, number: int) -> int:
        """Hold number 0 only; return the number."""
        if number == 0:
            self.hold()
        return number
