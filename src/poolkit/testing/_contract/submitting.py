"""What ``submit`` and its futures promise: the standard library's contract."""

import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path
from typing import Any

import pytest

from ..._executor import PoolExecutor
from ..._future import TaskFuture
from ..._wait import as_completed, wait
from .. import _contract_tasks as tasks
from .base import ContractBase, Held
from .gate import GateKeeper


class SubmitContract(ContractBase):
    """``submit`` and the futures that it returns."""

    def test_submit_returns_a_future_of_the_result(self, executor: Executor) -> None:
        """``submit(fn, *args, **kwargs)`` calls ``fn``, and the future has what it returned."""
        future = executor.submit(tasks.add, 2, b=3)
        assert isinstance(future, Future)
        assert self.result(future) == 5
        assert future.done()
        assert not future.running()
        assert not future.cancelled()
        assert future.exception() is None
        assert not future.cancel(), "a task that is done can't be cancelled"
        assert future.result() == 5, "a result can be asked for again"

    def test_submit_of_a_poolkit_executor_returns_a_task_future(self, pool: PoolExecutor) -> None:
        """What `poolkit.make_executor` makes of it returns futures with ``abort``."""
        future = pool.submit(tasks.square, 3)
        assert isinstance(future, TaskFuture)
        assert self.result(future) == 9
        assert future.abort() == "finished"

    def test_an_exception_arrives_as_itself(self, executor: Executor) -> None:
        """What the task raises is in the future, of the same type and with the same arguments."""
        future = executor.submit(tasks.fail, "x")
        error = self.error(future)
        assert type(error) is KeyError
        assert error.args == ("x",)
        with pytest.raises(KeyError):
            future.result()
        assert self.result(executor.submit(tasks.square, 3)) == 9, "the executor goes on"

    @pytest.mark.parametrize(
        ("task", "args"), [(tasks.interrupt, ()), (tasks.exit_with, (3,))], ids=["Ctrl-C", "exit"]
    )
    def test_a_base_exception_ends_its_own_task_only(
        self, executor: Executor, task: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        """``SystemExit`` or ``KeyboardInterrupt`` in a task is that task's own error."""
        error = self.error(executor.submit(task, *args))
        assert isinstance(error, (KeyboardInterrupt, SystemExit))
        assert self.result(executor.submit(tasks.square, 3)) == 9, "the executor goes on"

    def test_a_returned_exception_is_a_value(self, executor: Executor) -> None:
        """A task that returns an exception has not failed."""
        value = self.result(executor.submit(tasks.returned_error, 1))
        assert isinstance(value, ValueError)
        assert value.args == (1,)

    def test_stop_iteration_is_an_error_like_others(self, executor: Executor) -> None:
        """A task may raise ``StopIteration``."""
        assert isinstance(self.error(executor.submit(tasks.stop_iteration, 1)), StopIteration)

    def test_every_keyword_reaches_the_function(self, executor: Executor) -> None:
        """``submit`` keeps no keyword argument for itself, ``self`` and ``fn`` included."""
        given = {"self": 1, "fn": 2, "executor": 3, "timeout": 4, "kind": 5, "task_timeout": 6}
        assert self.result(executor.submit(tasks.keywords, 0, **given)) == ((0,), given)

    def test_each_task_runs_exactly_once(self, own_executor: Executor, tmp_path: Path) -> None:
        """No task is lost, and none is run twice, whether or not its result is asked for."""
        for number in range(20):
            own_executor.submit(tasks.count_call, tmp_path, number)
        own_executor.shutdown(wait=True)
        calls = sorted(path.name for path in tmp_path.iterdir())
        assert calls == sorted(f"{number}-0" for number in range(20))

    def test_results_belong_to_their_own_tasks(self, executor: Executor) -> None:
        """Each future has the result of its own call, in whatever order they are asked for."""
        futures = [executor.submit(tasks.square, number) for number in range(50)]
        for number in reversed(range(50)):
            assert self.result(futures[number]) == number * number

    def test_the_standard_wait_and_as_completed_take_its_futures(self, executor: Executor) -> None:
        """``concurrent.futures.wait`` and ``as_completed`` return all of them."""
        futures = [executor.submit(tasks.square, number) for number in range(20)]
        squares = {number * number for number in range(20)}
        if self._limit is None:  # the standard library's functions let no task run
            wait(futures)
        completed = concurrent.futures.as_completed(futures, self._limit)
        assert {future.result() for future in completed} == squares
        done, not_done = concurrent.futures.wait(futures, self._limit)
        assert done == set(futures)
        assert not not_done

    def test_wait_and_as_completed_of_poolkit_take_its_futures(self, executor: Executor) -> None:
        """`poolkit.wait` and `poolkit.as_completed` return all of them."""
        futures = [executor.submit(tasks.square, number) for number in range(20)]
        assert set(as_completed(futures, self._limit)) == set(futures)
        assert wait(futures, self._limit).not_done == set()

    def test_a_callback_gets_the_finished_future(self, executor: Executor, late: Held) -> None:
        """Callbacks are called with their future once it is done, or at once if it is already."""
        seen: list[tuple[object, bool]] = []
        called = threading.Event()

        def record(future: Future[Any]) -> None:
            seen.append((future, future.done()))
            called.set()

        future = executor.submit(late.task, 16)
        future.add_done_callback(record)
        late.release()
        assert self.result(future) == 16
        assert called.wait(self.patience), "the callback was not called"
        future.add_done_callback(record)
        assert seen == [(future, True)] * 2

    def test_what_a_callback_raises_goes_no_further(self, executor: Executor, late: Held) -> None:
        """It changes neither the future nor later callbacks, and stops no other task."""
        called = threading.Event()

        def misbehave(_future: Future[Any]) -> None:
            raise ZeroDivisionError("from a callback")

        future = executor.submit(late.task, 16)
        future.add_done_callback(misbehave)
        future.add_done_callback(lambda _: called.set())
        late.release()
        assert self.result(future) == 16
        assert called.wait(self.patience), "the next callback was not called"
        assert future.exception() is None
        assert self.result(executor.submit(tasks.square, 5)) == 25

    def test_no_callback_of_a_poolkit_executor_stops_it(
        self, pool: PoolExecutor, late: Held
    ) -> None:
        """Not even one that raises ``SystemExit``, which the standard library lets through."""
        called = threading.Event()
        future = pool.submit(late.task, 16)
        future.add_done_callback(lambda _: tasks.exit_with(1))
        future.add_done_callback(lambda _: called.set())
        late.release()
        assert self.result(future) == 16
        assert called.wait(self.patience), "the next callback was not called"
        assert self.result(pool.submit(tasks.square, 5)) == 25

    def test_a_callback_may_submit_more(self, executor: Executor, late: Held) -> None:
        """The executor holds no lock while it calls back."""
        more: list[Future[int]] = []
        called = threading.Event()

        def go_on(_future: Future[int]) -> None:
            more.append(executor.submit(tasks.square, 5))
            called.set()

        future = executor.submit(late.task, 16)
        future.add_done_callback(go_on)
        late.release()
        assert self.result(future) == 16
        assert called.wait(self.patience), "the callback was not called, or does not return"
        assert self.result(more[0]) == 25

    def test_a_running_task_can_not_be_cancelled_and_a_waiting_one_can(
        self, executor: Executor, gate: GateKeeper
    ) -> None:
        """``running``, ``cancel`` and ``cancelled`` say what is so; no other task is touched."""
        running = [executor.submit(gate.gate.hold, number) for number in range(2)]
        gate.wait_started(2)
        assert all(future.running() for future in running)
        assert not any(future.cancel() for future in running)
        # Some process pools call a few tasks running that wait in a queue; these are the last.
        waiting = [executor.submit(tasks.square, number) for number in range(10)]
        assert waiting[-1].cancel()
        assert waiting[-1].cancelled()
        assert waiting[-1].cancel(), "it is cancelled still"
        with pytest.raises(CancelledError):
            waiting[-1].result(self.patience)
        with pytest.raises(TimeoutError):
            running[0].result(timeout=0)
        gate.open()
        assert [self.result(future) for future in running] == [0, 1]
        assert [self.result(future) for future in waiting[:-1]] == [n * n for n in range(9)]

    def test_a_cancelled_task_never_runs(
        self, own_executor: Executor, held: Held, tmp_path: Path
    ) -> None:
        """It stays cancelled, its callbacks are called, and its function is not."""
        called: list[object] = []
        for _ in range(2):
            own_executor.submit(held.task)
        held.wait_started(2)
        waiting = [own_executor.submit(tasks.count_call, tmp_path, n) for n in range(10)]
        waiting[-1].add_done_callback(called.append)
        assert waiting[-1].cancel()
        held.release()
        own_executor.shutdown(wait=True)
        assert called == [waiting[-1]]
        assert waiting[-1].cancelled()
        with pytest.raises(CancelledError):
            waiting[-1].result(timeout=0)
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n}-0" for n in range(9)]

    def test_a_cancelled_future_is_seen_by_those_who_wait(
        self, pool: PoolExecutor, held: Held
    ) -> None:
        """``concurrent.futures.wait`` and ``as_completed`` need not wait for what is cancelled."""
        for _ in range(2):
            pool.submit(held.task)
        held.wait_started(2)
        waiting = [pool.submit(tasks.square, number) for number in range(10)][-1]
        assert waiting.cancel()
        assert concurrent.futures.wait([waiting], timeout=self.patience).done == {waiting}
        assert list(concurrent.futures.as_completed([waiting], timeout=self.patience)) == [waiting]
        held.release()

    def test_several_threads_may_submit_at_once(self, executor: Executor, gate: GateKeeper) -> None:
        """``submit`` is thread-safe."""
        gate.open()
        results: list[int] = []  # appended to atomically

        def work(number: int) -> None:
            futures = [executor.submit(tasks.square, number) for _ in range(25)]
            results.extend(self.result(future) for future in futures)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == sorted([0, 1, 4, 9] * 25)
