"""What a `Retry` promises, on every kind."""

import threading
from collections import Counter
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import poolkit
from poolkit import Retry, make_executor, map_ordered, map_outcomes

from .. import tasks
from ..tasks import GateKeeper
from .conftest import Make

QUICK = Retry(attempts=3, wait=0)


def test_submit_tries_again(make: Make, tmp_path: Path) -> None:
    pool = make(retry=QUICK)
    future = pool.submit(tasks.fail_first, tmp_path, 2)
    assert future.result() == ("task", 3)


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_a_task_knows_its_attempt(kind: str, tmp_path: Path) -> None:
    with make_executor(kind, retry=QUICK) as pool:
        assert pool.submit(tasks.attempt_after, tmp_path, 2).result() == 3


def test_the_last_failure_is_raised_and_names_the_attempt(make: Make, tmp_path: Path) -> None:
    pool = make(retry=QUICK)
    future = pool.submit(tasks.fail_first, tmp_path, 9)
    with pytest.raises(ConnectionError) as caught:
        future.result()
    (note,) = caught.value.__notes__
    assert "fail_first" in note
    assert "attempt 3" in note
    assert len(list(tmp_path.iterdir())) == 3


def test_verbs_try_single_items_again(make: Make, tmp_path: Path) -> None:
    pool = make()
    for chunksize in (1, 7):
        folder = tmp_path / str(chunksize)
        folder.mkdir()
        outcomes = list(
            map_outcomes(
                pool,
                tasks.fail_first,
                [folder] * 20,
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
        assert Counter(p.name.split("-")[0] for p in folder.iterdir()) == {
            str(number): min(number % 4 + 1, 3) for number in range(20)
        }


def test_map_and_views_have_it_too(make: Make, tmp_path: Path) -> None:
    view = make().with_options(retry=QUICK)
    results = view.map(tasks.fail_first, [tmp_path] * 5, [1] * 5, range(5))
    assert [name for name, _ in results] == list(range(5))
    strict = view.with_options(retry=None)
    with pytest.raises(ConnectionError):
        strict.submit(tasks.fail_first, tmp_path, 99, "strict").result()
    assert (tmp_path / "strict-0").exists()
    assert not (tmp_path / "strict-1").exists()


def test_what_is_tried_again_is_up_to_a_predicate(make: Make, tmp_path: Path) -> None:
    pool = make(retry=Retry(attempts=5, on=lambda error: "ready" in str(error), wait=0))
    assert pool.submit(tasks.fail_first, tmp_path, 3).result()[0] == "task"
    with pytest.raises(KeyError):
        pool.submit(tasks.fail, "no").result()
    fussy = pool.with_options(retry=Retry(on=ZeroDivisionError))
    with pytest.raises(ConnectionError):
        fussy.submit(tasks.fail_first, tmp_path, 1, "fussy").result()


def test_a_predicate_that_fails_means_no(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make(retry=Retry(on=lambda error: error.nonsense))  # type: ignore[attr-defined]
    with pytest.raises(ConnectionError):
        pool.submit(tasks.fail_first, tmp_path, 1).result()
    assert "predicate" in caplog.text


def test_the_bound_counts_what_waits_for_another_attempt(tmp_path: Path) -> None:
    with make_executor(
        "thread", 1, max_pending=1, when_full="raise", retry=Retry(wait=60, jitter=False)
    ) as pool:
        future = pool.submit(tasks.fail_first, tmp_path, 1)
        while (tmp_path / "task-0").exists() is False or future.running():
            threading.Event().wait(0.001)
        with pytest.raises(poolkit.QueueFullError):
            pool.submit(tasks.square, 2)
        assert pool.statistics().pending == 1
        assert future.cancel()
        assert pool.submit(tasks.square, 2).result() == 4


@pytest.mark.parametrize("kind", ["thread", "process"])
class TestLongWaits:
    """What waits an hour for its next attempt is ended at once by whoever ends things."""

    HOUR = Retry(attempts=2, wait=3600, jitter=False)

    def waiting(self, pool: poolkit.PoolExecutor, folder: Path) -> "poolkit.TaskFuture[Any]":
        """Return a task that waits for its second attempt."""
        future = pool.submit(tasks.fail_first, folder, 1)
        while pool.statistics().pending != 1 or not list(folder.iterdir()) or future.running():
            threading.Event().wait(0.001)
        return future

    def test_it_holds_no_worker(self, kind: str, tmp_path: Path) -> None:
        with make_executor(kind, 1, retry=self.HOUR) as pool:
            future = self.waiting(pool, tmp_path)
            assert pool.submit(tasks.square, 4).result() == 16
            assert not future.done()
            assert not future.running()
            assert future.cancel()

    def test_cancel(self, kind: str, tmp_path: Path) -> None:
        with make_executor(kind, 1, retry=self.HOUR) as pool:
            future = self.waiting(pool, tmp_path)
            assert future.cancel()
            with pytest.raises(CancelledError):
                future.result()

    def test_abort(self, kind: str, tmp_path: Path) -> None:
        with make_executor(kind, 1, retry=self.HOUR) as pool:
            assert self.waiting(pool, tmp_path).abort() == "cancelled"

    def test_shutdown(self, kind: str, tmp_path: Path) -> None:
        pool = make_executor(kind, 1, retry=self.HOUR)
        future = self.waiting(pool, tmp_path)
        pool.shutdown(cancel_futures=True)
        assert future.cancelled()
        assert not [t for t in threading.enumerate() if t.name == "poolkit-retries"]

    def test_an_error_in_the_block(self, kind: str, tmp_path: Path) -> None:
        futures = []
        with pytest.raises(KeyboardInterrupt), make_executor(kind, 1, retry=self.HOUR) as pool:
            futures.append(self.waiting(pool, tmp_path))
            raise KeyboardInterrupt
        assert futures[0].cancelled()

    def test_the_end_of_an_iterator(self, kind: str, tmp_path: Path) -> None:
        with make_executor(kind, 1, retry=self.HOUR) as pool:
            with map_ordered(pool, tasks.fail_first, [tmp_path], [1]) as results:
                while pool.statistics().pending != 1 or not list(tmp_path.iterdir()):
                    threading.Event().wait(0.001)
            assert list(results) == []
            assert pool.statistics().pending == 0


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_dropped_pool_still_tries_again(kind: str, tmp_path: Path) -> None:
    future = make_executor(kind, 1, retry=Retry(wait=0.2, jitter=False)).submit(
        tasks.fail_first, tmp_path, 2
    )
    assert future.result() == ("task", 3)
    pool = make_executor(kind, 1, retry=Retry(wait=0.2, jitter=False))
    late = pool.submit(tasks.fail_first, tmp_path, 2, "late")
    pool.shutdown(wait=False)
    assert late.result() == ("late", 3)
    pool.shutdown()


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_late_tasks_are_tried_again(kind: str, tmp_path: Path) -> None:
    with make_executor(kind, 1, task_timeout=0.3, retry=QUICK) as pool:
        assert pool.submit(tasks.hang_first, tmp_path, 2).result() == 3
        (outcome,) = map_outcomes(pool, tasks.hang_first, [tmp_path / "."], [4])
        assert outcome.value == 2  # of the two earlier calls, this one only counts on
        assert outcome.attempts == 2


def test_crashed_tasks_are_tried_again(tmp_path: Path) -> None:
    with make_executor("process", 2, retry=QUICK) as pool:
        assert pool.submit(tasks.die_first, tmp_path, 2).result() == 3
        for name in tmp_path.iterdir():
            name.unlink()
        with pytest.raises(poolkit.WorkerCrashedError) as caught:
            pool.submit(tasks.die_first, tmp_path, 9).result()
        assert "attempt 3" in caught.value.__notes__[0]


def test_what_was_aborted_is_not_tried_again(gate: GateKeeper) -> None:
    with make_executor("process", 1, retry=Retry(on=BaseException, wait=0)) as pool:
        future = pool.submit(gate.gate.hold)
        gate.wait_started()
        future.abort()
        with pytest.raises(poolkit.TaskAbortedError):
            future.result()


def test_after_cancelling_failures_are_final(gate: GateKeeper, tmp_path: Path) -> None:
    def hold_and_fail() -> None:
        gate.gate.hold()
        raise ConnectionError

    with make_executor("thread", 1, retry=QUICK) as pool:
        future = pool.submit(hold_and_fail)
        gate.wait_started()
        pool.shutdown(wait=False, cancel_futures=True)
        gate.open()
        assert isinstance(future.exception(), ConnectionError)
        assert "attempt 1" in future.exception().__notes__[0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"attempts": 0}, ValueError),
        ({"attempts": 1.5}, TypeError),
        ({"wait": -1}, ValueError),
        ({"max_wait": "long"}, TypeError),
        ({"on": "OSError"}, TypeError),
        ({"on": (OSError, 3)}, TypeError),
        ({"on": int}, TypeError),
    ],
)
def test_bad_policies(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Retry(**options)


def test_bad_retries(make: Make) -> None:
    with pytest.raises(TypeError, match=r"try Retry\(\)"):
        make(retry=3)
    pool = make(retry=QUICK)
    with pytest.raises(TypeError, match=r"try Retry\(\)"):
        pool.with_options(retry=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="contradict"):
        map_ordered(pool, tasks.square, [1], at_most_once=True)
    assert list(map_ordered(pool, tasks.square, [1], at_most_once=True, retry=None)) == [1]


def test_pauses_grow_up_to_a_limit() -> None:
    steady = Retry(attempts=99, wait=0.5, max_wait=3, jitter=False)
    assert [steady.pause(attempt) for attempt in range(1, 6)] == [0.5, 1, 2, 3, 3]
    assert steady.pause(5000) == 3
    jittery = Retry(wait=0.5, max_wait=3)
    pauses = [jittery.pause(3) for _ in range(200)]
    assert all(0 <= pause <= 2 for pause in pauses)
    assert max(pauses) > 1.2 > 0.8 > min(pauses), "the jitter is full"
