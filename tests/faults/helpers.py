"""The tests' ends of mailboxes and scripts, and words for what is asked of futures."""

import itertools
import os
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

import pytest

from poolkit import PoolExecutor, WorkerCrashedError

ROOT: Final = Path(__file__).parents[2]
LONG: Final = 40.0
"""Seconds; what takes so long hangs."""


class MakePool(Protocol):
    def __call__(self, max_workers: int = 2, **options: Any) -> PoolExecutor: ...


class Innocents(Protocol):
    def __call__(
        self, pool: PoolExecutor, *, hold: bool = True
    ) -> AbstractContextManager[None]: ...


def crash_of(future: Future[Any]) -> WorkerCrashedError:
    """Wait for a future that must fail because its worker died; return the error."""
    error = future.exception(timeout=LONG)
    assert isinstance(error, WorkerCrashedError), repr(error)
    return error


def kill_worker_at_each(
    steps: Iterable[int],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[], object],
) -> int:
    """Run something for each step, at which a worker of it is killed, until there are no more.

    Returns:
        How many there were.
    """
    step = 0
    for step in steps:
        mark = folder / f"killed at {step}"
        monkeypatch.setenv("POOLKIT_KILL_WORKER_AT", f"{step}:{mark}")
        run()
        if not mark.exists():
            break
    return step


def kill_parent_at_each(folder: Path, run: Callable[[], object]) -> int:
    """Run something in a child, for each step, at which the child is killed; as the above."""
    for step in itertools.count(1):
        mark = folder / f"killed at {step}"
        parent = os.fork()
        if parent == 0:
            try:
                os.environ["POOLKIT_KILL_PARENT_AT"] = f"{step}:{mark}"
                run()
            except BaseException:
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(parent, 0)
        if not mark.exists():
            assert status == 0
            return step
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    raise AssertionError("it has steps without end")


def counted(runs: Path) -> Counter[int]:
    """Return how often each task has noted that it runs."""
    return Counter(map(int, runs.read_text().split()))


class Mailbox:
    """Gets numbers from tasks in any process: the reading end of `tests.faults.tasks.tell`."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDWR)
        self._rest = b""

    def read(self, limit: float = LONG) -> list[int]:
        """Wait for the next line; fail after `limit` seconds."""
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._descriptor], [], [], limit)
            assert ready, f"nobody has told anything in {limit:g} s"
            self._rest += os.read(self._descriptor, select.PIPE_BUF)
        line, _, self._rest = self._rest.partition(b"\n")
        return [int(number) for number in line.split()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)


class Script:
    """A program that runs in a session of its own, and so in a process group of its own."""

    def __init__(self, folder: Path, source: str, arguments: tuple[str, ...], how: str) -> None:
        """Start it as a "file", with "-c", or as the standard input ("-") of Python."""
        self.folder = folder
        self._output, self._errors = folder / "output", folder / "errors"
        command = ["-c", source] if how == "-c" else [how]
        if how == "file":
            command = [str(folder / "script.py")]
            (folder / "script.py").write_text(source)
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-X", "utf8", *command, *arguments],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        if how == "-":
            self.write(source)

    def write(self, text: str) -> None:
        """Give it all of its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.close()

    def end(self, limit: float = LONG) -> int:
        """Wait for its end; return its exit code, negative for a signal."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"runs after {limit:g} s:\n{self.output}\n{self.errors}") from None

    def check(self) -> None:
        """Wait for its end; fail if it went wrong."""
        code = self.end()
        assert code == 0, f"exited with {code}:\n{self.output}\n{self.errors}"

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    @property
    def errors(self) -> str:
        """What it has said on stderr, as have its workers."""
        return self._errors.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.end()


class StartScript(Protocol):
    def __call__(self, source: str, *arguments: str, how: str = "file") -> Script: ...
