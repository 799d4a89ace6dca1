"""What a `Retry` on the executor promises."""

from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from ..._map import map_ordered, map_outcomes
from ..._retry import Retry
from .. import _contract_tasks as tasks
from .base import ContractBase, MakePool

QUICK: Final = Retry(attempts=3, wait=0)


class RetriesContract(ContractBase):
    """``retry=``."""

    def test_a_failed_task_is_tried_again(self, make_pool: MakePool, tmp_path: Path) -> None:
        """As often as ``attempts`` says."""
        pool = make_pool(retry=QUICK)
        assert self.result(pool.submit(tasks.fail_first, tmp_path, 2)) == ("task", 3)

    def test_the_last_failure_is_raised_and_names_the_attempt(
        self, make_pool: MakePool, tmp_path: Path
    ) -> None:
        """Once the attempts are used up, and no more are made."""
        error = self.error(make_pool(retry=QUICK).submit(tasks.fail_first, tmp_path, 9))
        assert isinstance(error, ConnectionError)
        (note,) = error.__notes__
        assert "fail_first" in note
        assert "attempt 3" in note
        assert len(list(tmp_path.iterdir())) == 3

    @pytest.mark.parametrize("chunksize", [1, 7])
    def test_verbs_try_single_items_again(
        self, make_pool: MakePool, tmp_path: Path, chunksize: int
    ) -> None:
        """Not the whole chunk that an item travelled in."""
        outcomes = list(
            map_outcomes(
                make_pool(),
                tasks.fail_first,
                [tmp_path] * 20,
                [number % 4 for number in range(20)],
                range(20),
                chunksize=chunksize,
                retry=QUICK,
                ordered=True,
            )
        )
        assert [outcome.index for outcome in outcomes] == list(range(20))
        for number, outcome in enumerate(outcomes):
            failures = number % 4
            assert outcome.attempts == min(failures + 1, 3)
            assert outcome.ok == (failures < 3)
            assert outcome.queued_s >= 0
        assert Counter(path.name.split("-")[0] for path in tmp_path.iterdir()) == {
            str(number): min(number % 4 + 1, 3) for number in range(20)
        }

    def test_views_have_a_retry_of_their_own(self, make_pool: MakePool, tmp_path: Path) -> None:
        """``map`` follows it, and ``retry=None`` means none."""
        view = make_pool().with_options(retry=QUICK)
        results = view.map(tasks.fail_first, [tmp_path] * 5, [1] * 5, range(5))
        assert [name for name, _ in results] == list(range(5))
        strict = view.with_options(retry=None)
        with pytest.raises(ConnectionError):
            self.result(strict.submit(tasks.fail_first, tmp_path, 99, "strict"))
        assert (tmp_path / "strict-0").exists()
        assert not (tmp_path / "strict-1").exists()

    def test_what_is_tried_again_is_up_to_a_predicate(
        self, make_pool: MakePool, tmp_path: Path
    ) -> None:
        """``on`` is a function of the error, or the types to try again."""
        pool = make_pool(retry=Retry(attempts=5, on=lambda error: "ready" in str(error), wait=0))
        assert self.result(pool.submit(tasks.fail_first, tmp_path, 3))[0] == "task"
        with pytest.raises(KeyError):
            self.result(pool.submit(tasks.fail, "no"))
        fussy = pool.with_options(retry=Retry(on=ZeroDivisionError))
        with pytest.raises(ConnectionError):
            self.result(fussy.submit(tasks.fail_first, tmp_path, 1, "fussy"))

    def test_a_predicate_that_fails_means_no(
        self, make_pool: MakePool, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The task's own error is raised; the predicate's is logged."""
        pool = make_pool(retry=Retry(on=lambda error: error.nonsense))  # type: ignore[attr-defined]
        with pytest.raises(ConnectionError):
            self.result(pool.submit(tasks.fail_first, tmp_path, 1))
        assert "predicate" in caplog.text

    def test_a_wrong_retry_is_refused_at_the_call(self, make_pool: MakePool) -> None:
        """As is one that contradicts ``at_most_once``."""
        with pytest.raises(TypeError, match=r"try Retry\(\)"):
            make_pool(retry=3)
        pool = make_pool(retry=QUICK)
        with pytest.raises(TypeError, match=r"try Retry\(\)"):
            pool.with_options(retry=True)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="contradict"):
            map_ordered(pool, tasks.square, [1], at_most_once=True)
        once = map_ordered(pool, tasks.square, [1], at_most_once=True, retry=None)
        assert list(once) == [1]
