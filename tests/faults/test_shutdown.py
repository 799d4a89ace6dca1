"""A pool ends when it is told to, whatever its workers and callbacks are doing."""

import concurrent.futures
import gc
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from pathlib import Path
from typing import Any

import pytest

from poolkit import PoolkitError, PoolShutdownError, TaskFuture, make_executor
from poolkit.backends.process.loop import Loop

from ..tasks import GateKeeper, interrupt, square
from . import cargo, tasks
from .census import LIMIT, Endings
from .helpers import Innocents, Mailbox, MakePool, counted, crash_of

pytestmark = pytest.mark.timeout(60)


def ended_by_force(future: Future[Any]) -> bool:
    """Whether a task was cancelled, or stopped by an error of the pool's."""
    try:
        return isinstance(future.exception(timeout=LIMIT), PoolkitError)
    except CancelledError:
        return True


def test_cancelled_futures_are_notified(make_pool: MakePool, gate: GateKeeper) -> None:
    pool = make_pool()
    held = [pool.submit(gate.gate.hold, number) for number in range(2)]
    gate.wait_started(2)
    pending = [pool.submit(square, number) for number in range(50)]
    returned: list[int] = []

    def wait() -> None:
        returned.append(len(concurrent.futures.wait(pending, timeout=LIMIT).done))
        returned.append(len(list(concurrent.futures.as_completed(pending, timeout=LIMIT))))

    thread = threading.Thread(target=wait)
    thread.start()
    pool.shutdown(wait=False, cancel_futures=True)
    thread.join()
    assert returned == [50, 50]
    assert all(future.cancelled() for future in pending)
    gate.open()
    assert [future.result() for future in held] == [0, 1]


def test_a_callback_that_submits_while_the_pool_shuts_down(
    make_pool: MakePool, gate: GateKeeper
) -> None:
    pool = make_pool()
    held = [pool.submit(gate.gate.hold, number) for number in range(2)]
    gate.wait_started(2)
    refused = threading.Semaphore(0)

    def submit_more(_: object) -> None:
        try:
            pool.submit(square, 1)
        except PoolShutdownError:
            refused.release()

    pending = [pool.submit(square, number) for number in range(20)]
    everything: list[TaskFuture[Any]] = [*held, *pending]
    for future in everything:
        future.add_done_callback(submit_more)
    pool.shutdown(wait=False, cancel_futures=True)
    gate.open()
    for _ in range(22):
        assert refused.acquire(timeout=LIMIT)


@pytest.mark.parametrize("raise_it", [interrupt, sys.exit, cargo.raise_bad_error])
def test_a_callback_may_raise_anything(
    make_pool: MakePool, innocents: Innocents, raise_it: Callable[[], object]
) -> None:
    pool = make_pool()
    with innocents(pool):
        futures = [pool.submit(square, number) for number in range(10)]
        for future in futures:
            future.add_done_callback(lambda _: raise_it())
        crash = pool.submit(tasks.exit_now, 1)
        crash.add_done_callback(lambda _: raise_it())
        assert [future.result() for future in futures] == [n * n for n in range(10)]
        assert crash_of(crash).exit_code == 1


def test_what_is_pending_at_shutdown_survives_a_crash(
    make_pool: MakePool, mailbox: Mailbox, gate: GateKeeper
) -> None:
    pool = make_pool(1)
    crash = pool.submit(tasks.die_at_gate, mailbox.path, gate.gate)
    gate.wait_started()
    behind = [pool.submit(square, number) for number in range(20)]
    pool.shutdown(wait=False)
    gate.open()
    assert crash_of(crash).pid == mailbox.read()[0]
    assert [future.result() for future in behind] == [number**2 for number in range(20)]


@pytest.mark.parametrize("way", ["terminate_workers", "kill_workers"])
@pytest.mark.parametrize("task", ["hang", "hang_holding_the_gil"])
def test_workers_can_be_ended_by_force(
    make_pool: MakePool, mailbox: Mailbox, way: str, task: str
) -> None:
    if way == "terminate_workers" and task == "hang_holding_the_gil":
        pytest.skip("it ignores SIGTERM, which is all that this method promises")
    pool = make_pool(kill_grace=0.1)
    innocent = pool.submit(square, 3)
    assert innocent.result() == 9
    running = [pool.submit(tasks.hang_with_child, mailbox.path, task) for _ in range(2)]
    with Endings(*mailbox.read(), *mailbox.read()) as workers:
        pending = [pool.submit(square, number) for number in range(20)]
        getattr(pool, way)()
        everything: list[TaskFuture[Any]] = [*running, *pending]
        assert not concurrent.futures.wait(everything, timeout=LIMIT).not_done
        assert all(ended_by_force(future) for future in everything)
        workers.wait()
    with pytest.raises((PoolShutdownError, BrokenExecutor)):
        pool.submit(square, 1)
    assert innocent.result() == 9


@pytest.mark.parametrize("way", ["kill_workers", "interrupt"])
def test_nothing_is_repeated_once_all_is_told_to_end(
    make_pool: MakePool, gate: GateKeeper, runs: Path, way: str
) -> None:
    """Not even what was finished in the chunk of an item that had to be killed."""
    pool = make_pool(1)
    held = 7
    arguments = [runs] * 10, [gate.gate] * 10, [held] * 10, range(10)
    results = pool.map(tasks.note_and_hold_at, *arguments, chunksize=10)
    gate.wait_started()
    if way == "kill_workers":
        pool.kill_workers()
    else:
        pool._interrupt()
    pool.shutdown()
    assert counted(runs) == dict.fromkeys(range(held + 1), 1)
    with pytest.raises(PoolkitError):
        list(results)


def test_an_interrupted_block_kills_what_runs(mailbox: Mailbox, start_method: str) -> None:
    futures: list[TaskFuture[Any]] = []

    def work() -> None:
        with make_executor("process", 2, start_method=start_method, kill_grace=0.1) as pool:
            futures.append(pool.submit(square, 3))
            assert futures[0].result() == 9
            for task in ("hang", "hang_holding_the_gil"):
                futures.append(pool.submit(tasks.hang_with_child, mailbox.path, task))
            for _ in range(2):
                pids.extend(mailbox.read())
            futures.extend(pool.submit(square, number) for number in range(20))
            raise KeyboardInterrupt

    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        work()
    with Endings(*pids) as workers:
        workers.wait()
    assert all(future.done() for future in futures)
    assert all(ended_by_force(future) for future in futures[1:])
    assert futures[0].result() == 9


def test_the_loop_sleeps_while_a_worker_takes_its_time_to_end(
    make_pool: MakePool,
    start_method: str,
    mailbox: Mailbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turn, turns, times = Loop._turn, itertools.count(), 300

    def counting_turn(self: Loop) -> bool:
        next(turns)
        return turn(self)

    monkeypatch.setattr(Loop, "_turn", counting_turn)
    pool = make_pool(1, start_method=start_method)
    os.mkfifo(answers := tmp_path / "answers")
    pool.submit(tasks.talk_at_exit, mailbox.path, str(answers), times).result()
    pool.shutdown(wait=False)
    with answers.open("wb", buffering=0) as fifo:
        for number in range(times):
            assert mailbox.read() == [number]
            fifo.write(b".")
    pool.shutdown()
    assert next(turns) < times / 2


def test_a_dropped_executor_finishes_and_cleans_up(gate: GateKeeper, start_method: str) -> None:
    pool = make_executor("process", 2, start_method=start_method)
    held = [pool.submit(gate.gate.hold, number) for number in range(2)]
    gate.wait_started(2)
    crash = pool.submit(tasks.die_of, signal.SIGKILL)
    pending = [pool.submit(square, number) for number in range(20)]
    del pool
    gc.collect()
    gate.open()
    assert [future.result() for future in held] == [0, 1]
    assert crash_of(crash).signal_name == "SIGKILL"
    assert [future.result() for future in pending] == [number**2 for number in range(20)]


def test_a_dropped_idle_executor_cleans_up(start_method: str) -> None:
    pool = make_executor("process", 2, start_method=start_method)
    pid, _ = pool.submit(tasks.pid_and_group).result()
    with Endings(pid) as worker:
        del pool
        gc.collect()
        worker.wait()


def test_an_executor_that_was_never_used_cleans_up(make_pool: MakePool) -> None:
    make_pool().shutdown()
    make_pool().kill_workers()
    make_executor("process")
