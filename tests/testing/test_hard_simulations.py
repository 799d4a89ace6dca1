"""What hostile code under test, and hostile tests, can do to a simulation: errors, no hangs."""

import concurrent.futures
import gc
import os
import queue
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

import poolkit
from poolkit import PoolShutdownError, Retry, TaskAbortedError, make_executor
from poolkit.testing import (
    Schedule,
    SimulatedExecutor,
    WouldBlockError,
    checkpoint,
    explore,
    override_executors,
    sleep,
)
from poolkit.testing import _simulation as simulation

ORIGINALS = (threading.Lock, threading.RLock, threading.Thread.start, threading.Thread.join)
LOCK = threading.Lock()
SAME = [LOCK]
MADE_BY = Lock


@pytest.fixture(autouse=True)
def quick_and_clean(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Wait less long where nothing is to come, and see that nothing stays replaced."""
    monkeypatch.setattr(simulation, "_LOOK", 0.3)
    monkeypatch.setattr(simulation, "_LAST_WAIT", 0.3)
    monkeypatch.setattr(simulation, "PATIENCE", 0.5)
    yield
    now = (threading.Lock, threading.RLock, threading.Thread.start, threading.Thread.join)
    assert now == ORIGINALS
    assert MADE_BY is Lock is threading.Lock


# -- who keeps the turn --------------------------------------------------------------------


def test_a_task_that_blocks_for_real_ends_the_test_and_not_the_session() -> None:
    older = threading.Lock()
    older.acquire()
    for leave in ("with", "explore", "end"):
        futures: list[Any] = []

        def block() -> None:
            with older:
                pass

        def test(pool: Any) -> None:
            futures.append(pool.submit(block))
            futures.append(pool.submit(sleep, 5))
            futures[0].result()

        with pytest.raises(WouldBlockError, match="can't see") as caught:
            if leave == "with":
                with SimulatedExecutor(1) as pool:
                    test(pool)
            elif leave == "explore":
                explore(test, schedules=3)
            else:
                pool = SimulatedExecutor(1)
                try:
                    test(pool)
                finally:
                    pool.end()
        assert "test_hard_simulations.py" in str(caught.value)
        assert all(future.done() for future in futures), (leave, futures)
        assert isinstance(futures[0].exception(), TaskAbortedError)
        older.release()  # and its thread ends
        older.acquire()


def test_an_interrupt_while_the_test_waits(request: pytest.FixtureRequest) -> None:
    # Where pytest runs as a job in the background, the signal is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    older = threading.Lock()
    older.acquire()
    main = threading.get_ident()

    def interrupt_and_block() -> None:
        signal.pthread_kill(main, signal.SIGINT)
        with older:
            pass

    with pytest.raises(KeyboardInterrupt):
        with SimulatedExecutor(1) as pool:
            pool.submit(interrupt_and_block).result()
    older.release()

    def interrupt_and_go_on() -> None:
        signal.pthread_kill(main, signal.SIGINT)
        while True:
            sleep(1)

    with pytest.raises(KeyboardInterrupt):
        with SimulatedExecutor(1) as pool:
            pool.submit(interrupt_and_go_on).result()


def test_clean_up_that_waits_for_what_does_not_come() -> None:
    lock, cleaned = [threading.Lock()], list[str]()

    def holder() -> None:
        with lock[0]:
            sleep(100)

    def cleaner() -> None:
        try:
            sleep(100)
        finally:
            with lock[0]:
                cleaned.append("never")

    with pytest.raises(ZeroDivisionError):
        with SimulatedExecutor("") as pool:
            lock[0] = threading.Lock()
            pool.submit(cleaner)
            pool.submit(holder)
            sleep(1)
            raise ZeroDivisionError
    assert cleaned == []


def test_lines_of_a_clean_up_are_run_to_the_end() -> None:
    steps: list[int] = []

    def task() -> None:
        try:
            sleep(100)
        finally:
            steps.append(1)
            steps.append(2)
            steps.append(3)

    with pytest.raises(ZeroDivisionError):
        with SimulatedExecutor(3, preempt="lines") as pool:
            pool.submit(task)
            sleep(1)
            raise ZeroDivisionError
    assert steps == [1, 2, 3]


def test_loops_that_wait() -> None:
    def test(pool: Any) -> None:
        flags: list[bool] = []

        def spin() -> None:
            while not flags:
                checkpoint()

        pool.submit(spin)
        pool.submit(flags.append, True)

    explore(test, schedules=20)
    with pytest.raises(WouldBlockError, match="There is no end"):
        with SimulatedExecutor(1) as pool:

            def poll() -> None:
                while True:
                    sleep(1)

            pool.submit(poll).result()


# -- who is not part of it -----------------------------------------------------------------


def test_threads_queues_and_real_pools() -> None:
    with SimulatedExecutor(1) as pool:
        results: list[int] = []
        thread = threading.Thread(target=lambda: results.append(pool.submit(abs, -3).result()))
        thread.start()
        thread.join()
        assert results == [3]
        thread = threading.Thread(target=threading.Event().wait, args=(0.01,), daemon=True)
        thread.start()
        thread.join(timeout=1000)
        assert not thread.is_alive()
        box = queue.SimpleQueue[int]()
        pool.submit(box.put, 7)
        assert box.get() == 7
        with ThreadPoolExecutor(1) as real:
            before = pool.elapsed
            assert real.submit(abs, -2).result() == 2
            assert pool.submit(lambda: real.submit(abs, -4).result()).result() == 4
            assert pool.elapsed - before < 1
        with make_executor("thread", 1) as ours:
            future = ours.submit(time.sleep, 0.6)  # longer than a nap of the main thread
            before = pool.elapsed
            assert future.result() is None
            assert pool.elapsed == before


def test_locks_by_any_name_exclude_each_other() -> None:
    counter = [0]

    def add(lock: Any) -> None:
        with lock:
            was = counter[0]
            counter[0] = was + 1

    for seed in range(20):
        counter[0] = 0
        with SimulatedExecutor(seed, preempt="lines") as pool:
            made = Lock()  # by a name that was imported
            for _ in range(3):
                pool.submit(add, made)
        assert counter[0] == 3
        with SimulatedExecutor(seed) as pool:
            assert LOCK is not SAME[0]
            with LOCK:
                assert SAME[0].locked()
            pool.submit(checkpoint)


def test_a_class_that_refuses_to_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Meta(type):
        def __setattr__(cls, name: str, value: object) -> None:
            raise AttributeError("sealed")

    class Sealed(metaclass=Meta):
        lock = threading.Lock()

    monkeypatch.setattr(sys.modules[__name__], "Sealed", Sealed, raising=False)
    with SimulatedExecutor(1) as pool:
        assert pool.submit(abs, -1).result() == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_on_its_own(tmp_path: Path) -> None:
    with SimulatedExecutor(1) as pool:
        pool.submit(abs, -1).result()
        child = os.fork()
        if not child:
            sleep(0)  # real
            made = type(threading.Lock()).__name__
            (tmp_path / "made").write_text(made)
            os._exit(0)
        os.waitpid(child, 0)
    assert (tmp_path / "made").read_text() == "lock"


# -- what is left ---------------------------------------------------------------------------


def test_a_pool_that_outlives_its_simulation() -> None:
    kept: list[Any] = []

    def test() -> None:
        if not kept:
            kept.append(make_executor("thread"))
        kept[0].submit(abs, 1).result()

    with pytest.raises(PoolShutdownError):
        explore(test)
    with SimulatedExecutor(1, durations=lambda task: 100.0) as pool:
        future = pool.submit(abs, 1)
        with pytest.raises(TimeoutError):
            future.result(timeout=1)
        pool.end()
        assert isinstance(future.exception(), TaskAbortedError)


def test_a_forgotten_executor() -> None:
    pool = SimulatedExecutor(1)
    future = pool.submit(sleep, 100)
    with pytest.raises(TimeoutError):
        future.result(timeout=1)
    del pool
    gc.collect()
    with SimulatedExecutor(2) as other:  # a simulation of its own
        assert other.elapsed == 0
        assert future.done()


# -- times and orders -----------------------------------------------------------------------


def test_limits_hold_for_all_of_several_waits() -> None:
    for as_completed in (poolkit.as_completed, concurrent.futures.as_completed):
        with SimulatedExecutor(1) as pool:
            futures = [pool.submit(sleep, seconds) for seconds in (6, 12, 18)]
            seen = 0
            with pytest.raises(TimeoutError):
                for _ in as_completed(futures, timeout=10):
                    seen += 1
            assert seen == 1
            assert round(pool.elapsed) == 10


def test_futures_that_are_done_come_in_the_order_given() -> None:
    with SimulatedExecutor(1) as pool:
        futures = [pool.submit(abs, n) for n in range(12)]
        poolkit.wait(futures)
        assert list(poolkit.as_completed(futures)) == futures


def test_chance_is_part_of_the_schedule() -> None:
    def run(seed: int | Schedule) -> tuple[Any, ...]:
        calls: list[float] = []

        def flaky() -> None:
            calls.append(pool.elapsed)
            raise OSError

        with SimulatedExecutor(seed, durations=(1, 2), retry=Retry(wait=60)) as pool:
            poolkit.wait([pool.submit(flaky) for _ in range(3)])
        return tuple(calls), pool.schedule

    calls, schedule = run(7)
    assert run(7) == (calls, schedule)
    assert run(schedule)[0] == calls
    assert run(8)[0] != calls


def test_durations_that_make_no_sense_fail_the_task() -> None:
    for wrong, error in ((lambda task: -1.0, ValueError), (lambda task: 1 / 0, ZeroDivisionError)):
        with SimulatedExecutor(1, durations=wrong) as pool:
            assert isinstance(pool.submit(abs, 1).exception(), error)


def test_a_factory_may_make_pools_itself() -> None:
    with override_executors(lambda max_workers=None: make_executor("inline")):
        with make_executor("thread", 2) as pool:
            assert pool.kind == "inline"


def test_an_error_that_can_not_be_added_to() -> None:
    class Sealed(Exception):
        def add_note(self, note: str) -> None:
            raise RuntimeError("sealed")

    def test(pool: Any) -> None:
        pool.submit(abs, 1).result()
        raise Sealed

    with pytest.raises(Sealed):
        explore(test)
    with pytest.raises(Sealed), SimulatedExecutor(1) as pool:
        test(pool)
