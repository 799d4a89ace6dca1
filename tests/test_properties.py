"""The verbs against the built-in `map`: any input, chunk size, bound, order and kind."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolkit import (
    PoolExecutor,
    Retry,
    make_executor,
    map_batches,
    map_ordered,
    map_outcomes,
    map_unordered,
)

from . import tasks

T = TypeVar("T")

kinds = pytest.mark.parametrize("kind", ["inline", "thread", "process"])
thorough = settings(deadline=None, max_examples=100)

numbers = st.lists(st.integers(-50, 50), max_size=60)
chunksizes = st.one_of(st.just("auto"), st.integers(1, 80))
bounds = st.one_of(st.none(), st.integers(1, 50))
hints = st.one_of(st.none(), st.integers(0, 80))  # a length hint may be wrong


@pytest.fixture(scope="module")
def pools() -> Iterator[dict[str, PoolExecutor]]:
    """One pool of each kind for all examples."""
    with (
        make_executor("inline") as inline,
        make_executor("thread", 3) as thread,
        make_executor("process", 2) as process,
        make_executor("thread", 1) as one_thread,
        make_executor("process", 1) as one_process,
    ):
        pools = {"inline": inline, "thread": thread, "process": process}
        yield {**pools, "one thread": one_thread, "one process": one_process}


class Input:
    """An input that counts what was pulled from it, may guess its length, and may break off."""

    def __init__(self, items: list[int], *, hint: int | None = None, broken: bool = False) -> None:
        self.pulled = 0
        self._items = items
        self._hint = hint
        self._broken = broken

    def __iter__(self) -> Iterator[int]:
        for item in self._items:
            self.pulled += 1
            yield item
        if self._broken:
            raise LookupError("broken off")

    def __length_hint__(self) -> int:
        if self._hint is None:
            raise TypeError  # no idea
        return self._hint


def consume(
    source: Input, results: Iterator[T], bound: int | None
) -> tuple[list[T], Exception | None]:
    """Return what an iterator yields and what it raises, and check the bound at each step."""
    seen: list[T] = []
    ending: Exception | None = None
    limit = 10_000 if bound is None else bound
    assert source.pulled <= limit
    try:
        for result in results:
            seen.append(result)
            assert source.pulled - len(seen) <= limit
    except (ValueError, LookupError) as error:
        ending = error
    assert next(results, None) is None, "an iterator that has ended stays so"
    return seen, ending


def builtin(items: list[int], fn: Any) -> tuple[list[Any], Exception | None]:
    """Return what the built-in `map` yields and what it raises."""
    seen: list[Any] = []
    try:
        for result in map(fn, items):
            seen.append(result)
    except ValueError as error:
        return seen, error
    return seen, None


def same_error(one: BaseException | None, other: BaseException | None) -> bool:
    return (type(one), one and one.args) == (type(other), other and other.args)


@kinds
@thorough
@given(
    items=numbers,
    chunksize=chunksizes,
    max_pending=bounds,
    ordered=st.booleans(),
    hint=hints,
)
def test_same_results_as_the_builtin_map(
    pools: dict[str, PoolExecutor],
    kind: str,
    items: list[int],
    chunksize: Any,
    max_pending: int | None,
    ordered: bool,
    hint: int | None,
) -> None:
    source = Input(items, hint=hint)
    verb = map_ordered if ordered else map_unordered
    results = verb(pools[kind], tasks.square, source, chunksize=chunksize, max_pending=max_pending)
    seen, ending = consume(source, results, max_pending)
    expected = list(map(tasks.square, items))
    assert ending is None
    assert seen == expected if ordered else Counter(seen) == Counter(expected)
    assert source.pulled == len(items)


@kinds
@thorough
@given(items=numbers, chunksize=chunksizes, max_pending=bounds, hint=hints)
def test_same_first_failure_as_the_builtin_map(
    pools: dict[str, PoolExecutor],
    kind: str,
    items: list[int],
    chunksize: Any,
    max_pending: int | None,
    hint: int | None,
) -> None:
    fn = tasks.fail_on_multiples_of_three
    source = Input(items, hint=hint)
    results = map_ordered(pools[kind], fn, source, chunksize=chunksize, max_pending=max_pending)
    seen, ending = consume(source, results, max_pending)
    expected, error = builtin(items, fn)
    assert seen == expected
    assert same_error(ending, error)


@kinds
@thorough
@given(items=numbers, chunksize=chunksizes, max_pending=bounds)
def test_unordered_yields_some_and_raises_one_of_the_failures(
    pools: dict[str, PoolExecutor],
    kind: str,
    items: list[int],
    chunksize: Any,
    max_pending: int | None,
) -> None:
    source = Input(items)
    results = map_unordered(
        pools[kind],
        tasks.fail_on_multiples_of_three,
        source,
        chunksize=chunksize,
        max_pending=max_pending,
    )
    seen, ending = consume(source, results, max_pending)
    good = Counter(item for item in items if item % 3)
    bad = [item for item in items if item % 3 == 0]
    if bad:
        assert isinstance(ending, ValueError)
        assert ending.args[0] in bad
        assert Counter(seen) <= good
    else:
        assert ending is None
        assert Counter(seen) == good


@kinds
@thorough
@given(
    items=numbers,
    chunksize=chunksizes,
    max_pending=bounds,
    ordered=st.booleans(),
    broken=st.booleans(),
)
def test_each_item_has_one_outcome(
    pools: dict[str, PoolExecutor],
    kind: str,
    items: list[int],
    chunksize: Any,
    max_pending: int | None,
    ordered: bool,
    broken: bool,
) -> None:
    source = Input(items, broken=broken)
    results = map_outcomes(
        pools[kind],
        tasks.fail_on_multiples_of_three,
        source,
        ordered=ordered,
        chunksize=chunksize,
        max_pending=max_pending,
    )
    outcomes, ending = consume(source, results, max_pending)
    # What the input raises comes after the outcomes of all that it gave.
    assert isinstance(ending, LookupError) if broken else ending is None
    if not ordered:
        outcomes.sort(key=lambda outcome: outcome.index)
    assert [outcome.index for outcome in outcomes] == list(range(len(items)))
    for outcome, item in zip(outcomes, items, strict=True):
        assert outcome.args == (item,)
        if item % 3:
            assert outcome.ok
            assert outcome.unwrap() == item
        else:
            assert not outcome.ok
            assert outcome.value is None
            assert same_error(outcome.error, ValueError(item))


@kinds
@settings(deadline=None, max_examples=40)
@given(
    columns=st.lists(numbers, min_size=1, max_size=3),
    chunksize=chunksizes,
    max_pending=bounds,
    strict=st.booleans(),
)
def test_several_iterables_go_side_by_side(
    pools: dict[str, PoolExecutor],
    kind: str,
    columns: list[list[int]],
    chunksize: Any,
    max_pending: int | None,
    strict: bool,
) -> None:
    results = map_ordered(
        pools[kind],
        max_of,
        *columns,
        chunksize=chunksize,
        max_pending=max_pending,
        strict=strict,
    )
    expected = list(map(max_of, *columns))
    if strict and len({len(column) for column in columns}) > 1:
        seen = []
        with pytest.raises(ValueError, match=r"shorter|longer"):
            for result in results:
                seen.append(result)
        assert seen == expected
    else:
        assert list(results) == expected


def max_of(*values: int) -> int:
    return max(values)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders that nothing is in yet."""
    root = tmp_path_factory.mktemp("gates")
    return (root / str(number) for number in itertools.count())


# What waits for a worker: chunks of the items of a map, and, of None, tasks submitted one by one.
values = st.one_of(st.integers(-50, 50), st.fractions())  # sent as they are, and pickled
waiting = st.lists(
    st.tuples(
        st.sampled_from([tasks.square, repr]),
        st.lists(values, min_size=1, max_size=6),
        st.one_of(st.none(), st.integers(1, 6)),
    ),
    max_size=8,
)


@pytest.mark.parametrize("kind", ["thread", "process"])
@thorough
@given(work=waiting)
def test_what_waits_for_one_worker_stays_apart(
    pools: dict[str, PoolExecutor],
    folders: Iterator[Path],
    kind: str,
    work: list[tuple[Any, list[Any], int | None]],
) -> None:
    pool = pools[f"one {kind}"]
    keeper = tasks.GateKeeper(tasks.Gate.make(next(folders)))
    try:
        held = pool.submit(keeper.gate.hold)
        keeper.wait_started()
        under_way: list[Any] = []
        for fn, items, chunksize in work:
            if chunksize is None:
                under_way.append([pool.submit(fn, item) for item in items])
            else:
                under_way.append(map_ordered(pool, fn, items, chunksize=chunksize))
        keeper.open()
        held.result()
        for (fn, items, chunksize), found in zip(work, under_way, strict=True):
            seen = [future.result() for future in found] if chunksize is None else list(found)
            assert seen == list(map(fn, items))
    finally:
        keeper.close()


@kinds
@settings(deadline=None, max_examples=40)
@given(items=numbers, size=st.integers(1, 70), max_pending=bounds, ordered=st.booleans())
def test_batches_hold_each_item_once(
    pools: dict[str, PoolExecutor],
    kind: str,
    items: list[int],
    size: int,
    max_pending: int | None,
    ordered: bool,
) -> None:
    results = list(
        map_batches(pools[kind], list, items, size, ordered=ordered, max_pending=max_pending)
    )
    expected = [items[start : start + size] for start in range(0, len(items), size)]
    if not ordered:
        results.sort()
        expected.sort()
    assert results == expected


@kinds
@settings(deadline=None, max_examples=40)
@given(items=numbers, chunksize=chunksizes, buffersize=st.one_of(st.none(), st.integers(1, 20)))
def test_the_method_gives_what_the_builtin_gives(
    pools: dict[str, PoolExecutor],
    kind: str,
    items: list[int],
    chunksize: Any,
    buffersize: int | None,
) -> None:
    fn = tasks.fail_on_multiples_of_three
    source = Input(items)
    results = pools[kind].map(fn, source, chunksize=chunksize, buffersize=buffersize)
    seen, ending = consume(source, results, buffersize)
    expected, error = builtin(items, fn)
    assert seen == expected
    assert same_error(ending, error)


@settings(deadline=None, max_examples=30)
@given(
    items=numbers,
    leave_after=st.integers(0, 20),
    chunksize=chunksizes,
    max_pending=st.integers(1, 50),
)
def test_leaving_early_runs_no_more_than_was_pulled(
    pools: dict[str, PoolExecutor],
    items: list[int],
    leave_after: int,
    chunksize: Any,
    max_pending: int,
) -> None:
    source = Input(items)
    with make_executor("thread", 2) as pool:
        results = map_unordered(
            pool, tasks.square, source, chunksize=chunksize, max_pending=max_pending
        )
        with results:
            seen = [result for result, _ in zip(results, range(leave_after), strict=False)]
        assert list(results) == []
    assert not Counter(seen) - Counter(map(tasks.square, items))
    assert source.pulled <= len(seen) + 1 + max_pending


# -- failures, attempts, durations ----------------------------------------------------------

plans = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.0, 0.0, 0.0005, 0.004])), max_size=30
)


class Plan:
    """What each item does: fail so often, after so many seconds; tells how often it was called.

    Counts are kept in files, so that they hold in any process.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0

    def begin(self) -> Path:
        self.number += 1
        folder = self.folder / str(self.number)
        folder.mkdir()
        return folder


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return Plan(tmp_path_factory.mktemp("plans"))


def calls(folder: Path) -> Counter[int]:
    return Counter(int(path.name.split("-")[0]) for path in folder.iterdir())


@kinds
@settings(deadline=None, max_examples=40)
@given(
    items=plans,
    attempts=st.integers(1, 4),
    chunksize=st.one_of(st.just("auto"), st.integers(1, 12)),
    max_pending=st.one_of(st.none(), st.integers(1, 20)),
    ordered=st.booleans(),
)
def test_every_item_is_tried_as_often_as_it_should_be(
    pools: dict[str, PoolExecutor],
    kind: str,
    plan: Plan,
    items: list[tuple[int, float]],
    attempts: int,
    chunksize: Any,
    max_pending: int | None,
    ordered: bool,
) -> None:
    folder = plan.begin()
    source = Input(list(range(len(items))))
    outcomes = map_outcomes(
        pools[kind],
        tasks.fail_so_often,
        itertools.repeat(folder),
        [failures for failures, _ in items],
        [seconds for _, seconds in items],
        source,
        chunksize=chunksize,
        max_pending=max_pending,
        ordered=ordered,
        retry=Retry(attempts, on=ConnectionError, wait=0),
    )
    seen = []
    for outcome in outcomes:
        seen.append(outcome)
        assert source.pulled - len(seen) <= (10_000 if max_pending is None else max_pending)
    if ordered:
        assert [outcome.index for outcome in seen] == list(range(len(items)))
    expected = {}
    for outcome in seen:
        failures = items[outcome.index][0]
        expected[outcome.index] = min(failures + 1, attempts)
        assert outcome.ok == (failures < attempts)
        assert outcome.attempts == expected[outcome.index]
        if not outcome.ok:
            (note,) = outcome.error.__notes__  # type: ignore[union-attr]
            assert f"item {outcome.index}, attempt {attempts}" in note
    assert len(seen) == len(items)
    assert calls(folder) == expected


@kinds
@thorough
@given(
    items=numbers,
    chunksize=chunksizes,
    max_pending=bounds,
    ordered=st.booleans(),
    most=st.one_of(st.just("skip"), st.integers(0, 20)),
)
def test_failures_are_tolerated_up_to_a_number(
    pools: dict[str, PoolExecutor],
    kind: str,
    items: list[int],
    chunksize: Any,
    max_pending: int | None,
    ordered: bool,
    most: Any,
) -> None:
    verb = map_ordered if ordered else map_unordered
    results = verb(
        pools[kind],
        tasks.fail_on_multiples_of_three,
        items,
        chunksize=chunksize,
        max_pending=max_pending,
        on_error=most,
    )
    good = [item for item in items if item % 3]
    failures = len(items) - len(good)
    seen: list[int] = []
    if most == "skip" or failures <= most:
        seen += results
        assert seen == good if ordered else Counter(seen) == Counter(good)
        return
    with pytest.raises(ExceptionGroup) as caught:
        for result in results:
            seen.append(result)
    assert Counter(seen) <= Counter(good)
    assert most < len(caught.value.exceptions) <= failures
    assert next(results, None) is None
