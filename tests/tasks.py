"""Tasks for the tests: importable, so that workers of every kind find them."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import attrs

import poolkit
from poolkit.testing._contract_tasks import LoadsBadlyError as LoadsBadlyError
from poolkit.testing._contract_tasks import Unloadable as Unloadable
from poolkit.testing._contract_tasks import add as add
from poolkit.testing._contract_tasks import count_call as count_call
from poolkit.testing._contract_tasks import exit_with as exit_with
from poolkit.testing._contract_tasks import fail as fail
from poolkit.testing._contract_tasks import fail_badly as fail_badly
from poolkit.testing._contract_tasks import fail_first as fail_first
from poolkit.testing._contract_tasks import (
    fail_on_multiples_of_three as fail_on_multiples_of_three,
)
from poolkit.testing._contract_tasks import interrupt as interrupt
from poolkit.testing._contract_tasks import keywords as keywords
from poolkit.testing._contract_tasks import returned_error as returned_error
from poolkit.testing._contract_tasks import spin as spin
from poolkit.testing._contract_tasks import square as square
from poolkit.testing._contract_tasks import stop_iteration as stop_iteration
from poolkit.testing._contract_tasks import total as total
from poolkit.testing._contract_tasks import unloadable as unloadable
from poolkit.testing._contract_tasks import unpicklable as unpicklable


def worker_id(_x: object = None) -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def meet(barrier: Any) -> None:
    """Wait for others at a barrier."""
    barrier.wait()


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


def attempt_after(folder: Path, failures: int) -> int:
    """Fail so many times, then return what poolkit says which attempt this is."""
    fail_first(folder, failures)
    return poolkit.current_task().attempt


def die_first(folder: Path, deaths: int) -> int:
    """Kill the worker so many times; then return which attempt this is."""
    if count_call(folder, "task") < deaths:
        os._exit(1)
    return poolkit.current_task().attempt


def hang_first(folder: Path, times: int) -> int:
    """Take too long so many times; then return which attempt this is."""
    if count_call(folder, "task") < times:
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
    before = count_call(folder, name)
    spin(seconds)
    if before < failures:
        raise ConnectionError(name)
    return name


def fail_first_and_echo(folder: Path, argument: object) -> object:
    """Fail once, then return the argument."""
    fail_first(folder, 1)
    return argument
