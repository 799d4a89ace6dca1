"""Retries, groups and contexts: cases in which an earlier draft hung, leaked or lost something."""

import contextvars
import copy
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import poolkit
from poolkit import Retry, TaskEvent, TaskGroup, current_task, make_executor, map_ordered

from . import tasks

pytestmark = pytest.mark.timeout(30)

variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")
QUICK = Retry(wait=0, on=Exception)


class Incomparable:
    """As arrays are: whether two of them are equal is no yes or no."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("kind", ["inline", "thread"])
@pytest.mark.parametrize("chunksize", [1, 8])
def test_each_item_finds_the_context_of_the_caller(kind: str, chunksize: int) -> None:
    mine, other = Incomparable(), Incomparable()

    def look(_number: int) -> bool:
        found = variable.get(None)
        variable.set(other)
        return found is mine

    with make_executor(kind) as pool:
        context = contextvars.copy_context()
        context.run(variable.set, mine)
        seen = context.run(lambda: list(map_ordered(pool, look, range(16), chunksize=chunksize)))
        assert seen == [True] * 16

        def look_empty(_number: int) -> bool:
            found = variable.get(None)
            variable.set(other)
            return found is None

        empty = contextvars.Context()
        results = empty.run(
            lambda: list(map_ordered(pool, look_empty, range(16), chunksize=chunksize))
        )
        assert results == [True] * 16


@pytest.mark.parametrize("kind", ["inline", "thread"])
def test_each_attempt_finds_the_context_of_the_caller(kind: str) -> None:
    seen: list[str] = []

    def task() -> None:
        seen.append(variable.get("clean"))
        variable.set("dirty")
        if len(seen) < 3:
            raise ValueError

    with make_executor(kind, retry=QUICK) as pool:
        contextvars.Context().run(pool.submit, task).result()
    assert seen == ["clean"] * 3


@pytest.mark.parametrize("how", ["submit", "map", "group", "group that grows"])
def test_a_task_of_an_adapted_pool_waits_for_what_comes_later(how: str, tmp_path: Path) -> None:
    """In the one thread of the other pool: attempts, and tasks that tasks add to a group."""

    def outer() -> Any:
        if how == "submit":
            return pool.submit(tasks.fail_first, tmp_path, 1).result()
        if how == "map":
            return next(map_ordered(pool, tasks.fail_first, [tmp_path], [1]))
        with TaskGroup(pool) as group:
            if how == "group":
                future = group.submit(tasks.fail_first, tmp_path, 1)
            else:
                future = group.submit(lambda: group.submit(tasks.fail_first, tmp_path, 1).result())
        return future.result()

    with ThreadPoolExecutor(1) as theirs, make_executor(theirs, retry=QUICK) as pool:
        assert pool.submit(outer).result() == ("task", 2)


@pytest.mark.parametrize("limit", [None, 50.0])
def test_inline_tasks_are_themselves_with_a_limit(limit: float | None) -> None:
    attempts: list[int] = []

    def task() -> None:
        attempts.append(current_task().attempt)
        assert pool.submit(tasks.square, 2).result() == 4  # and does not wait for its own place
        if len(attempts) < 3:
            raise ValueError

    with make_executor("inline", task_timeout=limit, max_pending=1, retry=QUICK) as pool:
        pool.submit(task).result()
        pool.submit(pool.shutdown).result()
    assert attempts == [1, 2, 3]


def test_an_iterator_that_is_being_waited_for_refuses_to_be_closed() -> None:
    go = threading.Event()
    seen: list[int] = []
    with make_executor("thread", 1) as pool:
        results = map_ordered(pool, lambda number: go.wait() and number, range(3))
        consumer = threading.Thread(target=lambda: seen.extend(results))
        consumer.start()
        closes = 0
        while not closes:
            try:
                while not results._runs.gi_running:  # type: ignore[attr-defined]
                    threading.Event().wait(0.001)
                results.close()
            except ValueError:
                closes += 1
        go.set()
        consumer.join()
    assert seen == [0, 1, 2]


def test_an_iterator_cannot_be_copied() -> None:
    with make_executor("thread", 1) as pool, map_ordered(pool, abs, [1]) as results:
        with pytest.raises(TypeError, match="work under way"):
            copy.copy(results)
        assert list(results) == [1]


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_task_cancelled_on_its_way_to_another_attempt(kind: str, tmp_path: Path) -> None:
    futures: list[Any] = []
    ready = threading.Event()

    def cancel(event: TaskEvent) -> None:
        if event.what == "retried":
            ready.wait()
            assert futures[0].cancel()

    pool = make_executor(kind, 1, observers=[cancel], retry=Retry(wait=3600, jitter=False))
    futures.append(pool.submit(tasks.fail_first, tmp_path, 1))
    ready.set()
    poolkit.wait(futures)
    pool.shutdown()
    assert futures[0].cancelled()
    assert not [t for t in threading.enumerate() if t.name == "poolkit-retries"]


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_an_observer_that_shuts_the_pool_down(kind: str, tmp_path: Path) -> None:
    begun: list[TaskEvent] = []
    done = threading.Event()

    def shut_down(event: TaskEvent) -> None:
        if event.what == "finished" and not begun:
            begun.append(event)
            pool.shutdown()
            done.set()

    retry = Retry(wait=0.3, jitter=False)
    pool = make_executor(kind, 1, observers=[shut_down], retry=retry)
    late = pool.submit(tasks.fail_first, tmp_path, 1)
    assert pool.submit(tasks.square, 2).result() == 4
    done.wait()
    assert late.result() == ("task", 2)
    pool.shutdown()


def test_another_attempt_gets_what_was_submitted(tmp_path: Path) -> None:
    """Arguments are pickled once: to change them later changes no attempt."""
    argument = [1]
    with make_executor("process", 1, retry=Retry(wait=0.3, jitter=False)) as pool:
        future = pool.submit(tasks.fail_first_and_echo, tmp_path, argument)
        while not list(tmp_path.iterdir()):
            threading.Event().wait(0.001)
        argument.append(2)
        assert future.result() == [1]
        (outcome,) = poolkit.map_outcomes(
            pool, tasks.fail_first_and_echo, [tmp_path / "."], [[3]], chunksize=4
        )
        assert outcome.value == [3]


def test_submitting_to_a_group_that_has_failed_is_no_failure_of_its_own() -> None:
    with pytest.raises(ExceptionGroup) as caught, TaskGroup("thread") as group:
        poolkit.wait([group.submit(tasks.fail, "x")])
        group.submit(tasks.square, 2)
    assert [type(error) for error in caught.value.exceptions] == [KeyError]


def test_ctrl_c_in_an_observer_of_submit_is_raised() -> None:
    def interrupt(event: TaskEvent) -> None:
        if event.what == "submitted":
            raise KeyboardInterrupt

    pool = make_executor("thread", 1, observers=[interrupt])
    with pytest.raises(KeyboardInterrupt), pool:
        pool.submit(tasks.square, 2)
    assert pool.statistics().pending == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_a_task_waits_for_its_next_attempt(tmp_path: Path) -> None:
    with make_executor("thread", 1, retry=Retry(wait=0.3, jitter=False)) as pool:
        future = pool.submit(tasks.fail_first, tmp_path, 1)
        while not list(tmp_path.iterdir()) or future.running():
            threading.Event().wait(0.001)
        child = os.fork()
        if not child:
            with make_executor("thread", 1, retry=QUICK) as mine:
                right = mine.submit(tasks.fail_first, tmp_path, 1, "child").result()
                os._exit(0 if right == ("child", 2) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert future.result() == ("task", 2)
