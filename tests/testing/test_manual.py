"""`ManualExecutor`: what runs, when, and what a wait does."""

import threading
from typing import Any

import pytest

import poolkit
from poolkit import (
    QueueFullError,
    Retry,
    TaskEvent,
    TaskGroup,
    TaskTimeoutError,
    current_task,
    map_ordered,
    map_outcomes,
    map_unordered,
)
from poolkit.testing import ManualExecutor, WouldBlockError, checkpoint, sleep

HOUR = 3600.0


def square(number: int) -> int:
    return number * number


def test_nothing_runs_before_it_is_told_to() -> None:
    with ManualExecutor() as pool:
        futures = [pool.submit(square, n) for n in range(3)]
        assert [str(task) for task in pool.pending] == ["square(0)", "square(1)", "square(2)"]
        assert not any(future.done() for future in futures)
        task = pool.run(1)
        assert (task.fn, task.args, task.future) == (square, (1,), futures[1])
        assert [future.done() for future in futures] == [False, True, False]
        assert pool.run_next().number == 0
        assert pool.run(-1).number == 2
        assert [future.result() for future in futures] == [0, 1, 4]


def test_tasks_run_in_the_thread_that_runs_them() -> None:
    with ManualExecutor() as pool:
        future = pool.submit(threading.get_ident)
        pool.run_next()
        assert future.result() == threading.get_ident()


@pytest.mark.parametrize("place", [3, -2])
def test_a_place_where_nothing_is(place: int) -> None:
    with ManualExecutor() as pool:
        pool.submit(square, 1)
        with pytest.raises(IndexError, match="1 are pending"):
            pool.run(place)
        pool.run_all()
        with pytest.raises(IndexError, match="nothing is pending"):
            pool.run_next()


def test_tasks_of_tasks_are_seen() -> None:
    with ManualExecutor() as pool:

        def parent() -> Any:
            return pool.submit(square, 7)

        future = pool.submit(parent)
        assert [str(task.fn.__name__) for task in pool.run_all()] == ["parent", "square"]
        assert future.result().result() == 49


def test_tasks_without_end() -> None:
    with ManualExecutor() as pool:

        def again() -> None:
            pool.submit(again)

        again()
        with pytest.raises(RuntimeError, match="50 tasks have run"):
            pool.run_all(limit=50)
        assert pool.cancel_all() == 1


def test_run_until() -> None:
    done: list[int] = []
    with ManualExecutor() as pool:
        for number in range(5):
            pool.submit(done.append, number)
        ran = pool.run_until(lambda: len(done) == 2)
        assert ([task.number for task in ran], done) == ([0, 1], [0, 1])
        with pytest.raises(WouldBlockError, match="Nothing is left to run"):
            pool.run_until(lambda: len(done) == 9)
        assert done == [0, 1, 2, 3, 4]


def test_priorities_go_first() -> None:
    with ManualExecutor() as pool:
        pool.submit(square, 1)
        pool.with_options(priority=-1).submit(square, 2)
        pool.with_options(priority=1).submit(square, 3)
        pool.submit(square, 4)
        assert [task.args for task in pool.run_all()] == [(2,), (1,), (4,), (3,)]


# -- waits ---------------------------------------------------------------------------------


def test_a_wait_for_what_nobody_runs_is_an_error() -> None:
    with ManualExecutor() as pool:
        first, second = pool.submit(square, 1), pool.submit(square, 2)
        with pytest.raises(WouldBlockError, match=r"square\(2\) would never end") as caught:
            second.result()
        assert caught.value.tasks == ["square(2)"]
        with pytest.raises(WouldBlockError) as caught:
            poolkit.wait([first, second])
        assert caught.value.tasks == ["square(1)", "square(2)"]
        with pytest.raises(WouldBlockError):
            next(poolkit.as_completed([first]))
        with pytest.raises(WouldBlockError):
            first.exception()
        with pytest.raises(WouldBlockError):
            pool.shutdown()
        pool.run_all()
        assert poolkit.wait([first, second]).not_done == set()


def test_a_wait_inside_of_a_task_is_one_too() -> None:
    with ManualExecutor() as pool:

        def parent() -> int:
            return pool.submit(square, 3).result()

        future = pool.submit(parent)
        pool.run_next()
        assert isinstance(future.exception(), WouldBlockError)
        pool.run_all()


def test_iterating_over_results_that_nobody_makes() -> None:
    with ManualExecutor() as pool:
        with map_unordered(pool, square, range(3)) as results:
            with pytest.raises(WouldBlockError, match=r"square\(0\)"):
                next(results)
        # The error has ended the iterator, as any error does.
        assert pool.pending == ()


def test_leaving_the_block_with_tasks_pending() -> None:
    with pytest.raises(WouldBlockError, match=r"square\(1\)"), ManualExecutor() as pool:
        future = pool.submit(square, 1)
    assert future.cancelled()


def test_an_error_in_the_block_comes_out() -> None:
    with pytest.raises(ZeroDivisionError), ManualExecutor() as pool:
        future = pool.submit(square, 1)
        raise ZeroDivisionError
    assert future.cancelled()


def test_a_limited_wait_takes_virtual_time() -> None:
    with ManualExecutor() as pool:
        future = pool.submit(square, 1)
        with pytest.raises(TimeoutError):
            future.result(timeout=HOUR)
        assert pool.elapsed == HOUR
        assert poolkit.wait([future], timeout=HOUR).not_done == {future}
        with pytest.raises(TimeoutError):
            next(poolkit.as_completed([future], timeout=HOUR))
        assert pool.elapsed == 3 * HOUR
        with pytest.raises(TimeoutError):
            next(map_ordered(pool, square, [5], timeout=HOUR))
        assert pool.elapsed == 4 * HOUR
        pool.cancel_all()


def test_another_thread_waits_until_it_is_run() -> None:
    with ManualExecutor() as pool:
        future = pool.submit(square, 6)
        results: list[int] = []
        thread = threading.Thread(target=lambda: results.append(future.result()))
        thread.start()
        pool.run_all()
        thread.join(30)
        assert results == [36]


def test_room_is_waited_for() -> None:
    with ManualExecutor(max_pending=2) as pool:
        pool.submit(square, 1)
        pool.submit(square, 2)
        with pytest.raises(WouldBlockError):
            pool.submit(square, 3)
        pool.run_next()
        pool.submit(square, 3)
        pool.run_all()
    with ManualExecutor(max_pending=1, when_full="raise") as pool:
        pool.submit(square, 1)
        with pytest.raises(QueueFullError):
            pool.submit(square, 2)
        pool.run_all()


def test_auto_run() -> None:
    with ManualExecutor(auto_run=True, max_pending=2) as pool:
        first, second = pool.submit(square, 1), pool.submit(square, 2)
        assert second.result() == 4
        assert not first.done()  # only what was waited for
        pool.submit(square, 3)
        pool.submit(square, 4)  # needs room
        assert first.done()
        assert list(map_ordered(pool, square, range(100))) == [n * n for n in range(100)]
        assert sorted(map_unordered(pool, square, range(9), chunksize=4)) == [
            n * n for n in range(9)
        ]

        def parent(depth: int) -> int:
            return depth if depth == 0 else 1 + pool.submit(parent, depth - 1).result()

        assert pool.submit(parent, 5).result() == 5
        with TaskGroup(pool) as group:
            inner = group.submit(square, 5)
        assert inner.result() == 25


# -- time ----------------------------------------------------------------------------------


def attempts(pool: ManualExecutor) -> list[int]:
    return [task.attempt for task in pool.pending]


def test_hours_of_pauses_between_attempts() -> None:
    calls: list[float] = []

    def flaky() -> int:
        calls.append(pool.elapsed)
        if len(calls) < 3:
            raise OSError
        return current_task().attempt

    with ManualExecutor(retry=Retry(wait=HOUR, max_wait=9 * HOUR, jitter=False)) as pool:
        future = pool.submit(flaky)
        pool.run_next()
        assert attempts(pool) == []
        pool.advance(HOUR - 1)
        assert attempts(pool) == []
        pool.advance(1)
        assert attempts(pool) == [2]
        pool.run_all()  # and lets time pass
        assert future.result() == 3
        assert calls == [0, HOUR, 3 * HOUR]


def test_attempts_that_wait_can_be_cancelled() -> None:
    with ManualExecutor(retry=Retry(wait=HOUR)) as pool:
        future = pool.submit(int, "x")
        lone = pool.submit(open, "/nonexistent")
        pool.run(1)
        assert pool.cancel_all() == 2
        assert future.cancelled()
        assert lone.cancelled()


def test_a_task_that_overruns_its_limit() -> None:
    with ManualExecutor(task_timeout=10) as pool:
        late, early = pool.submit(sleep, 11), pool.submit(sleep, 9)
        pool.run_all()
        assert isinstance(late.exception(), TaskTimeoutError)
        assert early.result() is None
        assert pool.elapsed == 20


def test_what_a_task_can_ask_follows_virtual_time() -> None:
    seen: list[Any] = []

    def task() -> None:
        me = current_task()
        seen.append(me.wait(4))
        me.check()
        seen.append(me.wait(4))
        checkpoint()
        seen.append(me.wait(4))  # no longer than its deadline
        me.check()

    with ManualExecutor(task_timeout=10) as pool:
        future = pool.submit(task)
        pool.run_all()
        assert isinstance(future.exception(), TaskTimeoutError)
    assert seen == [False, False, True]
    assert pool.elapsed == 10


def test_outcomes_and_events_tell_virtual_times() -> None:
    events: list[TaskEvent] = []
    with ManualExecutor(auto_run=True, observers=[events.append]) as pool:
        pool.advance(5)
        outcomes = list(map_outcomes(pool, sleep, [1, 2]))
    assert [outcome.run_s for outcome in outcomes] == [1, 2]
    assert [outcome.queued_s for outcome in outcomes] == [0, 1]
    starts = [event.time for event in events if event.what == "started"]
    assert starts[1] - starts[0] == 1


def test_an_initializer_runs_once_and_breaks_the_pool_if_it_fails() -> None:
    calls: list[int] = []
    with ManualExecutor(initializer=calls.append, initargs=(1,)) as pool:
        pool.submit(square, 1)
        pool.submit(square, 2)
        assert calls == []
        pool.run_all()
        assert calls == [1]


def test_bad_arguments() -> None:
    anything: Any = ManualExecutor
    for options, error in (
        ({"max_workers": 0}, ValueError),
        ({"max_workers": "many"}, TypeError),
        ({"retry": 3}, TypeError),
        ({"task_timeout": -1}, ValueError),
        ({"initargs": 1}, TypeError),
        ({"observers": 1}, TypeError),
        ({"speed": 1}, TypeError),
    ):
        with pytest.raises(error):
            anything(**options)
    pool: Any = ManualExecutor()
    with pytest.raises(ValueError, match="seconds"):
        pool.advance(-1)
    with pytest.raises(TypeError, match="seconds"):
        pool.advance(None)
    with pytest.raises(TypeError, match="predicate"):
        pool.run_until(True)
    pool.shutdown()
    with pytest.raises(ValueError, match="seconds"):
        sleep(-1)
    with pytest.raises(TypeError, match="seconds"):
        sleep(None)  # type: ignore[arg-type]


def test_sleep_and_checkpoint_elsewhere() -> None:
    """On real pools they are a real sleep, and nothing."""
    with poolkit.make_executor("thread", 1) as pool:
        assert pool.submit(sleep, 0).result() is None
        assert pool.submit(checkpoint).result() is None
