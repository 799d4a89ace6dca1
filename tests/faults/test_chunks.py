"""Chunks are units of transport, never of failure."""

import itertools
import threading
from pathlib import Path
from typing import Any

import pytest

from poolkit import (
    TaskSerializationError,
    TaskTimeoutError,
    WorkerCrashedError,
    map_ordered,
    map_outcomes,
    map_unordered,
)

from ..tasks import GateKeeper, fail_on_multiples_of_three, square
from . import cargo, tasks
from .helpers import Innocents, MakePool, counted, crash_of

pytestmark = pytest.mark.timeout(60)

ITEMS = 120
FATAL = (
    29  # 0, 29, 58, 87 and 116 are fatal: the first of a chunk of ten, others, and none its last
)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("at_most_once", [False, True])
@pytest.mark.parametrize("chunksize", [1, 10, "auto"])
def test_a_crash_is_that_of_its_item(
    make_pool: MakePool,
    innocents: Innocents,
    runs: Path,
    chunksize: Any,
    at_most_once: bool,
) -> None:
    pool = make_pool()
    options: dict[str, Any] = {"at_most_once": True} if at_most_once else {}
    with innocents(pool):
        outcomes = list(
            map_outcomes(
                pool,
                tasks.die_at,
                itertools.repeat(runs),
                itertools.repeat(FATAL),
                range(ITEMS),
                chunksize=chunksize,
                ordered=True,
                **options,
            )
        )
    assert [outcome.index for outcome in outcomes] == list(range(ITEMS))
    for number, outcome in enumerate(outcomes):
        if number % FATAL == 0:
            assert isinstance(outcome.error, WorkerCrashedError)
            assert outcome.error.signal_name == "SIGKILL"
            assert str(number) in outcome.error.task
        else:
            assert outcome.unwrap() == number
    times = counted(runs)
    assert set(times) == set(range(ITEMS))
    assert all(times[number] == 1 for number in range(0, ITEMS, FATAL))
    if at_most_once or chunksize == 1:
        assert set(times.values()) == {1}


@pytest.mark.usefixtures("either_way")
def test_the_last_item_of_a_chunk_may_die(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool()
    codes = [(number,) for number in range(20)]
    with innocents(pool):
        arguments = [cargo.DeadlyArgument(code) if code % 5 == 4 else code for (code,) in codes]
        outcomes = list(map_outcomes(pool, cargo.echo, arguments, chunksize=5, ordered=True))
    for number, outcome in enumerate(outcomes):
        if number % 5 == 4:
            assert isinstance(outcome.error, WorkerCrashedError)
            assert outcome.error.exit_code == number
        else:
            assert outcome.unwrap() == number


def test_submitted_tasks_never_run_twice(
    make_pool: MakePool, innocents: Innocents, runs: Path
) -> None:
    pool = make_pool()
    with innocents(pool):
        futures = [pool.submit(tasks.die_at, runs, 25, number) for number in range(100)]
        for number, future in enumerate(futures):
            if number % 25 == 0:
                assert str(number) in crash_of(future).task
            else:
                assert future.result() == number
    assert set(counted(runs).values()) == {1}
    assert len(counted(runs)) == 100


def test_map_ordered_raises_a_crash_in_its_place(
    make_pool: MakePool, innocents: Innocents, runs: Path
) -> None:
    pool = make_pool()
    with innocents(pool):
        numbers = range(1, 50)
        results = map_ordered(
            pool,
            tasks.die_at,
            itertools.repeat(runs),
            itertools.repeat(20),
            numbers,
            chunksize=10,
        )
        assert [next(results) for _ in range(19)] == list(range(1, 20))
        with pytest.raises(WorkerCrashedError, match="20"):
            next(results)


@pytest.mark.usefixtures("either_way")
def test_errors_are_those_of_single_items(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool()
    with innocents(pool):
        outcomes = list(
            map_outcomes(pool, fail_on_multiples_of_three, range(30), chunksize=10, ordered=True)
        )
    for number, outcome in enumerate(outcomes):
        if number % 3 == 0:
            assert isinstance(outcome.error, ValueError)
        else:
            assert outcome.unwrap() == number


@pytest.mark.usefixtures("either_way")
def test_what_cannot_travel_fails_alone(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool()
    bad: dict[int, Any] = {3: threading.Lock(), 14: cargo.BadAt("StopIteration"), 25: "lock"}
    inputs = [bad.get(number, number) for number in range(30)]
    with innocents(pool):
        outcomes = list(map_outcomes(pool, cargo.echo_or_lock, inputs, chunksize=10, ordered=True))
    for number, outcome in enumerate(outcomes):
        if number in bad:
            assert isinstance(outcome.error, TaskSerializationError)
        else:
            assert outcome.unwrap() == number


@pytest.mark.parametrize("hung", [10, 19])
def test_a_hung_item_is_late_alone(make_pool: MakePool, innocents: Innocents, hung: int) -> None:
    pool = make_pool()
    with innocents(pool):
        outcomes = list(
            map_outcomes(
                pool,
                tasks.hang_at,
                itertools.repeat(hung),
                range(40),
                chunksize=10,
                ordered=True,
                task_timeout=0.6,
            )
        )
    for number, outcome in enumerate(outcomes):
        if number == hung:
            assert isinstance(outcome.error, TaskTimeoutError)
            assert outcome.error.limit_s == 0.6
        else:
            assert outcome.unwrap() == number


@pytest.mark.parametrize("ordered", [False, True])
def test_results_do_not_wait_for_a_slow_neighbour(
    make_pool: MakePool, innocents: Innocents, gate: GateKeeper, ordered: bool
) -> None:
    pool = make_pool()
    verb = map_ordered if ordered else map_unordered
    with innocents(pool):
        results = verb(
            pool,
            tasks.hold_at,
            itertools.repeat(gate.gate),
            itertools.repeat(5),
            range(10),
            chunksize=10,
        )
        assert [next(results) for _ in range(5)] == list(range(5))
        gate.wait_started()
        gate.open()
        assert list(results) == list(range(5, 10))


@pytest.mark.usefixtures("either_way")
def test_a_chunk_of_nothing_but_deaths(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool()
    with innocents(pool):
        outcomes = list(map_outcomes(pool, tasks.exit_now, range(12), chunksize=6, ordered=True))
    for number, outcome in enumerate(outcomes):
        assert isinstance(outcome.error, WorkerCrashedError)
        assert outcome.error.exit_code == number
    assert pool.submit(square, 3).result() == 9


def test_no_worker_is_sent_more_than_it_has_flags_for(make_pool: MakePool) -> None:
    pool = make_pool(1)
    assert pool.submit(square, 2).result() == 4
    backend: Any = pool._link.backend
    backend._packer._function(square)[0].mean = 1e-12  # seconds: no number of items is much work
    assert list(pool.map(square, range(60_000), chunksize=4000)) == [n * n for n in range(60_000)]
