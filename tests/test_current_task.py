"""What a task can know of itself, abort, and the other ends of running tasks."""

import gc
import logging
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

import poolkit
from poolkit import (
    PoolExecutor,
    TaskAbortedError,
    TaskCancelled,
    TaskTimeoutError,
    UnsupportedError,
    current_task,
    make_executor,
)

from .tasks import GateKeeper, fail, square


def test_outside_of_tasks_there_is_none() -> None:
    with pytest.raises(RuntimeError, match="outside of a task"):
        current_task()


@pytest.mark.parametrize("kind", ["thread", "inline"])
def test_deadline_and_attempt(kind: str) -> None:
    def look() -> tuple[float | None, int, bool]:
        task = current_task()
        assert current_task() is task
        task.check()
        return task.deadline, task.attempt, task.cancelled

    with make_executor(kind) as pool:
        assert pool.submit(look).result() == (None, 1, False)
        deadline = pool.with_options(task_timeout=100).submit(look).result()[0]
        assert deadline is not None


def test_a_late_task_is_told_and_can_stop() -> None:
    ended: list[str] = []
    told = threading.Event()

    def obedient() -> None:
        try:
            while not current_task().wait(60):
                pass
            current_task().check()
        except TaskCancelled:
            ended.append("cancelled")
            told.set()
            raise

    with make_executor("thread", task_timeout=0.05) as pool:
        assert isinstance(pool.submit(obedient).exception(), TaskTimeoutError)
        assert told.wait(30)
    assert ended == ["cancelled"]


def test_task_cancelled_passes_except_exception() -> None:
    assert not issubclass(TaskCancelled, Exception)


def test_abort_of_a_running_task(gate: GateKeeper, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "poolkit")
    with make_executor("thread", 1) as pool:
        running = pool.submit(gate.gate.hold)
        gate.wait_started()
        waiting = pool.submit(square, 3)
        assert running.abort() == "abandoned"
        assert isinstance(running.exception(), TaskAbortedError)
        # The only slot is free again, though the thread still hangs.
        assert waiting.result() == 9
        assert running.abort() == "finished"
        assert pool.statistics().abandoned == 1
        gate.open()


def test_abort_before_the_start_cancels(gate: GateKeeper) -> None:
    with make_executor("thread", 1) as pool:
        pool.submit(gate.gate.hold)
        gate.wait_started()
        waiting = pool.submit(square, 3)
        assert waiting.abort() == "cancelled"
        assert waiting.cancelled()
        gate.open()


def test_abort_where_nothing_can_be_stopped(gate: GateKeeper) -> None:
    with ProcessPoolExecutor(1) as other, make_executor(other) as pool:
        running = pool.submit(gate.gate.hold)
        gate.wait_started()
        with pytest.raises(UnsupportedError, match="abort"):
            running.abort()
        gate.open()


def test_an_aborted_nested_task_fails_its_waiter_only() -> None:
    started, go = threading.Event(), threading.Event()
    inner: list[Any] = []

    def hang() -> None:
        started.set()
        go.wait()

    def outer(pool: PoolExecutor) -> str:
        inner.append(pool.submit(hang))
        try:
            inner[0].result()
        except TaskAbortedError:
            return "told"
        return "not told"

    with make_executor("thread", 1) as pool:
        future = pool.submit(outer, pool)
        assert started.wait(30)
        assert inner[0].abort() == "abandoned"
        assert pool.submit(square, 2).result() == 4
        go.set()
        assert future.result() == "told"


def test_interrupting_a_block_tells_running_tasks() -> None:
    seen: list[bool] = []

    def task() -> None:
        started.set()
        seen.append(current_task().wait(60))

    started = threading.Event()

    def work() -> None:
        with make_executor("thread", 1) as pool:
            pool.submit(task)
            started.wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert seen == [True]


def test_priorities(gate: GateKeeper) -> None:
    order: list[int] = []
    with make_executor("thread", 1) as pool:
        pool.submit(gate.gate.hold)
        gate.wait_started()
        for priority in (0, 5, -5, 0, 5, -5):
            pool.with_options(priority=priority).submit(order.append, priority)
        gate.open()
    assert order == [-5, -5, 0, 0, 5, 5]


def test_priority_is_checked() -> None:
    with make_executor("inline") as pool, pytest.raises(UnsupportedError, match="priority=1"):
        pool.with_options(priority=1)
    with make_executor("thread") as pool, pytest.raises(TypeError, match="priority"):
        pool.with_options(priority="high")  # type: ignore[arg-type]


def test_statistics(gate: GateKeeper) -> None:
    with make_executor("thread", 2) as pool:
        for _ in range(5):
            pool.submit(gate.gate.hold)
        gate.wait_started(2)
        statistics = pool.statistics()
        assert (statistics.workers, statistics.running, statistics.pending) == (2, 2, 3)
        gate.open()
    assert pool.statistics().running == 0


def test_statistics_see_blocked_tasks() -> None:
    go = threading.Event()
    with make_executor("thread", 1) as pool:
        pool.submit(go.wait)
        while pool.statistics().blocked != 1:
            pass
        go.set()


def test_an_error_that_nobody_asked_for_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # what other tests left
    caplog.clear()
    with make_executor("thread") as pool:
        pool.submit(fail, "unasked")
        assert pool.submit(fail, "asked").exception() is not None
        with pytest.raises(KeyError):
            pool.submit(fail, "asked").result()
        cancelled: poolkit.TaskFuture[int] = poolkit.TaskFuture()
        cancelled.cancel()
        del cancelled
    records = [record for record in caplog.records if record.name == "poolkit.unretrieved"]
    assert len(records) == 1
    assert "KeyError('unasked')" in records[0].getMessage()
    assert "tasks.py" in records[0].getMessage()
