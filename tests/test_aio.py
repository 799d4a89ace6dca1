"""`poolkit.aio`: pools for an event loop, which is never held up."""

import asyncio
import contextvars
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolkit import (
    INHERIT,
    PoolExecutor,
    PoolShutdownError,
    QueueFullError,
    Retry,
    TaskCancelled,
    TaskTimeoutError,
    aio,
    current_task,
    make_executor,
)
from poolkit.testing import SimulatedExecutor, no_pool_leaks

from . import tasks

T = TypeVar("T")
KINDS = ("inline", "thread", "process")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with no_pool_leaks(failures=False):
        yield


@pytest.fixture(params=KINDS, name="pool")
def a_pool(request: pytest.FixtureRequest) -> Iterator[PoolExecutor]:
    with make_executor(request.param, None if request.param == "inline" else 2) as pool:
        yield pool


def run(coroutine: Awaitable[T]) -> T:
    """Run a coroutine, for not too long."""

    async def limited() -> T:
        return await asyncio.wait_for(coroutine, 60)

    return asyncio.run(limited())


async def count(to: int) -> AsyncIterator[int]:
    for number in range(to):
        await asyncio.sleep(0)
        yield number


async def collected(results: AsyncIterator[T]) -> list[T]:
    return [result async for result in results]


def process_is_alive(path: Path) -> bool:
    try:
        os.kill(int(path.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


async def until(true: Callable[[], bool]) -> None:
    """Wait for something to become true; `run` limits for how long."""
    while not true():
        await asyncio.sleep(0.005)


def tell_pid_and_hang(path: Path) -> None:
    half = path.with_suffix(".half")
    half.write_text(str(os.getpid()))
    half.rename(path)
    threading.Event().wait()


# -- run -----------------------------------------------------------------------------------


def test_run(pool: PoolExecutor) -> None:
    assert run(aio.run(pool, tasks.square, 7)) == 49
    assert run(aio.run(pool, int, "ff", base=16)) == 255
    with pytest.raises(ValueError, match="invalid literal"):
        run(aio.run(pool, int, "x"))


def test_run_on_somebody_elses_executor() -> None:
    with ThreadPoolExecutor(1) as theirs:
        assert run(aio.run(theirs, tasks.square, 7)) == 49


def test_context_variables_flow_in() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    async def main() -> str:
        variable.set("set")
        return await aio.run(pool, variable.get)

    with make_executor("thread", 1) as pool:
        assert run(main()) == "set"


def test_a_full_pool_does_not_hold_up_the_loop() -> None:
    gate = threading.Event()

    async def main() -> list[bool]:
        waiting = [asyncio.create_task(aio.run(pool, gate.wait)) for _ in range(6)]
        for _ in range(20):
            await asyncio.sleep(0)  # the loop goes on
        assert sum(task.done() for task in waiting) == 0
        gate.set()
        return await asyncio.gather(*waiting)

    with make_executor("thread", 1, max_pending=2) as pool:
        assert run(main()) == [True] * 6
    with make_executor("thread", 1, max_pending=1, when_full="raise") as pool:
        gate.clear()

        async def too_many() -> None:
            first = asyncio.create_task(aio.run(pool, gate.wait))
            await asyncio.sleep(0)
            try:
                with pytest.raises(QueueFullError):
                    await aio.run(pool, gate.wait)
            finally:
                gate.set()
                await first

        run(too_many())


def test_who_waits_for_room_learns_of_the_shutdown() -> None:
    gate = threading.Event()

    async def main() -> None:
        first = asyncio.create_task(aio.run(pool, gate.wait))
        second = asyncio.create_task(aio.run(pool, gate.wait))
        await asyncio.sleep(0)
        pool.shutdown(wait=False)
        with pytest.raises(PoolShutdownError):
            await second
        gate.set()
        await first

    pool = make_executor("thread", 1, max_pending=1)
    run(main())
    pool.shutdown()


def test_cancelling_ends_the_process(tmp_path: Path) -> None:
    async def main() -> None:
        task = asyncio.create_task(aio.run(pool, tell_pid_and_hang, tmp_path / "pid"))
        await until((tmp_path / "pid").exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not process_is_alive(tmp_path / "pid"))
        assert await aio.run(pool, tasks.square, 3) == 9

    with make_executor("process", 1) as pool:
        run(main())


def test_cancelling_tells_a_thread_to_stop() -> None:
    stopped = threading.Event()

    def cooperative() -> None:
        try:
            while True:
                current_task().wait(60)
                current_task().check()
        except TaskCancelled:
            stopped.set()
            raise

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await aio.run(pool, cooperative)
        await until(stopped.is_set)

    with make_executor("thread", 1) as pool:
        run(main())


def test_cancelling_takes_back_what_has_not_started() -> None:
    gate = threading.Event()

    async def main() -> None:
        first = asyncio.create_task(aio.run(pool, gate.wait))
        second = asyncio.create_task(aio.run(pool, ran.append, 1))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        gate.set()
        assert await first

    ran: list[int] = []
    with make_executor("thread", 1) as pool:
        run(main())
    assert ran == []


# -- verbs ---------------------------------------------------------------------------------


def test_verbs(pool: PoolExecutor) -> None:
    async def main() -> None:
        squares = [n * n for n in range(50)]
        for chunksize in ("auto", 1, 7):
            options: Any = {"chunksize": chunksize}
            for items in (range(50), count(50)):
                assert await collected(aio.map_ordered(pool, tasks.square, items, **options)) == (
                    squares
                )
            unordered = await collected(aio.map_unordered(pool, tasks.square, count(50), **options))
            assert sorted(unordered) == squares
        outcomes = await collected(aio.map_outcomes(pool, int, ["1", "x"], ordered=True))
        assert [outcome.ok for outcome in outcomes] == [True, False]
        assert [outcome.args for outcome in outcomes] == [("1",), ("x",)]
        assert await collected(aio.map_ordered(pool, pow, count(9), [2, 3])) == [0, 1]

    run(main())


def test_a_kind_by_name() -> None:
    async def main() -> list[int]:
        return await collected(aio.map_ordered("thread", tasks.square, [1, 2]))

    assert run(main()) == [1, 4]


def test_the_first_failure_is_raised(pool: PoolExecutor) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="invalid") as caught:
            await collected(aio.map_ordered(pool, int, ["1", "x", "3"]))
        assert "item 1" in caught.value.__notes__[0]
        assert await collected(aio.map_ordered(pool, int, ["1", "x"], on_error="skip")) == [1]
        retry = Retry(wait=0, on=ValueError)
        with pytest.raises(ValueError, match="invalid"):
            await collected(aio.map_ordered(pool, int, count_strings(), retry=retry))

    async def count_strings() -> AsyncIterator[str]:
        yield "1"
        yield "x"

    run(main())


def test_pulling_keeps_to_the_bound() -> None:
    pulled = yielded = most = 0

    async def source() -> AsyncIterator[int]:
        nonlocal pulled, most
        for number in range(300):
            pulled += 1
            most = max(most, pulled - yielded)
            await asyncio.sleep(0)
            yield number

    async def main() -> None:
        nonlocal yielded
        async for _ in aio.map_unordered(pool, tasks.square, source(), max_pending=10):
            yielded += 1

    with make_executor("thread", 2) as pool:
        run(main())
    assert (pulled, yielded) == (300, 300)
    assert most <= 10


def test_a_slow_source_holds_nothing_back() -> None:
    """An item's result is there before the next item comes."""

    async def main() -> None:
        asked: asyncio.Queue[int] = asyncio.Queue()

        async def source() -> AsyncIterator[int]:
            for _ in range(5):
                yield await asked.get()

        await asked.put(1)
        results = aio.map_ordered(pool, tasks.square, source())
        async for result in results:
            await asked.put(result + 1)
            if result > 100:
                break
        await results.aclose()

    with make_executor("thread", 2) as pool:
        run(main())


def test_results_behind_a_slow_item_come_out() -> None:
    gate = threading.Event()

    def fn(number: int) -> int:
        if number == 2:
            gate.wait()
        return number

    async def main() -> None:
        async with aio.map_unordered(pool, fn, [0, 1, 2], chunksize=3) as results:
            assert [await anext(results), await anext(results)] == [0, 1]
            gate.set()
            assert await anext(results) == 2

    with make_executor("thread", 1) as pool:
        run(main())


def test_a_source_that_fails() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise KeyError("gone")

    async def main() -> None:
        results = aio.map_ordered(pool, tasks.square, source())
        assert await anext(results) == 1
        with pytest.raises(KeyError, match="gone"):
            await anext(results)

    with make_executor("thread", 1) as pool:
        run(main())


def test_the_loop_goes_on_while_results_are_made() -> None:
    async def main() -> int:
        gate, ticks = threading.Event(), 0

        async def tick() -> None:
            nonlocal ticks
            while not gate.is_set():
                ticks += 1
                if ticks == 10:
                    gate.set()
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        assert await collected(aio.map_ordered(pool, lambda _: gate.wait(), [1])) == [True]
        await ticking
        return ticks

    with make_executor("thread", 1) as pool:
        assert run(main()) == 10


def test_cancelling_the_loop_ends_what_runs(tmp_path: Path) -> None:
    paths = [tmp_path / "first", tmp_path / "second"]

    async def main() -> None:
        task = asyncio.create_task(collected(aio.map_unordered(pool, tell_pid_and_hang, paths)))
        await until(lambda: all(path.exists() for path in paths))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not any(process_is_alive(path) for path in paths))
        assert await aio.run(pool, tasks.square, 3) == 9

    with make_executor("process", 2) as pool:
        run(main())


def test_leaving_early_takes_back_the_rest() -> None:
    ran: list[int] = []

    async def main() -> None:
        async with aio.map_ordered(pool, ran.append, count(10_000), max_pending=5) as results:
            await anext(results)

    with make_executor("thread", 1) as pool:
        run(main())
    assert len(ran) < 20


def test_limits() -> None:
    async def main() -> None:
        gate = threading.Event()
        with pytest.raises(TimeoutError, match="still missing"):
            await collected(aio.map_ordered(pool, lambda _: gate.wait(), [1], timeout=0.05))
        outcomes = await collected(
            aio.map_outcomes(pool, lambda _: gate.wait(), [1], task_timeout=0.05)
        )
        assert isinstance(outcomes[0].error, TaskTimeoutError)
        gate.set()

    with make_executor("thread", 2) as pool:
        run(main())


@settings(max_examples=30, deadline=None)
@given(
    items=st.lists(st.integers(), max_size=60),
    chunksize=st.sampled_from(["auto", 1, 3]),
    bound=st.none() | st.integers(1, 9),
    asynchronous=st.booleans(),
)
def test_as_the_built_in_map(
    items: list[int], chunksize: Any, bound: int | None, asynchronous: bool
) -> None:
    async def source() -> AsyncIterator[int]:
        for item in items:
            yield item

    async def main() -> None:
        options: Any = {"chunksize": chunksize, "max_pending": bound, "retry": INHERIT}
        inputs: Any = source() if asynchronous else items
        assert await collected(aio.map_ordered(shared, tasks.square, inputs, **options)) == [
            item * item for item in items
        ]

    with make_executor("thread", 2) as shared:
        run(main())


# -- groups, executors, tests --------------------------------------------------------------


def test_a_group_ends_together(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.TaskGroup(pool) as group:
            first, second = group.submit(tasks.square, 2), group.submit(int, "7")
        assert (first.result(), second.result()) == (4, 7)
        with pytest.raises(ExceptionGroup) as caught:
            async with aio.TaskGroup(pool) as group:
                group.submit(tell_pid_and_hang, tmp_path / "pid")
                await until((tmp_path / "pid").exists)
                group.submit(int, "x")
        assert [type(error) for error in caught.value.exceptions] == [ValueError]
        await until(lambda: not process_is_alive(tmp_path / "pid"))

    with make_executor("process", 2) as pool:
        run(main())


def test_an_executor_for_a_block() -> None:
    async def main() -> None:
        async with aio.executor("thread", 1, task_timeout=60) as pool:
            assert await aio.run(pool, tasks.square, 2) == 4
        with pytest.raises(PoolShutdownError):
            await aio.run(pool, tasks.square, 2)

    run(main())


def test_simulated_pools() -> None:
    async def main() -> None:
        with SimulatedExecutor(1) as pool:
            assert await aio.run(pool, tasks.square, 2) == 4
            assert await collected(aio.map_ordered(pool, tasks.square, range(5))) == [
                0,
                1,
                4,
                9,
                16,
            ]

    run(main())


def test_bad_arguments() -> None:
    anything: Any = aio
    with make_executor("thread", 1) as pool:
        for call in (
            lambda: anything.map_ordered(pool, tasks.square),
            lambda: anything.map_ordered(pool, 3, [1]),
            lambda: anything.map_ordered(pool, tasks.square, 3),
            lambda: anything.map_ordered(pool, tasks.square, [1], chunks=3),
            lambda: anything.map_ordered(pool, tasks.square, [1], timeout="x"),
            lambda: anything.map_ordered(3, tasks.square, [1]),
            lambda: anything.TaskGroup("thread"),
        ):
            with pytest.raises(TypeError):
                call()
        with pytest.raises(ValueError, match="on_error"):
            anything.map_ordered(pool, tasks.square, [1], on_error="ignore")
    with pytest.raises(ValueError, match="unknown kind"):
        anything.map_ordered("thraed", tasks.square, [1])


def test_different_lengths() -> None:
    async def main() -> None:
        results = aio.map_ordered(pool, pow, count(3), [2, 2], strict=True)
        with pytest.raises(ValueError, match="same length"):
            await collected(results)

    with make_executor("thread", 1) as pool:
        run(main())
