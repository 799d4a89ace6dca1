"""Tasks for the tests: importable, so that workers of every kind find them."""

import os
import pickle
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import attrs

import poolkit


def square(x: int) -> int:
    return x * x


def add(a: int, b: int = 0) -> int:
    return a + b


def keywords(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def fail(x: object) -> NoReturn:
    raise KeyError(x)


def fail_on_multiples_of_three(x: int) -> int:
    if x % 3 == 0:
        raise ValueError(x)
    return x


def exit_with(code: int) -> NoReturn:
    raise SystemExit(code)


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def stop_iteration(x: object) -> NoReturn:
    raise StopIteration(x)


def returned_error(x: object) -> ValueError:
    return ValueError(x)


def total(items: Sequence[int]) -> int:
    return sum(items)


def unpicklable(_x: object = None) -> Any:
    return threading.Lock()


def worker_id(_x: object = None) -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def spin(seconds: float) -> float:
    """Hold a CPU, and the interpreter, for a while."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return seconds


class LoadsBadly(Exception):
    """An error that pickles and does not unpickle."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a}, {b}")


def fail_badly() -> NoReturn:
    raise LoadsBadly(1, 2)


class Unloadable:
    """A value that pickles and does not unpickle."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> NoReturn:
    raise pickle.UnpicklingError("not here")


def unloadable() -> Unloadable:
    return Unloadable()


class Meter:
    """Counts how many of its tasks run at once; for kinds that share memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def task(self) -> None:
        """Run for a moment."""
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        poolkit.current_task().wait(0.001)
        with self._lock:
            self._now -= 1


@attrs.frozen
class Gate:
    """Holds tasks of any kind, in any process, until the test opens it; no sleeping involved.

    A task that passes `hold` first says that it has started. Opening a FIFO for reading blocks
    until somebody has it open for writing, which is what `open` does.
    """

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Gate":
        folder.mkdir()
        os.mkfifo(folder / "started")
        os.mkfifo(folder / "gate")
        return cls(folder)

    def hold(self, value: object = None) -> object:
        """Say that a task has started; return when the gate is open."""
        with (self.folder / "started").open("wb", buffering=0) as started:
            started.write(b".")
        with (self.folder / "gate").open("rb"):
            return value


class GateKeeper:
    """The test's end of a gate."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self._started = os.open(gate.folder / "started", os.O_RDWR)
        self._opened: int | None = None

    def wait_started(self, count: int = 1) -> None:
        for _ in range(count):
            os.read(self._started, 1)

    def open(self) -> None:
        if self._opened is None:
            self._opened = os.open(self.gate.folder / "gate", os.O_RDWR)

    def close(self) -> None:
        """Open the gate for good: a task that comes later finds plain files."""
        self.open()
        for name in ("started", "gate"):
            (self.gate.folder / "plain").touch()
            (self.gate.folder / "plain").rename(self.gate.folder / name)
        os.close(self._started)
        if self._opened is not None:
            os.close(self._opened)


def attempts_so_far(folder: Path, name: object) -> int:
    """Count a call by a file each, in whatever process it runs; return how many came before."""
    for number in range(10_000):
        try:
            (folder / f"{name}-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return number
    raise AssertionError("too many attempts")


def fail_first(folder: Path, failures: int, name: object = "task") -> tuple[object, int]:
    """Fail so many times, then return the name and which call this is."""
    before = attempts_so_far(folder, name)
    if before < failures:
        raise ConnectionError(f"{name} is not ready")
    return name, before + 1


def attempt_after(folder: Path, failures: int) -> int:
    """Fail so many times, then return what poolkit says which attempt this is."""
    fail_first(folder, failures)
    return poolkit.current_task().attempt


def die_first(folder: Path, deaths: int) -> int:
    """Kill the worker so many times; then return which attempt this is."""
    if attempts_so_far(folder, "task") < deaths:
        os._exit(1)
    return poolkit.current_task().attempt


def hang_first(folder: Path, times: int) -> int:
    """Take too long so many times; then return which attempt this is."""
    if attempts_so_far(folder, "task") < times:
        poolkit.current_task().wait(60)
        time.sleep(0.01 if poolkit.current_task().cancelled else 60)
    return poolkit.current_task().attempt


def wait_for_the_end(folder: Path) -> str:
    """Say that it runs, and go on until told to stop."""
    (folder / "running").touch()
    poolkit.current_task().wait(60)
    poolkit.current_task().check()
    return "nobody told me to stop"


def fail_when_running(folder: Path) -> NoReturn:
    """Fail once `wait_for_the_end` runs."""
    while not (folder / "running").exists():
        poolkit.current_task().wait(0.001)
    raise KeyError("the guilty one")


def total_without_three(items: Sequence[int]) -> int:
    """Add up numbers, but refuse a three."""
    if 3 in items:
        raise ValueError("no threes, please")
    return sum(items)


def fail_so_often(folder: Path, failures: int, seconds: float, name: int) -> int:
    """Work for some time, fail so many times, and then return the name."""
    before = attempts_so_far(folder, name)
    spin(seconds)
    if before < failures:
        raise ConnectionError(name)
    return name


def fail_first_and_echo(folder: Path, argument: object) -> object:
    """Fail once, then return the argument."""
    fail_first(folder, 1)
    return argument
