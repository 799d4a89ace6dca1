"""What bounds (``max_pending``) and views (``with_options``) promise."""

import threading

import pytest

from ..._errors import PoolShutdownError, QueueFullError
from ..._executor import PoolExecutor
from ..._future import TaskFuture
from .. import _contract_tasks as tasks
from .base import ContractBase, Held, MakePool
from .gate import GateKeeper


class BoundsContract(ContractBase):
    """Bounds and views of what `poolkit.make_executor` makes of the executor."""

    def test_a_bound_lets_work_through(self, make_pool: MakePool) -> None:
        """Tasks that are done don't count."""
        pool = make_pool(max_pending=3)
        results = [self.result(pool.submit(tasks.square, number)) for number in range(9)]
        assert results == [n * n for n in range(9)]

    def test_at_the_bound_submit_waits(self, make_pool: MakePool, gate: GateKeeper) -> None:
        """``when_full="block"``: until a place is free."""
        pool = make_pool(max_pending=3)
        blocking = [pool.submit(gate.gate.hold) for _ in range(3)]
        submitted = threading.Event()
        futures: list[TaskFuture[int]] = []

        def submit() -> None:
            futures.append(pool.submit(tasks.square, 7))
            submitted.set()

        thread = threading.Thread(target=submit)
        thread.start()
        gate.wait_started(2)
        assert not submitted.is_set()
        gate.open()
        assert submitted.wait(self.patience), "submit does not return although places are free"
        thread.join()
        assert self.result(futures[0]) == 49
        assert [self.result(future) for future in blocking] == [None] * 3

    def test_every_ending_frees_its_place(self, make_pool: MakePool) -> None:
        """A task that failed does not count either."""
        pool = make_pool(max_pending=2, when_full="raise")
        for number in range(10):
            assert self.error(pool.submit(tasks.square, number)) is None
            assert self.error(pool.submit(tasks.fail, number)) is not None

    def test_at_the_bound_submit_can_raise(self, make_pool: MakePool, held: Held) -> None:
        """``when_full="raise"``: `poolkit.QueueFullError`, each time."""
        pool = make_pool(max_pending=2, when_full="raise")
        pool.submit(held.task)
        pool.submit(held.task)
        for _ in range(3):
            with pytest.raises(QueueFullError, match="max_pending=2"):
                pool.submit(tasks.square, 1)
        held.release()

    def test_cancelling_frees_the_place(self, make_pool: MakePool, held: Held) -> None:
        """A cancelled task does not count."""
        pool = make_pool(max_pending=20, when_full="raise")
        for _ in range(19):
            pool.submit(held.task)
        held.wait_started(2)
        for _ in range(50):
            assert pool.submit(tasks.square, 1).cancel()
        held.release()

    def test_shutdown_sends_a_blocked_submitter_away(
        self, make_pool: MakePool, gate: GateKeeper
    ) -> None:
        """Whoever waits for a free place gets `poolkit.PoolShutdownError`."""
        pool = make_pool(max_pending=1)
        pool.submit(gate.gate.hold)
        gate.wait_started()
        refused: list[BaseException] = []

        def submit() -> None:
            try:
                pool.submit(tasks.square, 1)
            except PoolShutdownError as error:
                refused.append(error)

        thread = threading.Thread(target=submit)
        thread.start()
        pool.shutdown(wait=False)
        thread.join(self.patience)
        assert len(refused) == 1
        gate.open()

    def test_a_view_runs_on_the_same_workers_and_closes_alone(self, pool: PoolExecutor) -> None:
        """Shutting down a view leaves its pool open."""
        view = pool.with_options(max_pending=1, when_full="raise")
        assert view.kind == pool.kind
        assert view.max_workers == pool.max_workers
        assert self.result(view.submit(tasks.square, 2)) == 4
        view.shutdown()
        with pytest.raises(PoolShutdownError, match="view"):
            view.submit(tasks.square, 2)
        assert self.result(pool.submit(tasks.square, 2)) == 4

    def test_a_view_has_a_bound_of_its_own(self, pool: PoolExecutor, held: Held) -> None:
        """Its bound does not hold for the pool's other tasks."""
        view = pool.with_options(max_pending=1, when_full="raise")
        view.submit(held.task)
        with pytest.raises(QueueFullError):
            view.submit(tasks.square, 1)
        assert self.result(pool.submit(tasks.square, 3)) == 9
        held.release()
        view.shutdown()

    def test_both_bounds_apply_to_a_view(self, make_pool: MakePool, held: Held) -> None:
        """A view can't lift its pool's bound."""
        view = make_pool(max_pending=2, when_full="raise").with_options(max_pending=10)
        view.submit(held.task)
        view.submit(held.task)
        with pytest.raises(QueueFullError, match="max_pending=2"):
            view.submit(tasks.square, 1)
        held.release()

    def test_what_is_no_function_is_refused_at_the_call(self, pool: PoolExecutor) -> None:
        """``submit(fn(x))`` for ``submit(fn, x)`` is the usual slip."""
        with pytest.raises(TypeError, match="fn must be callable, not 4"):
            pool.submit(tasks.square(2))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="callable"):
            pool.map(None, [1])  # type: ignore[arg-type]
