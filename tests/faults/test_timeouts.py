"""Time limits hold against any code, and hit the late task alone; so does `abort`."""

import os
import random
import signal
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from poolkit import TaskAbortedError, TaskTimeoutError, map_outcomes, map_unordered

from ..tasks import GateKeeper, spin, square
from . import cargo, tasks
from .census import LIMIT, Endings
from .helpers import Innocents, Mailbox, MakePool, counted

pytestmark = pytest.mark.timeout(60)

SHORT = 0.3
"""Seconds, for tasks that hang: whatever the machine does meanwhile, they are late."""

HANGS: dict[str, Callable[..., object]] = {
    "asleep": tasks.hang,
    "ignoring SIGTERM": tasks.hang_ignoring_sigterm,
    "in C, with the GIL": tasks.hang_holding_the_gil,
}


def late(future: Future[Any], limit: float = SHORT) -> TaskTimeoutError:
    error = future.exception(timeout=LIMIT)
    assert isinstance(error, TaskTimeoutError), repr(error)
    assert error.limit_s == limit
    return error


@pytest.mark.parametrize("hang", HANGS)
def test_a_hung_task_is_late_alone(make_pool: MakePool, innocents: Innocents, hang: str) -> None:
    pool = make_pool(kill_grace=0.1)
    with innocents(pool):
        error = late(pool.with_options(task_timeout=SHORT).submit(HANGS[hang]))
    assert HANGS[hang].__name__ in error.task


def test_hung_tasks_under_every_start_method(
    make_pool: MakePool, innocents: Innocents, start_method: str
) -> None:
    pool = make_pool(start_method=start_method, kill_grace=0.1)
    with innocents(pool):
        limited = pool.with_options(task_timeout=SHORT)
        futures = [limited.submit(hang) for hang in (tasks.hang, tasks.hang_holding_the_gil)]
        for future in futures:
            late(future)


@pytest.mark.parametrize("how", ["hang", "hang_holding_the_gil"])
def test_children_of_a_late_task_die_too(
    make_pool: MakePool, innocents: Innocents, mailbox: Mailbox, how: str
) -> None:
    pool = make_pool(kill_grace=0.1)
    with innocents(pool):
        # The limit is longer, so that the task has told of its child by then.
        future = pool.with_options(task_timeout=1.0).submit(
            tasks.hang_with_child, mailbox.path, how
        )
        with Endings(*mailbox.read()) as worker_and_child:
            late(future, 1.0)
            worker_and_child.wait()


def test_tasks_behind_a_hung_one_are_not_late(make_pool: MakePool) -> None:
    pool = make_pool(1, task_timeout=0.6)
    hung = pool.submit(tasks.hang)
    behind = [pool.submit(square, n) for n in range(30)]
    late(hung, 0.6)
    assert [future.result() for future in behind] == [n * n for n in range(30)]


def test_the_grace_of_one_worker_holds_up_nothing(
    make_pool: MakePool, innocents: Innocents, runs: Path
) -> None:
    """Four tasks ignore SIGTERM; their workers' grace does not end in this test."""
    pool = make_pool(kill_grace=1000)
    with innocents(pool, hold=False):
        limited = pool.with_options(task_timeout=SHORT)
        futures = [limited.submit(tasks.note_and_hang, runs) for _ in range(4)]
        for future in futures:
            late(future)
    for pid in counted(runs):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("task", "args"),
    [(cargo.echo, (cargo.EndlessArgument(),)), (cargo.endless_result, ())],
    ids=["argument", "result"],
)
def test_pickling_counts(
    make_pool: MakePool, innocents: Innocents, task: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    pool = make_pool(kill_grace=0.1)
    with innocents(pool):
        late(pool.with_options(task_timeout=SHORT).submit(task, *args))


def test_a_limit_shorter_than_a_results_journey(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool()
    with innocents(pool):
        limited = pool.with_options(task_timeout=0.02)
        futures = [limited.submit(cargo.zeros, 50_000_000) for _ in range(4)]
        for future in futures:
            with suppress(TaskTimeoutError):
                assert len(future.result()) == 50_000_000


def test_a_limit_never_hits_the_task_after_the_late_one(
    make_pool: MakePool, innocents: Innocents, runs: Path
) -> None:
    limit, choose = 0.03, random.Random(4).uniform
    pool = make_pool(kill_grace=0.5)
    limited = pool.with_options(task_timeout=limit)
    results = map_unordered(pool, square, range(20_000))
    with innocents(pool, hold=False):
        close, after = [], []
        for number in range(50):
            close.append(limited.submit(spin, limit * choose(0.85, 1.15)))
            after.append(pool.submit(tasks.note, runs, number))
        assert sum(results) == sum(number * number for number in range(20_000))
        errors = [future.exception() for future in close]
        assert {type(error) for error in errors} <= {type(None), TaskTimeoutError}
        assert [future.result() for future in after] == list(range(50))
    assert counted(runs) == dict.fromkeys(range(50), 1)


def test_items_of_chunks_around_their_limit(make_pool: MakePool, innocents: Innocents) -> None:
    limit, choose = 0.03, random.Random(5).uniform
    pool = make_pool(kill_grace=0.5)
    durations = [limit * choose(0.85, 1.15) for _ in range(40)]
    with innocents(pool):
        outcomes = list(
            map_outcomes(pool, spin, durations, chunksize=5, ordered=True, task_timeout=limit)
        )
    for duration, outcome in zip(durations, outcomes, strict=True):
        assert outcome.value == duration or isinstance(outcome.error, TaskTimeoutError)


# -- abort and cancel -----------------------------------------------------------------------


@pytest.mark.parametrize("hang", HANGS)
def test_abort_kills_a_running_task(
    make_pool: MakePool, innocents: Innocents, mailbox: Mailbox, hang: str
) -> None:
    pool = make_pool(kill_grace=0.1)
    with innocents(pool):
        future = pool.submit(tasks.hang_with_child, mailbox.path, HANGS[hang].__name__)
        with Endings(*mailbox.read()) as worker_and_child:
            achieved: str = future.abort()
            assert achieved == "killed"
            assert isinstance(future.exception(), TaskAbortedError)
            worker_and_child.wait()
    again: str = future.abort()
    assert again == "finished"


def test_abort_of_pending_and_finished_tasks(
    make_pool: MakePool, gate: GateKeeper, runs: Path
) -> None:
    pool = make_pool(1)
    finished = pool.submit(square, 3)
    assert finished.result() == 9
    running = pool.submit(gate.gate.hold, "running")
    gate.wait_started()
    pending = [pool.submit(tasks.note, runs, number) for number in range(20)]
    assert finished.abort() == "finished"
    assert [future.abort() for future in pending[::2]] == ["cancelled"] * 10
    assert all(future.cancelled() for future in pending[::2])
    gate.open()
    assert running.result() == "running"
    assert [future.result() for future in pending[1::2]] == list(range(1, 20, 2))
    assert finished.result() == 9
    assert counted(runs) == dict.fromkeys(range(1, 20, 2), 1)


def test_abort_around_the_end_of_a_task(
    make_pool: MakePool, innocents: Innocents, runs: Path
) -> None:
    pool, choose = make_pool(), random.Random(6).uniform
    with innocents(pool):
        for number in range(60):
            future = pool.submit(spin, choose(0, 0.002))
            after = pool.submit(tasks.note, runs, number)
            spin(choose(0, 0.003))
            achieved: str = future.abort()
            if achieved == "killed":
                assert isinstance(future.exception(), TaskAbortedError)
            elif achieved == "cancelled":
                assert future.cancelled()
            else:
                assert achieved == "finished"
                assert future.exception() is None
            assert after.result() == number
    assert counted(runs) == dict.fromkeys(range(60), 1)


def test_cancelling_what_was_sent_ahead(make_pool: MakePool, gate: GateKeeper, runs: Path) -> None:
    """The pool knows that these tasks are short, so it may send them to the busy worker."""
    pool = make_pool(1)
    assert [pool.submit(tasks.note, runs, 0).result() for _ in range(50)] == [0] * 50
    held = pool.submit(gate.gate.hold, "held")
    futures = [pool.submit(tasks.note, runs, number) for number in range(1, 51)]
    gate.wait_started()
    assert not any(future.running() for future in futures)
    assert all(future.cancel() for future in futures[1::2])
    gate.open()
    assert held.result() == "held"
    assert [future.result() for future in futures[::2]] == list(range(1, 51, 2))
    assert counted(runs) == {0: 50} | dict.fromkeys(range(1, 51, 2), 1)


def test_cancelling_around_the_start_of_a_task(
    make_pool: MakePool, innocents: Innocents, runs: Path
) -> None:
    pool, choose = make_pool(), random.Random(7).uniform
    cancelled = set()
    with innocents(pool):
        futures = []
        for number in range(400):
            futures.append(pool.submit(tasks.note, runs, number))
            if number % 3 == 0:
                spin(choose(0, 0.0005))
            if futures[number // 2].cancel():
                cancelled.add(number // 2)
        for number, future in enumerate(futures):
            if number in cancelled:
                with pytest.raises(CancelledError):
                    future.result()
            else:
                assert future.result() == number
    assert counted(runs) == dict.fromkeys(set(range(400)) - cancelled, 1)
