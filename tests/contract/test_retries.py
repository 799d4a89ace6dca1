"""What a `Retry` promises on poolkit's own kinds; `test_kinds` has the rest."""

import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import poolkit
from poolkit import Retry, make_executor, map_ordered, map_outcomes

from .. import tasks
from ..tasks import GateKeeper

QUICK = Retry(attempts=3, wait=0)


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_a_task_knows_its_attempt(kind: str, tmp_path: Path) -> None:
    with make_executor(kind, retry=QUICK) as pool:
        assert pool.submit(tasks.attempt_after, tmp_path, 2).result() == 3


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
    with make_executor(kind, 1, task_timeout=1.0, retry=QUICK) as pool:
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


def test_pauses_grow_up_to_a_limit() -> None:
    steady = Retry(attempts=99, wait=0.5, max_wait=3, jitter=False)
    assert [steady.pause(attempt) for attempt in range(1, 6)] == [0.5, 1, 2, 3, 3]
    assert steady.pause(5000) == 3
    jittery = Retry(wait=0.5, max_wait=3)
    pauses = [jittery.pause(3) for _ in range(200)]
    assert all(0 <= pause <= 2 for pause in pauses)
    assert max(pauses) > 1.2 > 0.8 > min(pauses), "the jitter is full"
