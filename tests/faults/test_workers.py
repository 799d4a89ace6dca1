"""What holds for every worker: how it starts, what it has, when it is replaced, its pools."""

import os
import signal
import socket
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolkit import PoolBrokenError, PoolExecutor

from ..tasks import GateKeeper, square
from . import tasks
from .census import LIMIT, Endings, descriptors
from .helpers import Innocents, Mailbox, MakePool, crash_of

pytestmark = pytest.mark.timeout(60)


# -- starting -------------------------------------------------------------------------------


def broken(pool: PoolExecutor) -> PoolBrokenError:
    """Return why the pool is broken, be it told by a future or by `submit`."""
    try:
        error = pool.submit(square, 1).exception()
    except PoolBrokenError as refusal:
        return refusal
    assert isinstance(error, PoolBrokenError), repr(error)
    return error


def test_an_initializer_that_raises_breaks_the_pool(
    make_pool: MakePool, innocents: Innocents
) -> None:
    with innocents(make_pool()):
        pool = make_pool(initializer=tasks.fail_to_start, initargs=(1,))
        for _ in range(10):
            assert "no database" in "".join(traceback.format_exception(broken(pool)))
        with pytest.raises(PoolBrokenError):
            pool.submit(square, 1)


def test_an_initializer_that_ends_the_worker_breaks_the_pool(
    make_pool: MakePool, innocents: Innocents
) -> None:
    with innocents(make_pool()):
        pool = make_pool(initializer=tasks.exit_now, initargs=(7,))
        for _ in range(10):
            assert "7" in "".join(traceback.format_exception(broken(pool)))
        with pytest.raises(PoolBrokenError):
            pool.submit(square, 1)


def test_a_worker_that_dies_once_while_it_starts_costs_nothing(
    make_pool: MakePool, innocents: Innocents, tmp_path: Path
) -> None:
    marker = tmp_path / "started"
    pool = make_pool(initializer=tasks.die_at_first_start, initargs=(str(marker),))
    with innocents(pool):
        pass
    assert marker.exists()


# -- what waits for workers that are busy -------------------------------------------------------


@pytest.mark.parametrize("end", ["result", "kill"])
@pytest.mark.parametrize("count", [1, 15, 16, 300])
def test_quick_tasks_wait_for_each_other_but_not_for_ever(
    make_pool: MakePool, gate: GateKeeper, count: int, end: str
) -> None:
    pool = make_pool(1)
    assert pool.submit(square, 3).result() == 9  # from now on, it is known to be quick
    held = pool.submit(gate.gate.hold)
    gate.wait_started()
    futures = [pool.submit(square, number) for number in range(count)]
    assert not any(future.done() for future in futures)
    if end == "kill":
        assert held.abort() == "killed"
    else:
        gate.open()
    assert [future.result() for future in futures] == [n * n for n in range(count)]


# -- what a worker has ----------------------------------------------------------------------


def test_workers_lead_their_own_groups_and_ignore_sigint(
    make_pool: MakePool,
    innocents: Innocents,
    mailbox: Mailbox,
    gate: GateKeeper,
    start_method: str,
) -> None:
    pool = make_pool(start_method=start_method)
    with innocents(pool):
        pid, group = pool.submit(tasks.pid_and_group).result()
        assert pid == group
        future = pool.submit(tasks.hold, mailbox.path, gate.gate, "held")
        gate.wait_started()
        assert mailbox.read() == [pid]
        os.kill(pid, signal.SIGINT)
        gate.open()
        assert future.result() == "held"
        assert pool.submit(tasks.pid_and_group).result() == (pid, group)


def test_names_tell_pool_and_worker(make_pool: MakePool, gate: GateKeeper) -> None:
    pool = make_pool()
    futures = [pool.submit(tasks.process_name, gate.gate) for _ in range(2)]
    gate.wait_started(2)
    gate.open()
    names = {future.result() for future in futures}
    assert len(names) == 2
    pool_name = repr(pool).strip("<>").partition(":")[0]
    assert all(pool_name in name.replace("-", " ") for name in names)


def test_workers_inherit_no_descriptors(
    make_pool: MakePool, gate: GateKeeper, start_method: str
) -> None:
    reader, writer = os.pipe()
    ours, theirs = socket.socketpair()
    try:
        marked = {str(Path(f"/proc/self/fd/{each}").readlink()) for each in (reader, ours.fileno())}
        os.set_inheritable(reader, True)
        os.set_inheritable(ours.fileno(), True)
        before = sockets(set(descriptors()))
        pool = make_pool(start_method=start_method)
        futures = [pool.submit(tasks.open_files, gate.gate) for _ in range(2)]
        gate.wait_started(2)
        of_parent = set(descriptors())
        gate.open()
        first, second = (set(future.result()) for future in futures)
        if start_method == "fork":  # all of the parent's, or an initializer could not rely on it
            of_parent, first, second = (each - before for each in (of_parent, first, second))
            marked = set()
    finally:
        os.close(reader)
        os.close(writer)
        ours.close()
        theirs.close()
    assert marked <= of_parent
    assert not marked & (first | second)
    # Nor may a worker hold a socket of the parent's or of another worker's.
    assert not sockets(first) & sockets(of_parent)
    assert not sockets(second) & sockets(of_parent)
    assert not sockets(first) & sockets(second)
    assert sockets(of_parent)


def sockets(targets: set[str]) -> set[str]:
    return {target for target in targets if target.startswith("socket:")}


def test_only_what_has_started_is_running(make_pool: MakePool, gate: GateKeeper) -> None:
    pool = make_pool()
    held = [pool.submit(gate.gate.hold, number) for number in range(2)]
    gate.wait_started(2)
    waiting = [pool.submit(square, number) for number in range(20)]
    assert all(future.running() for future in held)
    assert not any(future.running() for future in waiting)
    assert all(future.cancel() for future in waiting)
    statistics = pool.statistics()
    assert (statistics.workers, statistics.running, statistics.pending) == (2, 2, 0)
    gate.open()
    assert [future.result() for future in held] == [0, 1]


# -- when it is replaced --------------------------------------------------------------------


def test_a_worker_is_replaced_after_its_last_task(make_pool: MakePool) -> None:
    pool = make_pool(max_tasks_per_child=3)
    futures = [pool.submit(tasks.pid_and_group, number) for number in range(30)]
    counts = Counter(future.result()[0] for future in futures)
    assert max(counts.values()) <= 3
    assert sum(counts.values()) == 30


def test_recycled_workers_crash_like_others(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool(max_tasks_per_child=2)
    with innocents(pool):
        crashes = [pool.submit(tasks.exit_now, code) for code in range(6)]
        assert [crash_of(crash).exit_code for crash in crashes] == list(range(6))


def test_a_worker_that_has_grown_is_replaced(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool(max_worker_memory=300 << 20)
    with innocents(pool):
        pid, _ = pool.submit(tasks.pid_and_group).result()
        assert pool.submit(tasks.pid_and_group).result()[0] == pid
        with Endings(pid) as worker:
            futures = [pool.submit(tasks.hoard, 320 << 20)]
            futures += [pool.submit(tasks.hoard, 1) for _ in range(10)]
            pids = [future.result() for future in futures]
            worker.wait()
    assert pids[0] == pid
    assert pid not in pids[1:]


# -- neighbours -----------------------------------------------------------------------------


def test_a_stopped_idle_worker_does_not_hold_up_the_other(
    make_pool: MakePool, mailbox: Mailbox, make_gate: Callable[[], GateKeeper]
) -> None:
    """It was busy last, and the tasks are known to be short: a pool might send it many."""
    pool = make_pool()
    assert [pool.submit(square, 3).result() for _ in range(50)] == [9] * 50
    keepers = [make_gate(), make_gate()]
    held = []
    stopped = 0
    for keeper in keepers:
        held.append(pool.submit(tasks.hold, mailbox.path, keeper.gate))
        keeper.wait_started()
        (stopped,) = mailbox.read()
    for keeper, future in zip(keepers, held, strict=True):
        keeper.open()
        assert future.result() is None
    os.kill(stopped, signal.SIGSTOP)
    try:
        done = threading.Semaphore(0)
        futures = [pool.submit(square, number) for number in range(40)]
        for future in futures:
            future.add_done_callback(lambda _: done.release())
        for _ in range(39):  # one may be with the stopped worker
            assert done.acquire(timeout=LIMIT)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert [future.result() for future in futures] == [number**2 for number in range(40)]


# -- pools in workers -----------------------------------------------------------------------


def test_a_pool_in_a_worker_works_and_has_one_process(
    make_pool: MakePool, innocents: Innocents, start_method: str
) -> None:
    pool = make_pool(start_method=start_method)
    with innocents(pool):
        max_workers, squares, crash = pool.submit(tasks.use_inner_pool).result()
    assert max_workers == 1
    assert squares == [number * number for number in range(20)]
    assert crash == "WorkerCrashedError"


def test_a_pool_in_a_worker_dies_with_it(
    make_pool: MakePool,
    innocents: Innocents,
    mailbox: Mailbox,
    make_gate: Callable[[], GateKeeper],
) -> None:
    pool, gate = make_pool(), make_gate()
    with innocents(pool):
        crash: Any = pool.submit(tasks.die_with_inner_pool, mailbox.path, gate.gate)
        gate.wait_started()
        with Endings(*mailbox.read()) as inner_worker_and_child:
            gate.open()
            assert crash_of(crash).signal_name == "SIGKILL"
            inner_worker_and_child.wait()
