"""What failures mean to the verbs on the executor: ``on_error``, `collect`, notes."""

import pickle
from collections.abc import Callable
from typing import Any, Final

import pytest

from ..._executor import PoolExecutor
from ..._map import map_batches, map_ordered, map_outcomes, map_unordered
from ..._outcome import collect
from .. import _contract_tasks as tasks
from .base import ContractBase

VERBS: Final[tuple[Callable[..., Any], ...]] = (map_ordered, map_unordered)
FAILING: Final = frozenset({0, 3, 6, 9, 12, 15, 18})


class FailuresContract(ContractBase):
    """Failures of single items."""

    @pytest.mark.parametrize("chunksize", [1, 4, "auto"])
    @pytest.mark.parametrize("verb", VERBS)
    def test_failures_can_be_skipped(
        self, pool: PoolExecutor, verb: Callable[..., Any], chunksize: Any
    ) -> None:
        """``on_error="skip"`` yields the results of all others."""
        results = verb(
            pool, tasks.fail_on_multiples_of_three, range(20), on_error="skip", chunksize=chunksize
        )
        seen = list(results)
        assert sorted(seen) == sorted(set(range(20)) - FAILING)
        if verb is map_ordered:
            assert seen == sorted(seen)

    @pytest.mark.parametrize("verb", VERBS)
    def test_as_many_failures_as_are_tolerated(
        self, pool: PoolExecutor, verb: Callable[..., Any]
    ) -> None:
        """``on_error=7`` passes over seven."""
        results = verb(pool, tasks.fail_on_multiples_of_three, range(20), on_error=len(FAILING))
        assert sorted(results) == sorted(set(range(20)) - FAILING)

    @pytest.mark.parametrize("most", [0, 2, len(FAILING) - 1])
    @pytest.mark.parametrize("verb", VERBS)
    def test_one_failure_more_than_is_tolerated(
        self, pool: PoolExecutor, verb: Callable[..., Any], most: int
    ) -> None:
        """All failures are raised together."""
        with pytest.raises(ExceptionGroup, match=f"{most + 1} tasks failed") as caught:
            list(verb(pool, tasks.fail_on_multiples_of_three, range(20), on_error=most))
        errors = caught.value.exceptions
        assert len(errors) == most + 1
        assert all(isinstance(error, ValueError) for error in errors)
        assert {error.args[0] for error in errors} <= FAILING

    def test_failed_batches_can_be_skipped(self, pool: PoolExecutor) -> None:
        """A batch fails as a whole."""
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
    def test_a_wrong_on_error_is_refused_at_the_call(
        self, pool: PoolExecutor, policy: Any, error: type[Exception]
    ) -> None:
        """By name."""
        with pytest.raises(error, match="on_error"):
            map_ordered(pool, tasks.square, [1], on_error=policy)

    def test_collect_gives_all_values_or_all_errors(self, pool: PoolExecutor) -> None:
        """`collect` of `map_outcomes`, in the order of the input."""
        assert collect(map_outcomes(pool, tasks.square, range(20))) == [n * n for n in range(20)]
        assert collect(map_outcomes(pool, tasks.square, [])) == []
        with pytest.raises(ExceptionGroup, match="7 of 20 tasks failed") as caught:
            collect(map_outcomes(pool, tasks.fail_on_multiples_of_three, range(20)))
        assert [error.args for error in caught.value.exceptions] == [(n,) for n in sorted(FAILING)]

    @pytest.mark.parametrize("chunksize", [1, 5])
    def test_errors_of_verbs_say_which_call_failed(
        self, pool: PoolExecutor, chunksize: int
    ) -> None:
        """A note names the function, the arguments, the item, the attempt and the worker."""
        results = map_ordered(
            pool, tasks.fail_on_multiples_of_three, [1, 2, 3], chunksize=chunksize
        )
        assert [next(results), next(results)] == [1, 2]
        with pytest.raises(ValueError, match="3") as caught:
            next(results)
        (note,) = caught.value.__notes__
        assert note.startswith("poolkit: fail_on_multiples_of_three(3) (item 2, attempt 1, worker ")

    def test_errors_of_futures_say_which_call_failed(self, pool: PoolExecutor) -> None:
        """The same note, which pickling keeps."""
        error = self.error(pool.submit(tasks.fail, "x"))
        assert error is not None
        (note,) = error.__notes__
        assert note.startswith("poolkit: fail('x') (attempt 1, worker ")
        assert pickle.loads(pickle.dumps(error)).__notes__ == [note]

    def test_an_exception_that_a_task_returns_is_a_value(self, pool: PoolExecutor) -> None:
        """It is no failure, and gets no note."""
        (value,) = map_ordered(pool, tasks.returned_error, [1], on_error=0)
        assert isinstance(value, ValueError)
        assert not hasattr(value, "__notes__")
