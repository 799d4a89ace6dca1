"""The executor is held to what its author, and it itself, say that it can do."""

import threading
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path
from typing import Any

import pytest

from ..._errors import (
    RemoteTaskError,
    TaskAbortedError,
    TaskSerializationError,
    TaskTimeoutError,
    UnsupportedError,
)
from ..._executor import PoolExecutor
from ..._map import map_ordered
from .. import _contract_tasks as tasks
from .base import ContractBase, Held, MakePool
from .gate import GateKeeper


class ClaimsContract(ContractBase):
    """The declarations of the class, and `PoolExecutor.capabilities`."""

    def test_the_declarations_agree_with_each_other(self) -> None:
        """Tasks that run inside ``submit`` do not run beside the test; names of tests exist."""
        if self.in_caller and self.concurrent:
            pytest.fail("in_caller = True needs concurrent = False")
        unknown = [name for name in self.known_to_differ if not hasattr(self, name)]
        assert not unknown, "known_to_differ names tests that don't exist"

    def test_the_executor_says_of_itself_what_is_declared(self, pool: PoolExecutor) -> None:
        """`PoolExecutor.capabilities` and the declarations are the same."""
        capabilities = pool.capabilities
        if not _is_adapted(pool):
            assert capabilities.runs_in_caller == self.in_caller
            assert capabilities.serializes == self.pickles
        if self.limits_tasks is not None:
            assert (capabilities.deadlines != "none") == self.limits_tasks
        if self.stops_tasks is not None:
            assert (capabilities.stops is not None) == self.stops_tasks

    def test_where_and_when_tasks_run(self, executor: Executor, tmp_path: Path) -> None:
        """``in_caller``: a task has run, in its caller's thread, when ``submit`` returns."""
        future = executor.submit(tasks.count_call, tmp_path, "task")
        if self.in_caller:
            assert future.done()
            assert executor.submit(tasks.thread_id).result() == threading.get_ident()
        elif not self.concurrent:
            assert not list(tmp_path.iterdir()), "the task has run before anybody waited"
            assert not future.done()
        assert self.result(future) == 0

    def test_tasks_run_beside_their_caller(self, executor: Executor, gate: GateKeeper) -> None:
        """``concurrent``: ``submit`` returns before its task has ended."""
        future = executor.submit(gate.gate.hold, 1)
        gate.wait_started()
        assert not future.done()
        gate.open()
        assert self.result(future) == 1

    def test_two_tasks_run_at_once(self, executor: Executor, gate: GateKeeper) -> None:
        """``concurrent``: the executor has two workers, at least."""
        futures = [executor.submit(gate.gate.hold, number) for number in range(2)]
        gate.wait_started(2)
        gate.open()
        assert [self.result(future) for future in futures] == [0, 1]

    def test_what_is_given_arrives_as_declared(self, executor: Executor) -> None:
        """``pickles``: tasks get copies; otherwise, the very objects that they were given."""
        given = [1, 2]
        result = self.result(executor.submit(tasks.identity, given))
        assert result == given
        assert (result is given) == (not self.pickles)
        if not self.pickles:
            lock = threading.Lock()
            assert self.result(executor.submit(tasks.identity, lock)) is lock
            offset = 5

            def move(x: int) -> int:
                return x + offset

            assert self.result(executor.submit(move, 2)) == 7

    def test_what_can_not_be_pickled_fails_alone(self, executor: Executor) -> None:
        """``pickles``: neither an argument nor a result stops the other tasks, or is lost."""
        if not self.pickles:
            pytest.skip("nothing is pickled (pickles = False)")
        innocent = [executor.submit(tasks.square, number) for number in range(10)]
        with pytest.raises(Exception, match=r"(?i)pickle|serial|sent"):
            self.result(executor.submit(tasks.keywords, threading.Lock()))
        assert self.error(executor.submit(tasks.unpicklable)) is not None
        assert [self.result(future) for future in innocent] == [n * n for n in range(10)]
        assert self.result(executor.submit(tasks.square, 3)) == 9

    def test_poolkit_says_what_can_not_be_pickled(self, pool: PoolExecutor) -> None:
        """At ``submit`` for the task, in its future for the result; errors come all the same."""
        if not pool.capabilities.serializes:
            pytest.skip("poolkit pickles nothing here")
        innocent = [pool.submit(tasks.square, number) for number in range(10)]
        with pytest.raises(TaskSerializationError, match="can't be sent"):
            pool.submit(tasks.keywords, threading.Lock())
        assert isinstance(self.error(pool.submit(tasks.unpicklable)), TaskSerializationError)
        assert isinstance(self.error(pool.submit(tasks.unloadable)), TaskSerializationError)
        arrived = self.error(pool.submit(tasks.fail_demandingly))
        assert isinstance(arrived, tasks.DemandingError)
        assert (str(arrived), arrived.sum) == ("1, 2", 3)
        assert any("lock" in note for note in arrived.__notes__)
        lost = self.error(pool.submit(tasks.fail_badly))
        assert isinstance(lost, RemoteTaskError)
        assert lost.type_name == f"{tasks.__name__}.LoadsBadlyError"
        assert "fail_badly" in lost.traceback
        assert [self.result(future) for future in innocent] == [n * n for n in range(10)]
        assert self.result(pool.submit(tasks.square, 3)) == 9

    def test_a_time_limit_is_kept_or_refused(self, make_pool: MakePool) -> None:
        """``task_timeout`` is an error at the call where nobody keeps it."""
        pool = make_pool()
        if pool.capabilities.deadlines != "none":
            assert self.result(pool.with_options(task_timeout=60).submit(tasks.square, 3)) == 9
            assert list(map_ordered(pool, tasks.square, [3], task_timeout=60)) == [9]
            return
        with pytest.raises(UnsupportedError, match="task_timeout=60"):
            pool.with_options(task_timeout=60)
        with pytest.raises(UnsupportedError, match="task_timeout=60"):
            map_ordered(pool, tasks.square, [3], task_timeout=60)
        with pytest.raises(UnsupportedError, match="task_timeout=60"):
            make_pool(task_timeout=60)

    def test_a_task_that_is_late_fails(self, make_pool: MakePool) -> None:
        """In the caller, its limit is looked at once the call has returned."""
        pool = make_pool()
        if not self.in_caller or pool.capabilities.deadlines != "after":
            pytest.skip("limits are kept while the task runs, by another clock, or not at all")
        view = pool.with_options(task_timeout=0.001)
        assert isinstance(self.error(view.submit(tasks.spin, 0.005)), TaskTimeoutError)
        assert self.result(pool.submit(tasks.square, 3)) == 9

    def test_a_task_that_hangs_fails_on_time_and_frees_its_worker(
        self, make_pool: MakePool, gate: GateKeeper
    ) -> None:
        """With a `poolkit.TaskTimeoutError`; a pool of poolkit's replaces both of its workers."""
        pool = make_pool()
        if pool.capabilities.deadlines not in ("hard", "soft"):
            pytest.skip("running tasks have no time limit here")
        hung = [pool.with_options(task_timeout=0.05).submit(gate.gate.hold) for _ in range(2)]
        for future in hung:
            assert isinstance(self.error(future), TaskTimeoutError)
        if _is_adapted(pool):  # nobody can give another executor a new thread
            gate.open()
        assert self.result(pool.submit(tasks.square, 3)) == 9

    def test_a_running_task_is_stopped_or_that_is_refused(
        self, make_pool: MakePool, gate: GateKeeper
    ) -> None:
        """``TaskFuture.abort`` says what it did, or raises `poolkit.UnsupportedError`."""
        pool = make_pool()
        future = pool.submit(gate.gate.hold, 1)
        gate.wait_started()
        if pool.capabilities.stops is None:
            with pytest.raises(UnsupportedError, match="abort"):
                future.abort()
            gate.open()
            assert self.result(future) == 1
        else:
            assert future.abort() == pool.capabilities.stops
            assert isinstance(self.error(future), TaskAbortedError)
            gate.open()
        assert self.result(pool.submit(tasks.square, 3)) == 9

    def test_aborting_a_waiting_task_cancels_it(self, pool: PoolExecutor, held: Held) -> None:
        """On every kind: it never runs."""
        for _ in range(2):
            pool.submit(held.task)
        held.wait_started(2)
        waiting: list[Future[Any]] = [pool.submit(tasks.square, n) for n in range(10)]
        last: Any = waiting[-1]
        assert last.abort() == "cancelled"
        with pytest.raises(CancelledError):
            last.result(self.patience)
        held.release()
        assert [self.result(future) for future in waiting[:-1]] == [n * n for n in range(9)]

    @pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
    def test_workers_are_ended_or_that_is_refused(
        self, make_pool: MakePool, gate: GateKeeper, method: str
    ) -> None:
        """``terminate_workers`` and ``kill_workers`` leave no task unresolved."""
        pool = make_pool()
        future = pool.submit(gate.gate.hold, 1)
        gate.wait_started()
        if pool.capabilities.stops != "killed":
            with pytest.raises(UnsupportedError, match=method):
                getattr(pool, method)()
            gate.open()
            assert self.result(future) == 1
        else:
            getattr(pool, method)()
            assert self.error(future) is not None

    def test_a_priority_is_kept_or_refused(self, pool: PoolExecutor) -> None:
        """It is an error at the call where there is no queue to jump."""
        if pool.capabilities.priorities:
            assert self.result(pool.with_options(priority=-1).submit(tasks.square, 3)) == 9
        else:
            with pytest.raises(UnsupportedError, match="priority=-1"):
                pool.with_options(priority=-1)


def _is_adapted(pool: PoolExecutor) -> bool:
    """Whether the adapter made it of an executor, of whose capabilities it knows little."""
    return pool.kind.startswith("adapted ")
