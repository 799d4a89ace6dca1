"""Waiting inside tasks: nothing locks up, slots are honoured, cycles are told.

Each test has a limit of 10 s: what goes wrong here hangs.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

import poolkit
from poolkit import DeadlockError, PoolExecutor, TaskFuture, make_executor

from .tasks import Meter, square

pytestmark = pytest.mark.timeout(10)

Ways = Callable[[list[Future[int]]], list[int]]


def results(futures: list[Future[int]]) -> list[int]:
    return [future.result() for future in futures]


def results_timed(futures: list[Future[int]]) -> list[int]:
    return [future.result(timeout=60) for future in futures]


def exceptions_first(futures: list[Future[int]]) -> list[int]:
    assert [future.exception() for future in futures] == [None] * len(futures)
    return results(futures)


def wait_all(futures: list[Future[int]]) -> list[int]:
    assert poolkit.wait(futures).not_done == set()
    return results(futures)


def wait_one_by_one(futures: list[Future[int]]) -> list[int]:
    missing = set(futures)
    while missing:
        missing = poolkit.wait(missing, return_when=FIRST_COMPLETED).not_done
    return results(futures)


def as_completed(futures: list[Future[int]]) -> list[int]:
    assert set(poolkit.as_completed(futures)) == set(futures)
    return results(futures)


WAYS = [results, results_timed, exceptions_first, wait_all, wait_one_by_one, as_completed]


@pytest.fixture(params=[1, 2, 4])
def some_pool(request: pytest.FixtureRequest) -> Any:
    with make_executor("thread", request.param) as pool:
        yield pool


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_waiting_in_a_task(some_pool: PoolExecutor, way: Ways) -> None:
    pool = some_pool

    def outer(n: int) -> int:
        return sum(way([pool.submit(square, m) for m in range(n)]))

    futures = [pool.submit(outer, 6) for _ in range(8)]
    assert {future.result() for future in futures} == {55}
    assert pool.statistics().waiting == 0


def test_verbs_in_a_task_of_the_same_pool(some_pool: PoolExecutor) -> None:
    pool = some_pool

    def outer(n: int) -> int:
        ordered = list(poolkit.map_ordered(pool, square, range(n)))
        assert sorted(poolkit.map_unordered(pool, square, range(n))) == ordered
        assert list(pool.map(square, range(n))) == ordered
        return sum(ordered)

    assert [pool.submit(outer, 20).result() for _ in range(4)] == [2470] * 4


def test_waits_with_deadlines_lend_the_slot() -> None:
    with make_executor("thread", 1, task_timeout=60) as pool:
        assert pool.submit(lambda: pool.submit(square, 3).result()).result() == 9


def merge_sort(pool: Executor, numbers: list[float]) -> list[float]:
    if len(numbers) <= 1000:
        return sorted(numbers)
    middle = len(numbers) // 2
    left = pool.submit(merge_sort, pool, numbers[:middle])
    right = pool.submit(merge_sort, pool, numbers[middle:])
    merged: list[float] = []
    first, second = left.result(), right.result()
    a = b = 0
    while a < len(first) and b < len(second):
        if first[a] <= second[b]:
            merged.append(first[a])
            a += 1
        else:
            merged.append(second[b])
            b += 1
    return merged + first[a:] + second[b:]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.timeout(30)
def test_merge_sort_piles_up_no_threads(workers: int) -> None:
    numbers = [Random(7).random() for _ in range(100_000)]
    before = threading.active_count()
    with make_executor("thread", workers) as pool:
        assert pool.submit(merge_sort, pool, numbers).result() == sorted(numbers)
        # A few spare ones for slots that were lent, not one for each of the 127 waits.
        assert threading.active_count() - before <= 4 * workers
    assert threading.active_count() == before


def test_directory_walk() -> None:
    root = Path(os.__file__).parent

    def walk(folder: Path) -> int:
        inside = [entry for entry in folder.iterdir() if not entry.is_symlink()]
        subfolders = [pool.submit(walk, entry) for entry in inside if entry.is_dir()]
        return len(inside) + sum(future.result() for future in subfolders)

    root = root / "json" if not (root / "email").is_dir() else root / "email"
    expected = sum(1 for _ in root.rglob("*"))
    with make_executor("thread", 1) as pool:
        assert pool.submit(walk, root).result() == expected


def test_a_chain_longer_than_the_stack() -> None:
    def chain(n: int) -> int:
        return 0 if n == 0 else 1 + pool.submit(chain, n - 1).result()

    with make_executor("thread", 1) as pool:
        assert pool.submit(chain, 1500).result() == 1500


def test_no_task_starts_while_all_slots_are_taken() -> None:
    meter = Meter()

    def branch() -> None:
        poolkit.wait([pool.submit(meter.task) for _ in range(10)])

    with make_executor("thread", 3) as pool:
        poolkit.wait([pool.submit(branch) for _ in range(10)])
    assert 1 <= meter.most <= 3


def test_unrelated_work_never_runs_on_a_waiting_tasks_stack() -> None:
    inside = threading.local()
    strangers: list[object] = []

    def stranger() -> None:
        strangers.append(getattr(inside, "outer", None))

    def outer() -> int:
        inside.outer = "outer"
        try:
            mine = pool.submit(square, 5)
            for _ in range(5):
                pool.submit(stranger)
            return mine.result()
        finally:
            inside.outer = None

    with make_executor("thread", 1) as pool:
        others = [pool.submit(stranger) for _ in range(5)]
        assert pool.submit(outer).result() == 25
        poolkit.wait(others)
    assert strangers == [None] * 10


def test_a_waiter_goes_on_without_queuing() -> None:
    resumed = threading.Event()

    def waiter() -> bool:
        awaited = pool.submit(square, 3)
        # When the spare worker is done with the awaited task, it takes this one, and with it
        # the only slot, until the waiter has gone on.
        blocker = pool.submit(resumed.wait)
        assert awaited.result(timeout=60) == 9
        resumed.set()
        return blocker.result()

    with make_executor("thread", 1) as pool:
        assert pool.submit(waiter).result()


def ring(pool: PoolExecutor, size: int, wait: Callable[[Future[object]], object]) -> list[Any]:
    """Let each of `size` tasks wait for the next; return what became of them."""
    futures: list[TaskFuture[object]] = []
    ready = threading.Event()

    def link(number: int) -> object:
        ready.wait()
        return wait(futures[(number + 1) % size])

    futures += [pool.submit(link, number) for number in range(size)]
    ready.set()
    return [future.exception() for future in futures]


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize(
    "wait",
    [
        lambda future: future.result(),
        lambda future: poolkit.wait([future]),
        lambda future: list(poolkit.as_completed([future])),
    ],
    ids=["result", "wait", "as_completed"],
)
def test_a_cycle_is_told_to_the_waiter_that_closes_it(size: int, wait: Any) -> None:
    with make_executor("thread", size) as pool:
        errors = [error for error in ring(pool, size, wait) if error is not None]
    deadlocks = {id(error): error for error in errors if isinstance(error, DeadlockError)}
    assert len(deadlocks) == 1
    (error,) = deadlocks.values()
    assert len(error.tasks) == size
    assert "wait for each other" in str(error)
    assert all(f"link({number})" in str(error) for number in range(size))


def test_timed_waits_are_no_deadlock() -> None:
    with make_executor("thread", 2) as pool:
        errors = ring(pool, 2, lambda future: future.result(timeout=0.05))
    assert not any(isinstance(error, DeadlockError) for error in errors)
    assert any(type(error) is TimeoutError for error in errors)


def test_waiting_for_any_is_stuck_only_if_all_are() -> None:
    futures: list[TaskFuture[Any]] = []
    ready, go = threading.Event(), threading.Event()

    def either() -> int:
        ready.wait()
        return len(poolkit.wait(futures[1:], return_when=FIRST_COMPLETED).done)

    def back() -> object:
        ready.wait()
        return futures[0].result()

    with make_executor("thread", 3) as pool:
        futures += [pool.submit(either), pool.submit(back), pool.submit(go.wait)]
        ready.set()
        while pool.statistics().waiting != 2:
            pass
        go.set()
        assert futures[0].result() == 1
        assert futures[1].result() == 1


def test_a_cycle_through_two_pools_is_told() -> None:
    futures: dict[str, TaskFuture[Any]] = {}
    ready = threading.Event()

    def wait_for(name: str) -> object:
        ready.wait()
        return futures[name].result()

    with make_executor("thread", 1) as first, make_executor("thread", 1) as second:
        futures["first"] = first.submit(wait_for, "second")
        futures["second"] = second.submit(wait_for, "first")
        ready.set()
        errors = [future.exception() for future in futures.values()]
    assert any(isinstance(error, DeadlockError) for error in errors)


def test_a_task_never_blocks_on_its_own_pools_bound() -> None:
    def outer() -> int:
        return sum(future.result() for future in [pool.submit(square, n) for n in range(9)])

    with make_executor("thread", 1, max_pending=1) as pool:
        assert pool.submit(outer).result() == 204


def test_a_callback_that_waits_on_its_own_pool() -> None:
    done = threading.Event()
    seen: list[int] = []

    def callback(_: object) -> None:
        seen.append(pool.submit(square, 4).result(timeout=60))
        done.set()

    with make_executor("thread", 1) as pool:
        go = threading.Event()
        future = pool.submit(go.wait)
        future.add_done_callback(callback)
        go.set()
        assert done.wait(60)
    assert seen == [16]


def test_nested_waits_on_an_adapted_thread_pool() -> None:
    def outer(n: int) -> int:
        futures = [pool.submit(square, m) for m in range(n)]
        poolkit.wait(futures)
        return sum(future.result() for future in futures)

    with ThreadPoolExecutor(1) as foreign, make_executor(foreign) as pool:
        assert pool.submit(outer, 4).result() == 14
        assert pool.submit(lambda: pool.submit(square, 2).result()).result() == 4
