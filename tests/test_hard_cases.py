"""Cases in which an earlier draft hung, lost a task, or told of a deadlock that was none."""

import concurrent.futures
import contextvars
import gc
import itertools
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import poolkit
from poolkit import DeadlockError, PoolShutdownError, make_executor, map_ordered, map_unordered

from . import tasks
from .tasks import GateKeeper, Meter, square

pytestmark = pytest.mark.timeout(20)


def test_a_result_is_not_held_back_by_a_slow_neighbour_in_its_chunk() -> None:
    go = threading.Event()

    def wait_at_two(number: int) -> int:
        if number == 2:
            go.wait()
        return number

    with make_executor("thread", 1) as pool:
        results = map_unordered(pool, wait_at_two, (n for n in range(3)), chunksize=3)
        assert [next(results), next(results)] == [0, 1]
        go.set()
        assert list(results) == [2]


def test_a_chunk_that_waits_for_its_consumer_is_no_deadlock() -> None:
    consumed = threading.Event()

    def wait_at_two(number: int) -> int:
        if number == 2:
            consumed.wait()
        return number

    def consumer() -> int:
        results = map_unordered(pool, wait_at_two, (n for n in range(3)), chunksize=3)
        first = next(results) + next(results)
        consumed.set()
        return first + sum(results)

    with make_executor("thread", 2) as pool:
        assert pool.submit(consumer).result() == 3


def test_a_view_of_a_pool_that_closes_under_a_blocked_submitter(gate: GateKeeper) -> None:
    pool = make_executor("thread", 1)
    view = pool.with_options(max_pending=1)
    view.submit(gate.gate.hold)
    gate.wait_started()
    errors: list[BaseException] = []

    def submit() -> None:
        try:
            view.submit(square, 1)
        except PoolShutdownError as error:
            errors.append(error)

    thread = threading.Thread(target=submit)
    thread.start()
    pool.shutdown(wait=False, cancel_futures=True)
    gate.open()
    view.shutdown()
    thread.join()
    assert len(errors) == 1
    pool.shutdown()


def test_exit_runs_the_tasks_of_a_view_whose_pool_was_dropped() -> None:
    script = """\
import poolkit
def main():
    view = poolkit.make_executor("thread", 1).with_options(task_timeout=60)
    for number in range(3):
        view.submit(print, number)
main()
"""
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert sorted(output.stdout.split()) == ["0", "1", "2"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_at_the_end_of_a_block_cancels_what_is_pending() -> None:
    script = """\
import os, signal, threading, poolkit
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
def interrupt():
    started.wait()
    submitted.wait()
    os.kill(os.getpid(), signal.SIGINT)
def task():
    started.set()
    poolkit.current_task().wait(60)
started, submitted, futures = threading.Event(), threading.Event(), []
threading.Thread(target=interrupt).start()
try:
    with poolkit.make_executor("thread", 1) as pool:
        futures += [pool.submit(task) for _ in range(50)]
        submitted.set()
except KeyboardInterrupt:
    print(sum(future.cancelled() for future in futures), all(f.done() for f in futures))
"""
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert output.stdout.split() == ["49", "True"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture
def interrupted_lock_taker(monkeypatch: pytest.MonkeyPatch, gate: GateKeeper) -> None:
    """Have Ctrl-C strike, and the tasks end, when the locks of those that run have been taken."""

    def enter(taker: Any) -> None:
        gate.wait_started()
        running = [future for future in taker.futures if future.running()]
        assert running
        for future in running:
            future._condition.acquire()
        gate.open()
        raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures._base._AcquireFutures.__enter__", enter)


@pytest.mark.usefixtures("interrupted_lock_taker")
@pytest.mark.parametrize("module", [concurrent.futures, poolkit])
@pytest.mark.parametrize("kind", ["thread", "process"])
def test_ctrl_c_while_locks_are_taken_ends_a_block(
    kind: str, module: Any, gate: GateKeeper
) -> None:
    futures = []
    with pytest.raises(KeyboardInterrupt), make_executor(kind, 2) as pool:
        futures += [pool.submit(gate.gate.hold) for _ in range(20)]
        module.wait(futures)
    assert all(future.done() for future in futures)


@pytest.mark.usefixtures("interrupted_lock_taker")
@pytest.mark.parametrize(
    "wait", [poolkit.wait, lambda futures: next(poolkit.as_completed(futures))]
)
def test_ctrl_c_while_waiting_leaves_a_pool_usable(wait: Any, gate: GateKeeper) -> None:
    with make_executor("thread", 1) as pool:
        futures = [pool.submit(gate.gate.hold) for _ in range(20)]
        with pytest.raises(KeyboardInterrupt):
            wait(futures)
        assert pool.submit(square, 5).result() == 25


def test_shutdown_in_a_callback_and_in_a_task(gate: GateKeeper) -> None:
    pool = make_executor("thread", 1)
    held = pool.submit(gate.gate.hold)
    gate.wait_started()
    future = pool.submit(square, 1)
    gate.open()
    held.result()
    future.add_done_callback(lambda _: pool.shutdown())
    assert future.result() == 1
    pool.shutdown()

    inner = make_executor("thread", 1)
    assert inner.submit(inner.shutdown).result() is None
    inner.shutdown()


def test_a_cancelled_futures_callback_may_shut_down(gate: GateKeeper) -> None:
    pool = make_executor("thread", 1)
    other = make_executor("thread", 1)
    other.submit(gate.gate.hold)
    gate.wait_started()
    future = other.submit(square, 1)
    future.add_done_callback(lambda _: pool.shutdown())
    assert future.cancel()
    gate.open()
    other.shutdown()


def test_leaving_a_view_inside_a_task_lends_the_slot() -> None:
    def task() -> int:
        with pool.with_options(max_pending=5) as view:
            future = view.submit(square, 3)
        return future.result()

    with make_executor("thread", 1) as pool:
        assert pool.submit(task).result() == 9


def test_chunks_fit_the_tightest_bound() -> None:
    with make_executor("thread", 2, max_pending=2) as pool:
        view = pool.with_options(max_pending=100)
        assert list(view.map(abs, range(100), chunksize=50)) == list(range(100))


def test_an_inline_task_does_not_wait_for_its_own_place() -> None:
    with make_executor("inline", max_pending=1) as pool:
        assert pool.submit(lambda: pool.submit(square, 2).result()).result() == 4


def test_a_cycle_beside_a_future_that_nobody_knows() -> None:
    ready = threading.Event()
    futures: list[Any] = []

    def task() -> object:
        ready.wait()
        return poolkit.wait([futures[0], foreign_future])

    with ThreadPoolExecutor(1) as foreign, make_executor("thread", 1) as pool:
        go = threading.Event()
        foreign_future = foreign.submit(go.wait)
        futures.append(pool.submit(task))
        ready.set()
        assert isinstance(futures[0].exception(), DeadlockError)
        go.set()


def test_an_adapted_pool_lends_one_spare_thread() -> None:
    meter = Meter()

    def outer() -> None:
        poolkit.wait([pool.submit(meter.task) for _ in range(30)])

    with ThreadPoolExecutor(1) as foreign, make_executor(foreign) as pool:
        pool.submit(outer).result()
    assert meter.most <= 2


def test_an_error_class_that_refuses_tracebacks() -> None:
    class Stubborn(Exception):
        def with_traceback(self, tb: Any) -> Any:
            raise RuntimeError("no")

    def fail() -> None:
        raise Stubborn

    with make_executor("thread", 1) as pool:
        assert isinstance(pool.submit(fail).exception(), Stubborn)
        assert pool.submit(square, 2).result() == 4


def test_infinite_limits_are_no_limits() -> None:
    with make_executor("thread", task_timeout=float("inf")) as pool:
        assert list(poolkit.map_ordered(pool, abs, [1], timeout=float("inf"))) == [1]
        assert list(pool.map(abs, [1], timeout=1e12)) == [1]


def test_cancelled_tasks_leave_the_queue_at_every_priority(gate: GateKeeper) -> None:
    with make_executor("thread", 1) as pool:
        pool.submit(gate.gate.hold)
        gate.wait_started()
        view = pool.with_options(priority=3)
        futures = [view.submit(square, 1) for _ in range(2000)]
        references = [weakref.ref(future) for future in futures]
        assert all(future.cancel() for future in futures)
        futures.clear()
        gc.collect()
        assert sum(reference() is not None for reference in references) <= 1200
        gate.open()


def test_collecting_iterators_at_any_moment_locks_nothing_up() -> None:
    def numbers() -> Iterator[int]:
        yield from itertools.count()

    thresholds = gc.get_threshold()
    gc.set_threshold(3, 1, 1)
    try:
        with make_executor("thread", 4) as pool:
            for _ in range(60):
                results = map_unordered(pool, abs, numbers(), chunksize=2)
                next(results)
                cycle: list[Any] = [results]
                cycle.append(cycle)
                del results, cycle
                pool.submit(abs, -1).result()
    finally:
        gc.set_threshold(*thresholds)


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_an_input_may_wait_for_what_it_has_given_out(kind: str, tmp_path: Any) -> None:
    """As a crawler's does, even where chunks have grown large: a part of one does not wait."""
    context = contextvars.ContextVar("context", default="lost")
    context.set("kept")
    pullers = set()

    def feed() -> Iterator[Any]:
        yield from itertools.repeat(None, 5000)
        for number in range(3):
            yield tmp_path / str(number)
        pullers.add(threading.get_ident())
        while len(list(tmp_path.iterdir())) < 3:
            threading.Event().wait(0.001)
        yield from itertools.repeat(None, 100)

    with make_executor(kind, 2) as pool:
        list(map_unordered(pool, touch, range(20000)))
        task = touch if kind == "process" else lambda path: touch(path) or context.get()
        results = list(map_unordered(pool, task, feed()))
    assert len(results) == 5103
    assert set(results) == ({None} if kind == "process" else {"kept"})
    assert pullers == {threading.get_ident()}


def touch(path: Any) -> Any:
    return path.touch() if isinstance(path, Path) else None


def test_an_input_that_breaks_off_in_the_middle_of_a_chunk() -> None:
    def feed() -> Iterator[int]:
        yield from range(1000)
        raise LookupError("broken off")

    seen: list[int] = []
    with make_executor("thread", 2) as pool:
        with pytest.raises(LookupError):
            seen.extend(map_ordered(pool, abs, feed(), chunksize=64))
        results = map_ordered(pool, abs, feed(), chunksize=64)
        assert list(itertools.islice(results, 1000)) == list(range(1000))
        with pytest.raises(LookupError):
            next(results)
        assert list(results) == []


def test_an_input_that_is_running_already() -> None:
    def feed() -> Iterator[int]:
        yield 1
        yield from map_ordered(pool, tasks.square, itself)

    with make_executor("thread", 2) as pool:
        itself = feed()
        with pytest.raises(ValueError, match="already executing"):
            list(map_ordered(pool, tasks.square, itself))
        assert pool.submit(abs, -1).result() == 1


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_a_callback_that_waits_for_its_own_pool(kind: str, gate: GateKeeper) -> None:
    """Where callbacks hold up all results, it says so; elsewhere, it works."""
    seen: list[Any] = []
    called = threading.Event()

    def use(_future: Any) -> None:
        for wait in (
            lambda: list(map_ordered(pool, tasks.square, range(20))),
            lambda: pool.submit(tasks.square, 5).result(),
            lambda: pool.submit(tasks.square, 5).result(timeout=60),
        ):
            try:
                seen.append(wait())
            except poolkit.UnsupportedError as error:
                seen.append(str(error))
        called.set()

    with make_executor(kind) as pool:
        if kind == "inline":
            gate.open()
        future = pool.submit(gate.gate.hold)
        future.add_done_callback(use)
        gate.open()
        called.wait()
        assert pool.submit(tasks.square, 3).result() == 9
    if kind == "process":
        assert len(seen) == 3
        assert all("in a callback" in text for text in seen)
    else:
        assert seen == [[n * n for n in range(20)], 25, 25]


def test_a_task_that_raises_stop_iteration() -> None:
    seen: list[int] = []
    with make_executor("thread", 1) as pool:
        with pytest.raises(RuntimeError) as caught:
            seen += map_ordered(pool, tasks.stop_iteration, range(3))
        assert isinstance(caught.value.__cause__, StopIteration)
        with pytest.raises(StopIteration):
            pool.submit(tasks.stop_iteration, 1).result()


def test_a_process_pool_that_is_shut_down_in_a_callback() -> None:
    pool = make_executor("process", 1)
    called = threading.Event()

    def shut_down(_future: Any) -> None:
        pool.shutdown()
        called.set()

    first = pool.submit(tasks.square, 2)
    first.add_done_callback(shut_down)
    called.wait()
    pool.shutdown()
    assert first.result() == 4


class RefusesBadly:
    """Pickling it raises what is no `Exception`."""

    def __reduce__(self) -> Any:
        raise SystemExit("from __reduce__")


def test_pickling_that_raises_badly_while_the_input_waits() -> None:
    """It happens in the thread that sends what waits; that lives on, and the consumer is told."""

    def feed() -> Iterator[Any]:
        yield 1
        yield 2
        yield RefusesBadly()
        time.sleep(0.2)  # not to wait for something: this is a slow input
        yield 4

    with make_executor("process", 1) as pool:
        assert pool.submit(abs, -1).result() == 1
        with pytest.raises(SystemExit):
            list(map_unordered(pool, repr, feed(), chunksize=8))
        assert list(map_unordered(pool, abs, range(100))) is not None
    go = threading.Event()

    def wait_for_results() -> Iterator[int]:
        yield from range(3)
        assert go.wait(20)

    def task(number: int) -> int:
        go.set()
        return number

    with make_executor("thread", 1) as pool:
        assert sorted(map_unordered(pool, task, wait_for_results(), chunksize=64)) == [0, 1, 2]


@pytest.mark.parametrize("policy", ["skip", 5])
def test_ctrl_c_in_an_inline_task_is_no_failure_to_be_tolerated(policy: Any) -> None:
    def task(number: int) -> int:
        if number == 3:
            raise KeyboardInterrupt
        return number

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        seen.extend(map_ordered("inline", task, range(10), on_error=policy))
    assert seen == [0, 1, 2]
    with pytest.raises(KeyboardInterrupt):
        list(poolkit.map_outcomes("inline", task, range(10)))


def test_an_inline_map_keeps_its_time() -> None:
    results = map_ordered("inline", tasks.spin, [0.0, 0.3, 0.0], timeout=0.2)
    assert next(results) is not None
    assert next(results) is not None
    with pytest.raises(TimeoutError):
        next(results)
    assert len(list(map_ordered("inline", tasks.spin, [0.3], timeout=0.2))) == 1


def test_very_long_limits_are_none_in_any_thread() -> None:
    done: list[Any] = []
    with make_executor("thread", 1) as pool:
        future = pool.submit(abs, -1)
        thread = threading.Thread(target=lambda: done.append(poolkit.wait([future], timeout=1e12)))
        thread.start()
        thread.join()
    assert len(done[0].done) == 1
