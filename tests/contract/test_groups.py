"""What a `TaskGroup` promises on poolkit's own kinds; `test_kinds` has the rest."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import poolkit
from poolkit import PoolShutdownError, TaskGroup, make_executor

from .. import tasks
from ..tasks import GateKeeper


def kinds_of(caught: "pytest.ExceptionInfo[BaseExceptionGroup[Any]]") -> list[type]:
    return sorted((type(error) for error in caught.value.exceptions), key=lambda t: t.__name__)


def test_waiting_for_a_cancelled_task_adds_no_failure(gate: GateKeeper) -> None:
    with (
        pytest.raises(ExceptionGroup) as caught,
        make_executor("thread", 1) as pool,
        TaskGroup(pool) as group,
    ):
        group.submit(gate.gate.hold)
        gate.wait_started()
        group.submit(tasks.fail, "x")
        late = [group.submit(tasks.square, number) for number in range(5)]
        gate.open()
        for future in late:
            future.result()
    assert kinds_of(caught) == [KeyError]


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_failure_ends_what_runs(kind: str, tmp_path: Path) -> None:
    futures: list[Any] = []
    with make_executor(kind, 2) as pool:
        with pytest.raises(ExceptionGroup) as caught, TaskGroup(pool) as group:
            futures.append(group.submit(tasks.wait_for_the_end, tmp_path))
            group.submit(tasks.fail_when_running, tmp_path)
        assert kinds_of(caught) == [KeyError]
        assert isinstance(futures[0].exception(), poolkit.TaskAbortedError)
        assert pool.submit(tasks.square, 3).result() == 9


def test_a_failure_ends_what_begins_later() -> None:
    """A task that has been claimed, but does not run yet, finds that nobody wants it."""
    seen: list[bool] = []

    def look() -> None:
        view._link.scopes[-1].unwanted = True
        seen.append(poolkit.current_task().cancelled)

    with make_executor("thread", 2) as pool:
        view = pool._view("a view")
        view.submit(look).result()
    assert seen == [True]


def test_tasks_add_tasks_until_all_are_done(gate: GateKeeper) -> None:
    added: list[Any] = []

    def spread(depth: int) -> int:
        if depth:
            added.extend(group.submit(spread, depth - 1) for _ in range(2))
        return depth

    with make_executor("thread", 2) as pool:
        with TaskGroup(pool) as group:
            group.submit(spread, 4)
        assert len(added) == 2 + 4 + 8 + 16
        assert all(future.done() for future in added)
        with pytest.raises(PoolShutdownError, match="TaskGroup"):
            group.submit(tasks.square, 1)


def test_a_group_in_a_task_lends_the_slot() -> None:
    def total(depth: int) -> int:
        if not depth:
            return 1
        with TaskGroup(pool) as group:
            parts = [group.submit(total, depth - 1) for _ in range(3)]
        return sum(part.result() for part in parts)

    with make_executor("thread", 1) as pool:
        assert pool.submit(total, 4).result() == 81


def test_a_group_ends_with_the_task_that_it_is_in(tmp_path: Path) -> None:
    futures: list[Any] = []

    def nest() -> None:
        with TaskGroup(pool) as group:
            futures.append(group.submit(tasks.wait_for_the_end, tmp_path))

    with make_executor("thread", 4) as pool:
        with pytest.raises(ExceptionGroup) as caught, TaskGroup(pool) as group:
            futures.append(group.submit(nest))
            group.submit(tasks.fail_when_running, tmp_path)
        assert kinds_of(caught) == [KeyError]
        assert len(futures) == 2
        for future in futures:
            assert isinstance(future.exception(), poolkit.TaskAbortedError)


def test_aborted_and_cancelled_tasks_are_no_failures(gate: GateKeeper) -> None:
    with make_executor("thread", 1) as pool, TaskGroup(pool) as group:
        held = group.submit(gate.gate.hold)
        gate.wait_started()
        waiting = group.submit(tasks.square, 2)
        assert waiting.cancel()
        held.abort()
        assert group.submit(tasks.square, 3).result() == 9
        gate.open()
    with pytest.raises(CancelledError):
        waiting.result()


def test_what_is_no_exception_in_a_task() -> None:
    with pytest.raises(BaseExceptionGroup) as caught, TaskGroup("process") as group:
        group.submit(tasks.exit_with, 3)
    assert kinds_of(caught) == [SystemExit]


def test_a_group_of_its_own_pool() -> None:
    with TaskGroup("thread") as group:
        future = group.submit(tasks.square, 5)
    assert future.result() == 25
    assert group._owned is not None
    assert group._owned._closed
    with TaskGroup(concurrent.futures.ThreadPoolExecutor(1)) as group:
        assert group.submit(tasks.square, 5).result() == 25


CTRL_C = """\
import os, signal, sys, threading, time
from pathlib import Path
import poolkit
from tests import tasks

def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kind, folder = sys.argv[1], Path(sys.argv[2])
    options = {"kill_grace": 0.2} if kind == "process" else {}
    with poolkit.make_executor(kind, 2, **options) as pool, poolkit.TaskGroup(pool) as group:
        group.submit(tasks.wait_for_the_end, folder)
        print("ready", flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_ctrl_c_while_leaving(kind: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(CTRL_C)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", kind, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    while not (tmp_path / "running").exists():
        threading.Event().wait(0.001)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, errors
    assert "KeyboardInterrupt" in errors.splitlines()
