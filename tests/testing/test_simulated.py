"""`SimulatedExecutor`: who goes on, what the time is, and what is left."""

import concurrent.futures
import queue
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import poolkit
from poolkit import (
    DeadlockError,
    PoolBrokenError,
    Retry,
    TaskAbortedError,
    TaskGroup,
    TaskTimeoutError,
    current_task,
    map_ordered,
    map_outcomes,
    map_unordered,
)
from poolkit.testing import (
    PendingTask,
    Schedule,
    SimulatedExecutor,
    WouldBlockError,
    checkpoint,
    schedules,
    sleep,
)

HOUR = 3600.0
ORIGINALS = (threading.Lock, threading.RLock, vars(threading)["_time"], vars(queue)["time"])


def originals() -> tuple[Any, ...]:
    return (threading.Lock, threading.RLock, vars(threading)["_time"], vars(queue)["time"])


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    before = threading.active_count()
    yield
    assert originals() == ORIGINALS
    assert threading.active_count() == before


def order_of(seed: int | str | Schedule, tasks: int = 4, **options: Any) -> list[int]:
    done: list[int] = []

    def task(number: int) -> None:
        checkpoint()
        done.append(number)

    with SimulatedExecutor(seed, **options) as pool:
        for number in range(tasks):
            pool.submit(task, number)
    return done


# -- order ---------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_order() -> None:
    orders = [order_of(seed) for seed in range(30)]
    assert orders == [order_of(seed) for seed in range(30)]
    assert len({tuple(order) for order in orders}) > 8


def test_without_choices_tasks_run_one_after_the_other() -> None:
    assert order_of(Schedule()) == [0, 1, 2, 3]
    assert order_of("") == [0, 1, 2, 3]
    assert order_of("0:3") == [3, 0, 1, 2]


def test_what_was_chosen_can_be_chosen_again() -> None:
    done: list[int] = []
    with SimulatedExecutor(5) as pool:
        for number in range(4):
            pool.submit(done.append, number)
    again: list[int] = []
    with SimulatedExecutor(pool.schedule) as replayed:
        for number in range(4):
            replayed.submit(again.append, number)
    assert again == done
    assert replayed.schedule == pool.schedule


@settings(deadline=None)
@given(schedule=schedules())
def test_any_schedule_is_one(schedule: Schedule) -> None:
    assert sorted(order_of(schedule)) == [0, 1, 2, 3]
    trimmed = Schedule.parse(str(schedule))
    assert order_of(trimmed) == order_of(schedule)


def test_no_more_tasks_are_under_way_than_workers() -> None:
    active = most = 0

    def task() -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        checkpoint()
        active -= 1

    for seed in range(10):
        with SimulatedExecutor(seed, 3) as pool:
            for _ in range(9):
                pool.submit(task)
    assert most == 3


def test_the_log_tells_what_happened() -> None:
    with SimulatedExecutor("") as pool:
        pool.submit(pow, 2, 3)
        pool.submit(checkpoint)
    assert pool.log[:3] == ("pow(2, 3) begins", "pow(2, 3) ends", "checkpoint() begins")


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), items=st.lists(st.integers(), max_size=30), size=st.data())
def test_verbs_are_as_the_built_in_map(seed: int, items: list[int], size: st.DataObject) -> None:
    chunksize: Any = size.draw(st.sampled_from(["auto", 1, 3]))
    expected = [item * 2 for item in items]

    def double(item: int) -> int:
        checkpoint()
        return item * 2

    with SimulatedExecutor(seed, 3) as pool:
        assert list(map_ordered(pool, double, items, chunksize=chunksize)) == expected
        unordered = list(map_unordered(pool, double, items, chunksize=chunksize))
        assert sorted(unordered) == sorted(expected)
        assert [o.unwrap() for o in map_outcomes(pool, double, items, ordered=True)] == expected


def test_a_schedule_finds_what_a_plain_order_does_not() -> None:
    def total(seed: int) -> int:
        counter = [0]

        def add() -> None:
            was = counter[0]
            checkpoint()
            counter[0] = was + 1

        with SimulatedExecutor(seed) as pool:
            for _ in range(3):
                pool.submit(add)
        return counter[0]

    assert {total(seed) for seed in range(40)} == {1, 2, 3}


# -- switching between lines ---------------------------------------------------------------


class Counter:
    def __init__(self) -> None:
        self.value = 0
        self.lock = threading.Lock()

    def add(self) -> None:
        value = self.value
        self.value = value + 1

    def add_safely(self) -> None:
        with self.lock:
            self.add()


def count(seed: int, add: Callable[[Counter], None], **options: Any) -> int:
    with SimulatedExecutor(seed, **options) as pool:
        counter = Counter()
        for _ in range(4):
            pool.submit(add, counter)
    return counter.value


def test_between_lines() -> None:
    assert {count(seed, Counter.add) for seed in range(20)} == {4}
    assert min(count(seed, Counter.add, preempt="lines") for seed in range(20)) < 4


def test_locks_take_turns() -> None:
    assert {count(seed, Counter.add_safely, preempt="lines") for seed in range(50)} == {4}


MODULE_LOCK = threading.Lock()


class Shared:
    lock = threading.RLock()
    value = 0

    @classmethod
    def add(cls) -> None:
        with MODULE_LOCK, cls.lock, cls.lock:
            value = cls.value
            cls.value = value + 1


def test_locks_of_modules_and_classes_take_turns() -> None:
    originals = MODULE_LOCK, Shared.lock
    for seed in range(20):
        Shared.value = 0
        with SimulatedExecutor(seed, preempt="lines") as pool:
            for _ in range(4):
                pool.submit(Shared.add)
        assert Shared.value == 4
    assert (MODULE_LOCK, Shared.lock) == originals


# -- time ----------------------------------------------------------------------------------


def test_time_passes_only_when_nobody_can_go_on() -> None:
    with SimulatedExecutor(1, 2) as pool:
        started = time.monotonic()
        futures = [pool.submit(sleep, HOUR) for _ in range(6)]
        poolkit.wait(futures)
        assert pool.elapsed == 3 * HOUR
        pool.submit(checkpoint).result()
        sleep(5)  # in the test itself
        assert pool.elapsed == 3 * HOUR + 5
        assert time.monotonic() - started < 60


def test_limits_of_tasks() -> None:
    with SimulatedExecutor(2, 2, task_timeout=10) as pool:
        futures = [pool.submit(sleep, seconds) for seconds in (1, 20, 30, 9)]
        kinds = [type(future.exception()) for future in futures]
        assert kinds == [type(None), TaskTimeoutError, TaskTimeoutError, type(None)]
        # The late ones failed on time, at 10 and 11, and their workers were replaced.
        assert pool.elapsed == 19


def test_a_late_task_can_stop_by_itself() -> None:
    stopped: list[float] = []

    def task() -> None:
        while not current_task().wait(3):
            pass
        stopped.append(pool.elapsed)
        current_task().check()

    with SimulatedExecutor(2, task_timeout=10) as pool:
        assert isinstance(pool.submit(task).exception(), TaskTimeoutError)
    assert stopped == [10]


def test_limits_of_waits() -> None:
    with SimulatedExecutor(3) as pool:
        future = pool.submit(sleep, HOUR)
        with pytest.raises(TimeoutError):
            future.result(timeout=10)
        assert poolkit.wait([future], timeout=10).not_done == {future}
        assert concurrent.futures.wait([future], timeout=10).not_done == {future}
        with pytest.raises(TimeoutError):
            next(poolkit.as_completed([future], timeout=10))
        assert pool.elapsed == 40
        with pytest.raises(TimeoutError):
            list(map_ordered(pool, sleep, [5, 50], timeout=10))
        assert pool.elapsed == 50
        assert future.result(timeout=2 * HOUR) is None
        assert round(pool.elapsed, 6) == HOUR


def test_pauses_between_attempts() -> None:
    calls: list[float] = []

    def flaky() -> int:
        calls.append(pool.elapsed)
        if len(calls) < 4:
            raise OSError
        return current_task().attempt

    retry = Retry(attempts=4, wait=HOUR, max_wait=9 * HOUR, jitter=False)
    with SimulatedExecutor(3, retry=retry) as pool:
        assert pool.submit(flaky).result() == 4
    assert calls == [0, HOUR, 3 * HOUR, 7 * HOUR]


def test_durations() -> None:
    def seconds(task: PendingTask) -> float:
        return float(task.args[0])

    def identity(number: int) -> int:
        return number

    with SimulatedExecutor(1, durations=seconds) as pool:
        assert list(map_unordered(pool, identity, [4, 1, 3], chunksize=1)) == [1, 3, 4]
        assert pool.elapsed == 4
        outcomes = list(map_outcomes(pool, identity, [2, 3]))
        assert [outcome.run_s for outcome in outcomes] == [2, 3]
    drawn: list[tuple[float, ...]] = []
    for seed in (1, 1, 2):
        with SimulatedExecutor(seed, durations=(1, 2)) as pool:
            outcomes = list(map_outcomes(pool, identity, range(5), ordered=True))
            drawn.append(tuple(outcome.run_s for outcome in outcomes))
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(1 <= each <= 2 for each in drawn[0])


# -- locks and waits -----------------------------------------------------------------------


def test_events_queues_and_conditions_take_turns_and_follow_the_time() -> None:
    with SimulatedExecutor(4) as pool:
        event, box = threading.Event(), queue.Queue[int]()
        waiter, setter = pool.submit(event.wait, HOUR), pool.submit(event.set)
        assert waiter.result() is True
        assert setter.result() is None
        assert pool.elapsed == 0
        getter = pool.submit(box.get, True, HOUR)
        assert isinstance(getter.exception(), queue.Empty)
        assert round(pool.elapsed, 6) == HOUR
        getter = pool.submit(box.get)
        pool.submit(box.put, 7)
        assert getter.result() == 7
        barrier = threading.Barrier(3)
        assert sorted(f.result() for f in [pool.submit(barrier.wait) for _ in range(3)]) == [
            0,
            1,
            2,
        ]
        semaphore = threading.Semaphore(0)
        assert pool.submit(semaphore.acquire, timeout=5).result() is False
        assert round(pool.elapsed, 6) == HOUR + 5


def test_the_standard_librarys_waits() -> None:
    with SimulatedExecutor(4) as pool:
        futures = [pool.submit(pow, n, 2) for n in range(5)]
        found = {future.result() for future in concurrent.futures.as_completed(futures)}
        assert found == {0, 1, 4, 9, 16}
        assert list(pool.map(pow, [2, 3], [3, 2])) == [8, 9]


def test_nested_waits_on_one_worker() -> None:
    for seed in range(10):
        with SimulatedExecutor(seed, 1) as pool:

            def parent(depth: int) -> int:
                return depth if depth == 0 else 1 + pool.submit(parent, depth - 1).result()

            def fan(number: int) -> int:
                futures = [pool.submit(pow, number, n) for n in range(3)]
                return sum(future.result() for future in poolkit.as_completed(futures))

            assert pool.submit(parent, 6).result() == 6
            assert list(map_ordered(pool, fan, [2, 3])) == [7, 13]


def test_waits_in_a_cycle() -> None:
    futures: list[Any] = []
    with SimulatedExecutor(1, 2) as pool:
        futures += [pool.submit(lambda n: futures[1 - n].result(), number) for number in (0, 1)]
        errors = [future.exception() for future in futures]
        assert any(isinstance(error, DeadlockError) for error in errors)


def test_if_nobody_can_go_on_the_test_is_told_who_waits_where() -> None:
    with pytest.raises(WouldBlockError, match="Nobody can go on") as caught:
        with SimulatedExecutor(1) as pool:
            lock = threading.Lock()
            lock.acquire()
            future = pool.submit(lock.acquire)
            future.result()
    assert "test_simulated.py" in str(caught.value)
    assert "SimulatedExecutor(1)" in caught.value.__notes__[0]
    assert isinstance(future.exception(), TaskAbortedError)


def test_other_threads_take_no_part() -> None:
    with SimulatedExecutor(1) as pool:
        results: list[int] = []
        thread = threading.Thread(target=lambda: results.append(pool.submit(pow, 2, 5).result()))
        thread.start()
        done = threading.Event()

        def tell() -> None:
            thread.join()
            done.set()

        threading.Thread(target=tell, daemon=True).start()
        pool.submit(done.wait).result()
        assert results == [32]


def test_two_executors_in_one_simulation() -> None:
    with SimulatedExecutor(1, 1) as outer, SimulatedExecutor(99, 1) as inner:

        def task() -> float:
            inner.submit(sleep, 5).result()
            return outer.elapsed

        assert outer.submit(task).result() == 5
        assert inner.elapsed == 5
        assert inner.schedule is not None


# -- endings -------------------------------------------------------------------------------


def test_an_error_in_the_block_ends_the_tasks() -> None:
    cleaned: list[str] = []

    def task() -> None:
        try:
            sleep(HOUR)
        finally:
            cleaned.append("up")

    with pytest.raises(ZeroDivisionError) as caught, SimulatedExecutor(6) as pool:
        future = pool.submit(task)
        sleep(1)
        raise ZeroDivisionError
    assert cleaned == ["up"]
    assert future.done()
    assert any("SimulatedExecutor(6)" in note for note in caught.value.__notes__)


def test_a_failing_task_is_its_futures_business() -> None:
    with SimulatedExecutor(6) as pool:
        future = pool.submit(int, "x")
        assert isinstance(future.exception(), ValueError)
        with pytest.raises(ExceptionGroup), TaskGroup(pool) as group:
            group.submit(int, "x")
            group.submit(sleep, HOUR)


def test_a_failing_initializer_breaks_the_pool() -> None:
    with SimulatedExecutor(6, initializer=int, initargs=("x",)) as pool:
        futures = [pool.submit(pow, 1, 1) for _ in range(6)]
        assert {type(future.exception()) for future in futures} == {PoolBrokenError}
        with pytest.raises(PoolBrokenError):
            pool.submit(pow, 1, 1)


def test_abort_and_cancel() -> None:
    with SimulatedExecutor(6, 1) as pool:
        running, waiting = pool.submit(sleep, HOUR), pool.submit(sleep, HOUR)
        sleep(5)
        assert running.running()
        assert not waiting.running()
        assert waiting.cancel()
        assert running.abort() == "abandoned"
        assert isinstance(running.exception(), TaskAbortedError)
        assert pool.submit(pow, 2, 2).result() == 4
        assert pool.elapsed == 5
        assert pool.statistics().abandoned == 1


def test_callbacks_may_wait() -> None:
    with SimulatedExecutor(6, 1) as pool:
        results: list[int] = []
        future = pool.submit(pow, 2, 3)
        future.add_done_callback(lambda f: results.append(pool.submit(pow, f.result(), 2).result()))
        sleep(1)
        assert results == [64]


def test_bad_arguments() -> None:
    anything: Any = SimulatedExecutor
    for options, error in (
        ({"seed": 1.5}, TypeError),
        ({"seed": None}, TypeError),
        ({"seed": "first"}, ValueError),
        ({"seed": "3:1 2:1"}, ValueError),
        ({"max_workers": 0}, ValueError),
        ({"durations": 3}, TypeError),
        ({"durations": (3, 1)}, ValueError),
        ({"durations": (1, 2, 3)}, ValueError),
        ({"preempt": "words"}, ValueError),
        ({"task_timeout": 0}, ValueError),
        ({"observers": 3}, TypeError),
        ({"initargs": 3}, TypeError),
    ):
        with pytest.raises(error):
            anything(**options)
    with pytest.raises(TypeError, match="ints of at least 0"):
        Schedule([-1])


def test_random_programs_end() -> None:
    """Tasks that do whatever tasks do, in no order that anybody thought of."""
    for seed in range(60):
        draw = random.Random(seed)
        with SimulatedExecutor(seed, draw.randint(1, 4)) as pool:
            lock, results = threading.Lock(), list[int]()

            def task(depth: int, number: int) -> int:
                draw = random.Random(number)
                for _ in range(draw.randint(0, 3)):
                    if draw.random() < 0.3:
                        sleep(draw.random())
                    if draw.random() < 0.3:
                        checkpoint()
                    if draw.random() < 0.3:
                        with lock:
                            checkpoint()
                            results.append(number)
                if depth and draw.random() < 0.7:
                    futures = [pool.submit(task, depth - 1, number * 3 + n) for n in range(3)]
                    return sum(future.result() for future in futures)
                return 1

            total = sum(map_unordered(pool, lambda n: task(2, n), range(1, 6)))
            assert total >= 5
