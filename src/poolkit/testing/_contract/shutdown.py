"""What ``shutdown`` and the ``with`` block promise."""

import concurrent.futures
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from ..._errors import PoolShutdownError
from ..._executor import PoolExecutor
from .. import _contract_tasks as tasks
from .base import ContractBase, Held, MakePool
from .gate import GateKeeper


class ShutdownContract(ContractBase):
    """The end of an executor."""

    def test_shutdown_waits_for_all_tasks(self, own_executor: Executor) -> None:
        """``shutdown()`` returns when every task is done, and may be called again."""
        futures = [own_executor.submit(tasks.square, number) for number in range(10)]
        own_executor.shutdown()
        assert all(future.done() for future in futures)
        assert [future.result(timeout=0) for future in futures] == [n * n for n in range(10)]
        own_executor.shutdown()

    def test_shutdown_waits_for_tasks_that_run(
        self, own_executor: Executor, gate: GateKeeper
    ) -> None:
        """``shutdown(wait=True)`` returns only when they have ended, however long they take."""
        futures = [own_executor.submit(gate.gate.hold, number) for number in range(4)]
        gate.wait_started(2)
        with self._opened_soon(gate):
            own_executor.shutdown(wait=True)
            done = [future.done() for future in futures]
        assert done == [True] * 4, "shutdown(wait=True) has returned before the tasks were done"

    def test_shutdown_need_not_wait(self, own_executor: Executor, gate: GateKeeper) -> None:
        """``shutdown(wait=False)`` returns at once; what was submitted runs all the same."""
        futures = [own_executor.submit(gate.gate.hold, number) for number in range(4)]
        gate.wait_started(2)
        own_executor.shutdown(wait=False)
        assert not any(future.done() for future in futures)
        gate.open()
        assert [self.result(future) for future in futures] == [0, 1, 2, 3]

    def test_after_shutdown_submit_is_refused(self, own_executor: Executor) -> None:
        """``submit`` raises ``RuntimeError``."""
        own_executor.shutdown()
        with pytest.raises(RuntimeError):
            own_executor.submit(tasks.square, 1)

    def test_after_shutdown_poolkit_says_why(self, make_pool: MakePool) -> None:
        """The error is a `poolkit.PoolShutdownError`, for ``map`` too."""
        pool = make_pool()
        pool.shutdown()
        with pytest.raises(PoolShutdownError, match="has been shut down"):
            pool.submit(tasks.square, 1)
        with pytest.raises(PoolShutdownError):
            list(pool.map(tasks.square, [1]))

    def test_the_with_block_waits_for_all_tasks(
        self, own_executor: Executor, tmp_path: Path
    ) -> None:
        """Leaving it is ``shutdown(wait=True)``."""
        with own_executor as entered:
            assert entered is own_executor
            futures = [entered.submit(tasks.count_call, tmp_path, n) for n in range(10)]
        assert all(future.done() for future in futures)
        assert len(list(tmp_path.iterdir())) == 10
        with pytest.raises(RuntimeError):
            own_executor.submit(tasks.square, 1)

    def test_an_error_in_the_with_block_comes_out_and_loses_no_task(
        self, own_executor: Executor, tmp_path: Path
    ) -> None:
        """An exception leaves the block as it is, after the tasks are done."""
        with pytest.raises(LookupError, match="the body"), own_executor:  # noqa: PT012
            for number in range(10):
                own_executor.submit(tasks.count_call, tmp_path, number)
            raise LookupError("the body")
        assert len(list(tmp_path.iterdir())) == 10

    def test_shutdown_can_cancel_what_has_not_started(
        self, own_executor: Executor, gate: GateKeeper
    ) -> None:
        """``shutdown(cancel_futures=True)`` cancels what waits; what runs comes to its end."""
        running = [own_executor.submit(gate.gate.hold, number) for number in range(2)]
        gate.wait_started(2)
        pending = [own_executor.submit(tasks.square, number) for number in range(50)]
        with self._opened_soon(gate):
            own_executor.shutdown(wait=True, cancel_futures=True)
        assert [future.result(timeout=0) for future in running] == [0, 1]
        # Some process pools have moved a few into a queue from which nothing comes back.
        assert sum(future.cancelled() for future in pending) >= 40
        for number, future in enumerate(pending):
            assert future.cancelled() or future.result(timeout=0) == number * number

    def test_those_who_wait_are_told_what_shutdown_has_cancelled(
        self, make_pool: MakePool, held: Held
    ) -> None:
        """``concurrent.futures.wait`` returns; the standard library's own pools forget that."""
        pool = make_pool()
        running: list[Future[Any]] = [pool.submit(held.task) for _ in range(2)]
        held.wait_started(2)
        pending = [pool.submit(tasks.square, number) for number in range(50)]
        pool.shutdown(wait=False, cancel_futures=True)
        held.release()
        everything = [*running, *pending]
        assert not concurrent.futures.wait(everything, timeout=self.patience).not_done
        assert sum(future.cancelled() for future in pending) >= 40

    def test_ctrl_c_in_the_with_block_cancels_what_is_pending(
        self, make_pool: MakePool, held: Held
    ) -> None:
        """``KeyboardInterrupt`` leaves the block of a pool at once, and no task behind."""
        pool = make_pool()
        pending: list[Future[int]] = []

        def work() -> None:
            with pool:
                for _ in range(2):
                    pool.submit(held.task)
                held.wait_started(2)
                pending.extend(pool.submit(tasks.square, number) for number in range(50))
                held.release()
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            work()
        assert all(future.done() for future in pending)

    def test_closing_a_pool_closes_its_views(self, make_pool: MakePool) -> None:
        """A view lives no longer than its pool."""
        pool = make_pool()
        view = pool.with_options(max_pending=5)
        pool.shutdown()
        with pytest.raises(PoolShutdownError):
            view.submit(tasks.square, 1)

    def test_adapting_a_pool_gives_a_view_that_leaves_it_open(self, pool: PoolExecutor) -> None:
        """Code that adapts whatever executor it is given does not own it."""
        from ..._factory import make_executor

        with make_executor(pool, max_pending=3) as view:
            assert self.result(view.submit(tasks.square, 2)) == 4
        assert self.result(pool.submit(tasks.square, 2)) == 4

    def test_adapting_it_leaves_it_open(self, executor: Executor) -> None:
        """`poolkit.make_executor` shuts down nothing that somebody else has made."""
        from ..._factory import make_executor

        with make_executor(executor) as adapted:
            assert self.result(adapted.submit(tasks.square, 2)) == 4
        assert self.result(executor.submit(tasks.square, 2)) == 4
