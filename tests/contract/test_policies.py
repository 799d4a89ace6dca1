"""What failures mean: ``on_error``, `collect`, notes; on every kind."""

import pickle
from pathlib import Path
from typing import Any

import pytest

import poolkit
from poolkit import PoolExecutor, collect, map_batches, map_ordered, map_outcomes, map_unordered
from poolkit._notes import _MOST as MOST_NOTES

from .. import tasks

VERBS = (map_ordered, map_unordered)
FAILING = {0, 3, 6, 9, 12, 15, 18}


@pytest.mark.parametrize("chunksize", [1, 4, "auto"])
@pytest.mark.parametrize("verb", VERBS)
def test_skip(pool: PoolExecutor, verb: Any, chunksize: Any) -> None:
    results = verb(
        pool, tasks.fail_on_multiples_of_three, range(20), on_error="skip", chunksize=chunksize
    )
    seen = list(results)
    assert sorted(seen) == sorted(set(range(20)) - FAILING)
    if verb is map_ordered:
        assert seen == sorted(seen)


@pytest.mark.parametrize("verb", VERBS)
def test_tolerating_as_many_as_fail(pool: PoolExecutor, verb: Any) -> None:
    results = verb(pool, tasks.fail_on_multiples_of_three, range(20), on_error=len(FAILING))
    assert sorted(results) == sorted(set(range(20)) - FAILING)


@pytest.mark.parametrize("most", [0, 2, len(FAILING) - 1])
@pytest.mark.parametrize("verb", VERBS)
def test_one_failure_more_than_tolerated(pool: PoolExecutor, verb: Any, most: int) -> None:
    seen: list[int] = []
    with pytest.raises(ExceptionGroup, match=f"{most + 1} tasks failed") as caught:
        seen += verb(pool, tasks.fail_on_multiples_of_three, range(20), on_error=most)
    errors = caught.value.exceptions
    assert len(errors) == most + 1
    assert all(isinstance(error, ValueError) for error in errors)
    assert {error.args[0] for error in errors} <= FAILING


def test_batches_have_it_too(pool: PoolExecutor) -> None:
    lists = map_batches(pool, tasks.total_without_three, range(9), size=3, on_error="skip")
    assert list(lists) == [3, 21]


@pytest.mark.parametrize(
    ("policy", "error"),
    [
        ("ignore", ValueError),
        (-1, TypeError),
        (1.5, TypeError),
        (True, TypeError),
        (None, TypeError),
    ],
)
def test_bad_policies(pool: PoolExecutor, policy: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="on_error"):
        map_ordered(pool, tasks.square, [1], on_error=policy)


def test_collect(pool: PoolExecutor) -> None:
    assert collect(map_outcomes(pool, tasks.square, range(20))) == [n * n for n in range(20)]
    assert collect(map_outcomes(pool, tasks.square, [])) == []
    with pytest.raises(ExceptionGroup, match="7 of 20 tasks failed") as caught:
        collect(map_outcomes(pool, tasks.fail_on_multiples_of_three, range(20)))
    assert [error.args for error in caught.value.exceptions] == [(n,) for n in sorted(FAILING)]


@pytest.mark.parametrize("chunksize", [1, 5])
def test_errors_of_verbs_say_which_call_failed(pool: PoolExecutor, chunksize: int) -> None:
    with pytest.raises(ValueError, match="3") as caught:
        list(map_ordered(pool, tasks.fail_on_multiples_of_three, [1, 2, 3], chunksize=chunksize))
    (note,) = caught.value.__notes__
    assert note.startswith("poolkit: fail_on_multiples_of_three(3) (item 2, attempt 1, worker ")


def test_errors_of_futures_say_which_call_failed(pool: PoolExecutor) -> None:
    error = pool.submit(tasks.fail, "x").exception()
    assert error is not None
    (note,) = error.__notes__
    assert note.startswith("poolkit: fail('x') (attempt 1, worker ")
    assert pickle.loads(pickle.dumps(error)).__notes__ == [note]


class Hostile:
    """Its repr fails, or is endless."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __repr__(self) -> str:
        if not self.size:
            raise SystemExit("from a repr")
        return "x" * self.size


@pytest.mark.parametrize(
    "argument",
    [Hostile(0), Hostile(10**6), b"x" * 10**7, "x" * 10**7, list(range(10**5)), 10**5000],
    ids=["raises", "huge", "bytes", "str", "list", "int"],
)
def test_arguments_that_are_hard_to_show(argument: Any) -> None:
    with poolkit.make_executor("thread", 1) as pool:
        error = pool.submit(tasks.fail, argument).exception()
    assert isinstance(error, KeyError)
    assert len(error.__notes__[0]) < 300


def test_one_error_raised_again_and_again_does_not_grow() -> None:
    error = ValueError("always the same")

    def fail(_number: int) -> None:
        raise error

    with poolkit.make_executor("thread", 2) as pool:
        assert list(map_ordered(pool, fail, range(100), on_error="skip")) == []
    assert len(error.__notes__) == MOST_NOTES


class Unnotable(Exception):
    """An error that can't be given a note."""

    def add_note(self, note: str) -> None:
        raise SystemExit(note)


def test_an_error_that_takes_no_note_is_raised_all_the_same() -> None:
    def fail() -> None:
        raise Unnotable("as it is")

    with poolkit.make_executor("thread", 1) as pool:
        assert isinstance(pool.submit(fail).exception(), Unnotable)


def test_stop_iteration_ends_nothing(pool: PoolExecutor) -> None:
    results = map_outcomes(pool, tasks.stop_iteration, range(5), ordered=True)
    errors = [outcome.error for outcome in results]
    assert len(errors) == 5
    assert all(isinstance(error, StopIteration) for error in errors)


def test_returned_errors_and_futures_are_values(pool: PoolExecutor) -> None:
    (value,) = map_ordered(pool, tasks.returned_error, [1], on_error=0)
    assert isinstance(value, ValueError)
    assert not hasattr(value, "__notes__")


def test_large_results(tmp_path: Path) -> None:
    with poolkit.make_executor("process", 2) as pool:
        sizes = [100_000_000, 1, 50_000_000]
        assert [len(data) for data in map_ordered(pool, bytes, sizes)] == sizes
