"""`override_executors`: other pools than the code asks for."""

import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import pytest

import poolkit
from poolkit import (
    PoolExecutor,
    PoolShutdownError,
    QueueFullError,
    Retry,
    TaskGroup,
    TaskTimeoutError,
    make_executor,
    map_ordered,
)
from poolkit.testing import ManualExecutor, SimulatedExecutor, override_executors, sleep


def test_a_kind_in_place_of_all() -> None:
    with override_executors("inline"):
        with make_executor("process", 3, start_method="spawn", max_tasks_per_child=1) as pool:
            assert pool.kind == "inline"
            assert pool.submit(threading.get_ident).result() == threading.get_ident()
        assert list(map_ordered("thread", lambda _: threading.get_ident(), [1])) == [
            threading.get_ident()
        ]
        with TaskGroup("cpu") as group:
            assert group.submit(threading.get_ident).result() == threading.get_ident()
    with make_executor("thread", 1) as pool:
        assert pool.kind == "thread"


def test_options_that_the_kind_has_are_kept() -> None:
    with override_executors("thread"):
        with make_executor("thread", thread_name_prefix="mine", task_timeout=60) as pool:
            assert pool.submit(lambda: threading.current_thread().name).result() == "mine_0"
        with make_executor("process", 3, kill_grace=1) as pool:
            assert pool.max_workers == 3


def test_the_codes_own_options_hold_whatever_makes_the_pool() -> None:
    def plain() -> Executor:
        return ManualExecutor(auto_run=True)

    for factory in (plain, lambda: SimulatedExecutor(1), ManualExecutor):
        with override_executors(factory):
            pool = make_executor(
                "process", 2, max_pending=1, when_full="raise", task_timeout=5, initargs=()
            )
            future = pool.submit(sleep, 6)
            with pytest.raises(QueueFullError):
                pool.submit(sleep, 6)
            if isinstance(pool, ManualExecutor):
                pool.run_all()
            assert isinstance(future.exception(), TaskTimeoutError)
            pool.shutdown()
            with pytest.raises(PoolShutdownError):
                pool.submit(sleep, 1)
    assert threading.Lock().__class__.__name__ != "TurnLock"


def test_what_the_factory_takes_by_name_it_gets() -> None:
    asked: list[dict[str, Any]] = []

    def factory(max_workers: int | None = None, retry: Retry | None = None) -> Executor:
        asked.append({"max_workers": max_workers, "retry": retry})
        return ManualExecutor(auto_run=True, retry=retry)

    retry = Retry(attempts=2)
    with override_executors(factory):
        with make_executor("thread", 7, retry=retry):
            pass
        with make_executor("io"):
            pass
    assert asked == [
        {"max_workers": 7, "retry": retry},
        {"max_workers": None, "retry": None},
    ]


def test_somebody_elses_executor_is_adapted_and_owned() -> None:
    made: list[ThreadPoolExecutor] = []

    def factory(max_workers: int | None = None) -> Executor:
        made.append(ThreadPoolExecutor(max_workers))
        return made[-1]

    with override_executors(factory), make_executor("process", 2, max_pending=5) as pool:
        assert pool.submit(pow, 2, 3).result() == 8
    assert made[0]._max_workers == 2
    with pytest.raises(RuntimeError):
        made[0].submit(pow, 1, 1)


def test_an_executor_is_shared_and_left_open() -> None:
    with ThreadPoolExecutor(1) as theirs, make_executor("thread", 1) as ours:
        for shared in (theirs, ours):
            with override_executors(shared):
                for _ in range(2):
                    with make_executor("process", 9, task_timeout=60) as pool:
                        assert pool.submit(pow, 2, 3).result() == 8
            assert shared.submit(pow, 3, 2).result() == 9


def test_the_inner_one_counts_and_other_threads_see_it() -> None:
    seen: list[str] = []

    def look() -> None:
        with make_executor("process") as pool:
            seen.append(pool.kind)

    with override_executors("thread"):
        with override_executors("inline"):
            thread = threading.Thread(target=look)
            thread.start()
            thread.join(30)
        look()
    assert seen == ["inline", "thread"]


def test_executors_that_exist_are_left_alone() -> None:
    with make_executor("thread", 1) as pool, override_executors("inline"):
        view = make_executor(pool, task_timeout=5)
        assert view.kind == "thread"
        assert list(map_ordered(pool, abs, [-1])) == [1]


def test_what_does_not_exist_is_an_error_all_the_same() -> None:
    anything: Any = make_executor
    with override_executors("inline"):
        with pytest.raises(ValueError, match="unknown kind 'thrad'"):
            anything("thrad")
        with pytest.raises(TypeError, match="'wrkers'"):
            anything("thread", wrkers=3)


def test_it_ends_with_the_block_whatever_happens() -> None:
    with pytest.raises(ZeroDivisionError), override_executors("inline"):
        raise ZeroDivisionError
    with make_executor("thread", 1) as pool:
        assert pool.kind == "thread"


def test_bad_arguments() -> None:
    anything: Any = override_executors
    for wrong, error in (("thraed", ValueError), (3, TypeError), (None, TypeError)):
        with pytest.raises(error), anything(wrong):
            pass
    assert not poolkit._factory.overrides
    with override_executors(lambda: 3):  # type: ignore[arg-type, return-value]
        with pytest.raises(TypeError, match="no Executor"):
            make_executor("thread")


def test_the_returned_pool_is_a_pool_executor() -> None:
    with override_executors(ManualExecutor):
        pool: PoolExecutor = make_executor("thread", 2)
        assert isinstance(pool, ManualExecutor)
        assert pool.max_workers == 2
        pool.shutdown()
