"""What every verb promises, on every kind."""

import gc
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import poolkit
from poolkit import PoolExecutor, map_batches, map_ordered, map_outcomes, map_unordered

from .. import tasks
from ..tasks import GateKeeper
from .conftest import Make

VERBS = (map_ordered, map_unordered)


class Numbers:
    """An endless input that counts what was pulled from it."""

    def __init__(self) -> None:
        self.pulled = 0

    def __iter__(self) -> Iterator[int]:
        for n in itertools.count():
            self.pulled += 1
            yield n


def test_same_results_as_the_builtin_map(pool: PoolExecutor) -> None:
    assert list(map_ordered(pool, tasks.square, range(300))) == [n * n for n in range(300)]
    assert sorted(map_unordered(pool, tasks.square, range(300))) == [n * n for n in range(300)]
    assert list(map_ordered(pool, tasks.add, range(5), range(3))) == [0, 2, 4]
    assert list(map_ordered(pool, tasks.square, [])) == []
    outcomes = list(map_outcomes(pool, tasks.square, range(20), ordered=True))
    assert [outcome.unwrap() for outcome in outcomes] == [n * n for n in range(20)]
    assert [outcome.index for outcome in outcomes] == list(range(20))
    assert [outcome.args for outcome in outcomes] == [(n,) for n in range(20)]
    assert all(outcome.ok and outcome.worker and outcome.run_s >= 0 for outcome in outcomes)


@pytest.mark.parametrize("chunksize", [1, 3, 1000, "auto"])
@pytest.mark.parametrize("verb", VERBS)
def test_infinite_inputs_are_pulled_as_needed(
    pool: PoolExecutor, verb: Callable[..., Any], chunksize: Any
) -> None:
    numbers = Numbers()
    with verb(pool, tasks.square, numbers, max_pending=100, chunksize=chunksize) as results:
        assert numbers.pulled <= 100
        for yielded, _ in enumerate(itertools.islice(results, 1000), 1):
            assert numbers.pulled - yielded <= 100
        assert numbers.pulled <= 1100


def test_the_default_bound_is_finite(pool: PoolExecutor) -> None:
    numbers = Numbers()
    with map_unordered(pool, tasks.square, numbers) as results:
        for _ in itertools.islice(results, 3000):
            pass
    assert numbers.pulled < 20_000


def test_outcomes_hold_failures(pool: PoolExecutor) -> None:
    outcomes = list(map_outcomes(pool, tasks.fail_on_multiples_of_three, range(10), chunksize=4))
    assert len(outcomes) == 10
    failed = sorted(outcome.index for outcome in outcomes if not outcome.ok)
    assert failed == [0, 3, 6, 9]
    for outcome in outcomes:
        if not outcome.ok:
            assert type(outcome.error) is ValueError
            with pytest.raises(ValueError, match=str(outcome.index)):
                outcome.unwrap()


def test_ordered_raises_the_first_failure_in_its_place(pool: PoolExecutor) -> None:
    results = map_ordered(pool, tasks.fail_on_multiples_of_three, itertools.count(1))
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ValueError, match="3"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_unordered_raises_a_failure(pool: PoolExecutor) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        list(map_unordered(pool, tasks.fail_on_multiples_of_three, range(1000)))
    assert pool.submit(tasks.square, 2).result() == 4


def test_stop_iteration_of_a_task_does_not_end_the_iteration(pool: PoolExecutor) -> None:
    outcomes = list(map_outcomes(pool, tasks.stop_iteration, range(5)))
    assert all(isinstance(outcome.error, StopIteration) for outcome in outcomes)
    assert len(outcomes) == 5


@pytest.mark.parametrize("verb", VERBS)
def test_an_input_that_raises_midway_loses_nothing(
    pool: PoolExecutor, verb: Callable[..., Any]
) -> None:
    def numbers() -> Iterator[int]:
        yield from range(7)
        raise LookupError("the cursor is gone")

    seen = []
    with pytest.raises(LookupError, match="cursor"):
        for result in verb(pool, tasks.square, numbers()):
            seen.append(result)
    assert sorted(seen) == [n * n for n in range(7)]


def test_strict_refuses_different_lengths(pool: PoolExecutor) -> None:
    results = map_ordered(pool, tasks.add, [1, 2], [3], strict=True)
    with pytest.raises(ValueError, match="shorter"):
        list(results)


def test_batches_are_lists(pool: PoolExecutor) -> None:
    assert list(map_batches(pool, tasks.total, range(10), 4)) == [6, 22, 17]
    assert list(map_batches(pool, tasks.total, iter(range(10)), size=4)) == [6, 22, 17]
    assert sorted(map_batches(pool, tasks.total, range(10), 4, ordered=False)) == [6, 17, 22]


def test_the_waiting_limit_is_a_plain_timeout(
    concurrent_pool: PoolExecutor, gate: GateKeeper
) -> None:
    results = map_ordered(concurrent_pool, gate.gate.hold, [1], timeout=0)
    with pytest.raises(TimeoutError, match="timeout=0") as caught:
        next(results)
    assert not isinstance(caught.value, poolkit.PoolkitError)
    gate.open()


@pytest.mark.parametrize("way", ["close", "with", "drop"])
def test_leaving_early_cancels_what_has_not_started(
    concurrent_pool: PoolExecutor, gate: GateKeeper, way: str
) -> None:
    results = map_unordered(
        concurrent_pool, gate.gate.hold, itertools.count(), max_pending=60, chunksize=1
    )
    gate.wait_started(2)
    if way == "close":
        results.close()
    elif way == "with":
        with results:
            pass
    else:
        with pytest.warns(RuntimeWarning, match="never iterated"):
            del results
            gc.collect()
    # Nothing here has waited for the two that run.
    gate.open()
    concurrent_pool.shutdown()


def test_a_broken_off_loop_leaves_the_pool_usable(pool: PoolExecutor) -> None:
    for result in map_unordered(pool, tasks.square, itertools.count()):
        if result > 100:
            break
    assert pool.submit(tasks.square, 3).result() == 9


def test_shut_down_pool_is_refused_at_the_call(make: Make) -> None:
    pool = make()
    pool.shutdown()
    for verb in VERBS:
        if pool.capabilities.runs_in_caller:
            with pytest.raises(poolkit.PoolShutdownError):
                next(verb(pool, tasks.square, [1]))
        else:
            with pytest.raises(poolkit.PoolShutdownError):
                verb(pool, tasks.square, [1])
    with pytest.raises(poolkit.PoolShutdownError):
        list(pool.map(tasks.square, [1]))


def test_shutdown_midway_yields_what_was_dispatched(make: Make) -> None:
    pool = make()
    results = map_ordered(pool, tasks.square, itertools.count(), max_pending=10)
    seen = [next(results)]
    pool.shutdown(wait=False)
    with pytest.raises(poolkit.PoolShutdownError):
        seen.extend(results)
    assert seen == [n * n for n in range(len(seen))]


def test_two_verbs_share_a_pool(pool: PoolExecutor) -> None:
    first = map_ordered(pool, tasks.square, range(50))
    second = map_ordered(pool, tasks.add, range(50))
    for n in range(50):
        assert next(first) == n * n
        assert next(second) == n


def test_consumed_in_another_thread(pool: PoolExecutor) -> None:
    results = map_ordered(pool, tasks.square, range(100))
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.extend(results))
    thread.start()
    thread.join()
    assert seen == [n * n for n in range(100)]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"chunksize": 0}, ValueError),
        ({"chunksize": "big"}, TypeError),
        ({"chunksize": 1.5}, TypeError),
        ({"max_pending": 0}, ValueError),
        ({"max_pending": True}, TypeError),
        ({"task_timeout": 0}, ValueError),
        ({"task_timeout": float("nan")}, ValueError),
        ({"task_timeout": "1"}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"progress": 7}, TypeError),
    ],
)
def test_wrong_options_are_refused_at_the_call(
    pool: PoolExecutor, options: dict[str, Any], error: type[Exception]
) -> None:
    numbers = Numbers()
    with pytest.raises(error, match=next(iter(options))):
        map_ordered(pool, tasks.square, numbers, **options)
    assert numbers.pulled == 0


def test_wrong_arguments_are_refused_at_the_call(pool: PoolExecutor) -> None:
    with pytest.raises(TypeError, match="at least one iterable"):
        map_ordered(pool, tasks.square)
    with pytest.raises(TypeError, match="iterables"):
        map_unordered(pool, tasks.square, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callable"):
        map_ordered(pool, None, [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no_such"):
        map_ordered(pool, tasks.square, [1], no_such=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="an executor or a kind's name"):
        map_ordered(None, tasks.square, [1])  # type: ignore[arg-type]
