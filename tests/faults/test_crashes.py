"""A worker that dies costs the task that it was running, and nothing else."""

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

import pytest

from poolkit import WorkerCrashedError

from ..tasks import GateKeeper, square
from . import cargo, tasks
from .census import Endings
from .helpers import LONG, Innocents, Mailbox, MakePool, StartScript, crash_of

pytestmark = pytest.mark.timeout(60)

Way = tuple[Callable[..., Any], tuple[Any, ...], int, str | None]

WAYS: dict[str, Way] = {
    "exit code 0": (tasks.exit_now, (0,), 0, None),
    "exit code 3": (tasks.exit_now, (3,), 3, None),
    "SIGKILL": (tasks.die_of, (signal.SIGKILL,), -9, "SIGKILL"),
    "SIGABRT": (os.abort, (), -6, "SIGABRT"),
    "segfault": (tasks.segfault, (), -11, "SIGSEGV"),
    "unpickling its argument": (cargo.echo, (cargo.DeadlyArgument(5),), 5, None),
    "pickling its result": (cargo.deadly_result, (6,), 6, None),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_death_is_an_error_of_its_task(make_pool: MakePool, innocents: Innocents, way: str):
    task, args, exit_code, signal_name = WAYS[way]
    pool = make_pool()
    with innocents(pool):
        error = crash_of(pool.submit(task, *args))
    assert (error.exit_code, error.signal_name) == (exit_code, signal_name)
    assert task.__name__ in error.task
    assert error.task in str(error)
    assert isinstance(error.pid, int)
    assert error.pid != os.getpid()
    assert isinstance(error, BrokenExecutor)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is WorkerCrashedError
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_deaths_under_every_start_method(
    make_pool: MakePool, innocents: Innocents, start_method: str
) -> None:
    pool = make_pool(start_method=start_method)
    with innocents(pool):
        crashes = [pool.submit(tasks.exit_now, 0), pool.submit(tasks.die_of, signal.SIGKILL)]
        more = [pool.submit(square, n) for n in range(10)]
        assert crash_of(crashes[0]).exit_code == 0
        assert crash_of(crashes[1]).signal_name == "SIGKILL"
        assert [future.result() for future in more] == [n * n for n in range(10)]


def test_many_deaths_do_not_break_the_pool(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool()
    with innocents(pool):
        crashes = [pool.submit(tasks.exit_now, code) for code in range(20)]
        assert [crash_of(crash).exit_code for crash in crashes] == list(range(20))


def test_both_workers_die_at_once(
    make_pool: MakePool, innocents: Innocents, mailbox: Mailbox, gate: GateKeeper
) -> None:
    pool = make_pool()
    with innocents(pool, hold=False):
        crashes = [pool.submit(tasks.die_at_gate, mailbox.path, gate.gate) for _ in range(2)]
        gate.wait_started(2)
        queued = [pool.submit(square, n) for n in range(100)]
        gate.open()
        pids = {crash_of(crash).pid for crash in crashes}
        assert [future.result() for future in queued] == [n * n for n in range(100)]
    assert pids == {mailbox.read()[0], mailbox.read()[0]}


def test_sys_exit_is_no_death(make_pool: MakePool) -> None:
    pool = make_pool(1)
    pid, _ = pool.submit(tasks.pid_and_group).result()
    error = pool.submit(sys.exit, 3).exception()
    assert isinstance(error, SystemExit)
    assert error.code == 3
    assert pool.submit(tasks.pid_and_group).result()[0] == pid


def test_killed_from_outside_while_busy(
    make_pool: MakePool, innocents: Innocents, mailbox: Mailbox, gate: GateKeeper
) -> None:
    pool = make_pool()
    with innocents(pool):
        future = pool.submit(tasks.hold, mailbox.path, gate.gate)
        gate.wait_started()
        (pid,) = mailbox.read()
        os.kill(pid, signal.SIGKILL)
        error = crash_of(future)
    assert (error.pid, error.exit_code, error.signal_name) == (pid, -9, "SIGKILL")


def test_killed_from_outside_while_idle_costs_nothing(make_pool: MakePool) -> None:
    pool = make_pool(1)
    killed = set()
    for _ in range(10):
        pid, _ = pool.submit(tasks.pid_and_group).result()
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
        futures = [pool.submit(square, n) for n in range(20)]
        assert [future.result() for future in futures] == [n * n for n in range(20)]
    assert len(killed) == 10


def test_both_killed_while_idle(
    make_pool: MakePool, innocents: Innocents, mailbox: Mailbox, gate: GateKeeper
) -> None:
    pool = make_pool()
    held = [pool.submit(tasks.hold, mailbox.path, gate.gate) for _ in range(2)]
    gate.wait_started(2)
    gate.open()
    assert [future.result() for future in held] == [None, None]
    for _ in held:
        os.kill(mailbox.read()[0], signal.SIGKILL)
    with innocents(pool):
        pass


def test_death_half_way_through_sending_a_result(
    make_pool: MakePool,
    innocents: Innocents,
    mailbox: Mailbox,
    make_gate: Callable[[], GateKeeper],
) -> None:
    """The thread that reads results is kept in a callback until the sender has died."""
    pool = make_pool()
    guilty_gate, innocent_gate = make_gate(), make_gate()
    reader_is_kept, let_go = threading.Event(), threading.Event()

    def keep_reader(_: object) -> None:
        reader_is_kept.set()
        let_go.wait(LONG)

    with innocents(pool, hold=False):
        guilty = pool.submit(tasks.send_half, mailbox.path, guilty_gate.gate, 50_000_000)
        guilty_gate.wait_started()
        (pid,) = mailbox.read()
        innocent = pool.submit(innocent_gate.gate.hold, "innocent")
        innocent_gate.wait_started()
        innocent.add_done_callback(keep_reader)
        innocent_gate.open()
        try:
            assert reader_is_kept.wait(LONG)
            with Endings(pid) as sender:
                guilty_gate.open()
                sender.wait()
        finally:
            let_go.set()
        error = crash_of(guilty)
        assert (error.pid, error.signal_name) == (pid, "SIGKILL")
        assert innocent.result() == "innocent"


@pytest.mark.parametrize("then_die", [True, False])
def test_death_after_closing_all_descriptors(
    make_pool: MakePool, innocents: Innocents, then_die: bool
) -> None:
    pool = make_pool()
    with innocents(pool):
        error = crash_of(pool.submit(tasks.close_descriptors, then_die))
    if then_die:
        assert error.signal_name == "SIGKILL"


def test_a_grandchild_that_holds_the_descriptors(
    make_pool: MakePool, innocents: Innocents, mailbox: Mailbox, gate: GateKeeper
) -> None:
    pool = make_pool()
    with innocents(pool):
        crash = pool.submit(tasks.leave_child_with_descriptors, mailbox.path, gate.gate)
        gate.wait_started()
        assert crash_of(crash).pid == mailbox.read()[0]
    pool.shutdown()
    gate.open()  # only now does the grandchild end


@pytest.mark.parametrize("exit_code", [0, 9])
def test_a_dead_workers_children_die_with_it(
    make_pool: MakePool, innocents: Innocents, mailbox: Mailbox, gate: GateKeeper, exit_code: int
) -> None:
    pool = make_pool()
    with innocents(pool):
        crash = pool.submit(tasks.leave_child_in_group, mailbox.path, gate.gate, exit_code)
        gate.wait_started()
        with Endings(*mailbox.read()) as worker_and_child:
            gate.open()
            assert crash_of(crash).exit_code == exit_code
            worker_and_child.wait()


SEGFAULT = """\
from poolkit import WorkerCrashedError, make_executor
from tests.faults import tasks

if __name__ == "__main__":
    with make_executor("process", 2) as pool:
        innocent = pool.submit(abs, -3)
        try:
            pool.submit(tasks.segfault).result()
        except WorkerCrashedError as error:
            print(error.signal_name, innocent.result(), pool.submit(abs, -4).result())
"""


def test_a_segfault_leaves_its_traceback_on_stderr(start_script: StartScript) -> None:
    script = start_script(SEGFAULT)
    script.check()
    assert script.output.split() == ["SIGSEGV", "3", "4"]
    assert "Segmentation fault" in script.errors
    assert "in segfault" in script.errors
