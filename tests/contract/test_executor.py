"""What every executor promises: submit, futures, bounds, views, shutdown."""

import concurrent.futures
import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest

import poolkit
from poolkit import PoolExecutor, PoolShutdownError, QueueFullError, TaskFuture

from .. import tasks
from ..tasks import GateKeeper
from .conftest import Make


def test_is_a_real_executor(pool: PoolExecutor) -> None:
    assert isinstance(pool, concurrent.futures.Executor)
    future = pool.submit(tasks.add, 2, b=3)
    assert isinstance(future, TaskFuture)
    assert future.result() == 5
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert future.exception() is None


def test_errors_arrive_as_themselves(pool: PoolExecutor) -> None:
    error = pool.submit(tasks.fail, "x").exception()
    assert type(error) is KeyError
    assert error.args == ("x",)
    with pytest.raises(KeyError):
        pool.submit(tasks.fail, "x").result()


@pytest.mark.parametrize("task", [tasks.interrupt, tasks.exit_with])
def test_base_exceptions_end_their_own_task_only(pool: PoolExecutor, task: Any) -> None:
    if pool.kind == "adapted ProcessPoolExecutor":
        pytest.skip("what such an exception does to somebody else's workers is their affair")
    args = (3,) if task is tasks.exit_with else ()
    error = pool.submit(task, *args).exception()
    assert isinstance(error, (KeyboardInterrupt, SystemExit))
    assert pool.submit(tasks.square, 3).result() == 9


def test_returned_errors_and_stop_iteration_are_values(pool: PoolExecutor) -> None:
    value = pool.submit(tasks.returned_error, 1).result()
    assert isinstance(value, ValueError)
    assert isinstance(pool.submit(tasks.stop_iteration, 1).exception(), StopIteration)


def test_every_keyword_reaches_the_function(pool: PoolExecutor) -> None:
    given = {"self": 1, "fn": 2, "executor": 3, "timeout": 4, "kind": 5, "task_timeout": 6}
    assert pool.submit(tasks.keywords, 0, **given).result() == ((0,), given)


def test_standard_wait_and_as_completed_take_our_futures(pool: PoolExecutor) -> None:
    futures = [pool.submit(tasks.square, n) for n in range(20)]
    squares = {n * n for n in range(20)}
    assert {future.result() for future in concurrent.futures.as_completed(futures)} == squares
    done, not_done = concurrent.futures.wait(futures)
    assert done == set(futures)
    assert not not_done
    assert set(poolkit.as_completed(futures)) == set(futures)
    assert poolkit.wait(futures).not_done == set()


def test_callbacks_run_and_what_they_raise_goes_no_further(pool: PoolExecutor) -> None:
    seen: list[object] = []
    called = threading.Event()

    def record(future: concurrent.futures.Future[int]) -> None:
        seen.append(future.result())
        called.set()

    future = pool.submit(tasks.square, 4)
    future.add_done_callback(lambda _: tasks.exit_with(1))
    future.add_done_callback(record)
    assert called.wait(30)
    assert seen == [16]
    assert pool.submit(tasks.square, 5).result() == 25


def test_running_and_cancel(concurrent_pool: PoolExecutor, gate: GateKeeper) -> None:
    pool = concurrent_pool
    running = [pool.submit(gate.gate.hold, n) for n in range(2)]
    gate.wait_started(2)
    assert all(future.running() for future in running)
    assert not any(future.cancel() for future in running)
    # Other process pools call a few tasks running that wait in a queue; these are the last.
    waiting = [pool.submit(tasks.square, n) for n in range(10)]
    assert waiting[-1].cancel()
    assert waiting[-1].cancelled()
    assert waiting[-1].cancel()
    with pytest.raises(CancelledError):
        waiting[-1].result()
    assert concurrent.futures.wait([waiting[-1]], timeout=30).done
    with pytest.raises(TimeoutError):
        running[0].result(timeout=0)
    gate.open()
    assert [future.result() for future in running] == [0, 1]
    assert [future.result() for future in waiting[:-1]] == [n * n for n in range(9)]


def test_shutdown_refuses_and_waits(make: Make) -> None:
    pool = make()
    futures = [pool.submit(tasks.square, n) for n in range(10)]
    pool.shutdown()
    assert all(future.done() for future in futures)
    pool.shutdown()
    with pytest.raises(PoolShutdownError, match="has been shut down"):
        pool.submit(tasks.square, 1)
    with pytest.raises(RuntimeError):
        pool.submit(tasks.square, 1)


def test_shutdown_can_cancel_what_has_not_started(make: Make, gate: GateKeeper) -> None:
    pool = make()
    if pool.capabilities.runs_in_caller:
        pytest.skip("nothing is ever pending")
    running = [pool.submit(gate.gate.hold) for _ in range(2)]
    gate.wait_started(2)
    pending = [pool.submit(tasks.square, n) for n in range(50)]
    pool.shutdown(wait=False, cancel_futures=True)
    gate.open()
    everything: list[TaskFuture[Any]] = [*running, *pending]
    assert not concurrent.futures.wait(everything, timeout=60).not_done
    # A standard process pool has moved a few into a queue from which nothing comes back.
    assert sum(future.cancelled() for future in pending) >= 40
    assert not any(future.cancelled() for future in running)


def test_interrupted_block_cancels_pending_tasks(make: Make, gate: GateKeeper) -> None:
    pool = make()
    if pool.capabilities.runs_in_caller:
        pytest.skip("nothing is ever pending")

    def work() -> None:
        with pool:
            for _ in range(2):
                pool.submit(gate.gate.hold)
            pending.extend(pool.submit(tasks.square, n) for n in range(50))
            gate.wait_started(2)
            gate.open()
            raise KeyboardInterrupt

    pending: list[TaskFuture[int]] = []
    with pytest.raises(KeyboardInterrupt):
        work()
    assert all(future.done() for future in pending)


def test_bound_blocks_submit(make: Make, gate: GateKeeper) -> None:
    pool = make(max_pending=3)
    if pool.capabilities.runs_in_caller:
        assert [pool.submit(tasks.square, n).result() for n in range(9)][-1] == 64
        return
    held = [pool.submit(gate.gate.hold) for _ in range(3)]
    submitted = threading.Event()

    def submit() -> None:
        futures.append(pool.submit(tasks.square, 7))
        submitted.set()

    futures: list[TaskFuture[int]] = []
    thread = threading.Thread(target=submit)
    thread.start()
    gate.wait_started(2)
    assert not submitted.is_set()
    gate.open()
    assert submitted.wait(60)
    thread.join()
    assert futures[0].result() == 49
    assert all(future.result() is None for future in held)


def test_bound_can_raise_and_every_ending_frees_its_place(make: Make, gate: GateKeeper) -> None:
    pool = make(max_pending=2, when_full="raise")
    for n in range(10):
        assert pool.submit(tasks.square, n).exception() is None
        assert pool.submit(tasks.fail, n).exception() is not None
    if pool.capabilities.runs_in_caller:
        return
    pool.submit(gate.gate.hold)
    pool.submit(gate.gate.hold)
    for _ in range(3):
        with pytest.raises(QueueFullError, match="max_pending=2"):
            pool.submit(tasks.square, 1)
    gate.open()


def test_cancelling_frees_the_place(make: Make, gate: GateKeeper) -> None:
    pool = make(max_pending=20, when_full="raise")
    if pool.capabilities.runs_in_caller:
        pytest.skip("nothing is ever pending")
    for _ in range(19):
        pool.submit(gate.gate.hold)
    gate.wait_started(2)
    for _ in range(50):
        assert pool.submit(tasks.square, 1).cancel()
    gate.open()


def test_shutdown_sends_a_blocked_submitter_away(make: Make, gate: GateKeeper) -> None:
    pool = make(max_pending=1)
    if pool.capabilities.runs_in_caller:
        pytest.skip("nothing blocks")
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
    thread.join()
    assert len(refused) == 1
    gate.open()


def test_views_have_bounds_of_their_own_and_close_alone(make: Make, gate: GateKeeper) -> None:
    pool = make()
    view = pool.with_options(max_pending=1, when_full="raise")
    assert view.kind == pool.kind
    assert view.max_workers == pool.max_workers
    assert view.submit(tasks.square, 2).result() == 4
    if not pool.capabilities.runs_in_caller:
        view.submit(gate.gate.hold)
        with pytest.raises(QueueFullError):
            view.submit(tasks.square, 1)
        assert pool.submit(tasks.square, 3).result() == 9
        gate.open()
    view.shutdown()
    with pytest.raises(PoolShutdownError, match="view"):
        view.submit(tasks.square, 2)
    assert pool.submit(tasks.square, 2).result() == 4


def test_both_bounds_apply_to_a_view(make: Make, gate: GateKeeper) -> None:
    pool = make(max_pending=2, when_full="raise")
    if pool.capabilities.runs_in_caller:
        pytest.skip("nothing is ever pending")
    view = pool.with_options(max_pending=10)
    view.submit(gate.gate.hold)
    view.submit(gate.gate.hold)
    with pytest.raises(QueueFullError, match="max_pending=2"):
        view.submit(tasks.square, 1)
    gate.open()


def test_closing_the_pool_closes_its_views(make: Make) -> None:
    pool = make()
    view = pool.with_options(max_pending=5)
    pool.shutdown()
    with pytest.raises(PoolShutdownError):
        view.submit(tasks.square, 1)


def test_adapting_one_of_ours_gives_a_view(pool: PoolExecutor) -> None:
    with poolkit.make_executor(pool, max_pending=3) as view:
        assert view.submit(tasks.square, 2).result() == 4
    assert pool.submit(tasks.square, 2).result() == 4


def test_functions_are_checked_at_the_call(pool: PoolExecutor) -> None:
    with pytest.raises(TypeError, match="fn must be callable, not 4"):
        pool.submit(tasks.square(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callable"):
        pool.map(None, [1])  # type: ignore[arg-type]


def test_map_is_the_standard_one(pool: PoolExecutor) -> None:
    assert list(pool.map(tasks.add, range(5), range(3))) == [0, 2, 4]
    assert list(pool.map(tasks.square, range(50), chunksize=7)) == [n * n for n in range(50)]
    assert list(pool.map(tasks.square, range(50), chunksize="auto")) == [n * n for n in range(50)]
    assert list(pool.map(tasks.square, [])) == []
    results = pool.map(tasks.fail_on_multiples_of_three, [1, 2, 3, 4])
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ValueError, match="3"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_is_eager_without_buffersize(make: Make) -> None:
    pool = make()
    pulled: list[int] = []

    def numbers() -> Any:
        for n in range(30):
            pulled.append(n)
            yield n

    pool.map(tasks.square, numbers())
    assert len(pulled) == 30
    pulled.clear()
    results = pool.map(tasks.square, numbers(), buffersize=4)
    assert len(pulled) == 4
    assert next(results) == 0
    assert next(results) == 1
    assert len(pulled) <= 6
    assert list(results) == [n * n for n in range(2, 30)]


@pytest.mark.parametrize(
    ("buffersize", "error"), [("7", TypeError), (1.5, TypeError), (0, ValueError)]
)
def test_map_checks_buffersize(pool: PoolExecutor, buffersize: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="buffersize"):
        pool.map(tasks.square, [1], buffersize=buffersize)


def test_map_on_a_bounded_pool_goes_through_the_bound(make: Make) -> None:
    pool = make(max_pending=3)
    results = pool.map(tasks.square, range(20), chunksize=10)
    assert list(results) == [n * n for n in range(20)]


def test_unsendable_things_fail_alone(make: Make) -> None:
    pool = make()
    if not pool.capabilities.serializes:
        pytest.skip("nothing is pickled here")
    innocent = [pool.submit(tasks.square, n) for n in range(10)]
    with pytest.raises(poolkit.TaskSerializationError, match="can't be sent"):
        pool.submit(tasks.keywords, threading.Lock())
    bad = pool.submit(tasks.unpicklable)
    assert isinstance(bad.exception(), poolkit.TaskSerializationError)
    assert isinstance(pool.submit(tasks.unloadable).exception(), poolkit.TaskSerializationError)
    lost = pool.submit(tasks.fail_badly).exception()
    assert isinstance(lost, poolkit.RemoteTaskError)
    assert lost.type_name == "tests.tasks.LoadsBadly"
    assert "fail_badly" in lost.traceback
    assert [future.result() for future in innocent] == [n * n for n in range(10)]
    assert pool.submit(tasks.square, 3).result() == 9


def test_closures_travel_where_cloudpickle_is_installed(make: Make) -> None:
    pool = make()
    offset = 5
    if pool.kind == "adapted ProcessPoolExecutor" and not pool.capabilities.serializes:
        pytest.skip("loky has its own way")
    assert pool.submit(lambda x: x + offset, 2).result() == 7


def test_the_iterator_of_map_can_be_closed(make: Make, gate: GateKeeper) -> None:
    """As the standard library's, a generator: closing it cancels the rest."""
    pool = make()
    gate.open()
    results = pool.map(gate.gate.hold, range(3))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert list(results) == []
    assert list(pool.map(tasks.square, range(3))) == [0, 1, 4]
