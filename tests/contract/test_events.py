"""The stream of events, where the published suite can't bring it about on every kind."""

import threading
from collections import Counter
from pathlib import Path

import pytest

import poolkit
from poolkit import TaskEvent, make_executor, map_unordered
from poolkit.testing._contract.events import _by_task as by_task

from .. import tasks
from ..tasks import GateKeeper


def test_what_never_runs_is_cancelled(gate: GateKeeper) -> None:
    events: list[TaskEvent] = []
    with make_executor("thread", 1, observers=[events.append]) as pool:
        pool.submit(gate.gate.hold)
        gate.wait_started()
        assert pool.submit(tasks.square, 1).cancel()
        with map_unordered(pool, tasks.square, range(10), max_pending=4):
            pass
        gate.open()
    lives = by_task(events)
    assert Counter(life[-1].what for life in lives.values()) == {"finished": 1, "cancelled": 5}
    with pytest.raises(poolkit.PoolShutdownError):
        pool.submit(tasks.square, 1)
    by_task(events)


def test_special_ends(tmp_path: Path) -> None:
    events: list[TaskEvent] = []
    with make_executor("process", 1, observers=[events.append]) as pool:
        crash = pool.submit(tasks.die_first, tmp_path, 1)
        assert crash.exception() is not None
        late = pool.with_options(task_timeout=0.1).submit(tasks.wait_for_the_end, tmp_path)
        assert late.exception() is not None
        (tmp_path / "running").unlink()
        aborted = pool.submit(tasks.wait_for_the_end, tmp_path)
        while not (tmp_path / "running").exists():
            threading.Event().wait(0.001)
        aborted.abort()
    ends = [life[-1].what for life in by_task(events).values()]
    assert ends == ["crashed", "timed_out", "abandoned"]


def test_views_and_groups_tell_the_same_observers() -> None:
    events: list[TaskEvent] = []
    with make_executor("thread", 1, observers=[events.append]) as pool:
        pool.with_options(task_timeout=50).submit(tasks.square, 1).result()
        with poolkit.TaskGroup(pool) as group:
            group.submit(tasks.square, 1)
    assert len(by_task(events)) == 2
