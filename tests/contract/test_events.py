"""The stream of events, on every kind."""

import threading
from collections import Counter, defaultdict
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

import poolkit
from poolkit import Retry, TaskEvent, make_executor, map_ordered, map_unordered

from .. import tasks
from ..tasks import GateKeeper
from .conftest import Make

ENDS = {"finished", "failed", "timed_out", "crashed", "abandoned", "cancelled"}


def by_task(events: list[TaskEvent]) -> dict[int, list[TaskEvent]]:
    """Sort events by task, and check that each is whole: submitted first, one end, at the end."""
    lives: dict[int, list[TaskEvent]] = defaultdict(list)
    for event in events:
        lives[event.task].append(event)
    for life in lives.values():
        assert life[0].what == "submitted"
        assert [event.what in ENDS for event in life] == [False] * (len(life) - 1) + [True]
        times = [event.time for event in life]
        assert times == sorted(times)
    return lives


def test_the_life_of_tasks(make: Make) -> None:
    events: list[TaskEvent] = []
    pool = make(observers=[events.append])
    assert pool.submit(tasks.square, 3).result() == 9
    assert pool.submit(tasks.fail, "x").exception() is not None
    assert list(map_ordered(pool, tasks.square, range(50))) == [n * n for n in range(50)]
    pool.shutdown()
    lives = by_task(events)
    assert len(lives) == 52
    kinds = Counter(tuple(event.what for event in life) for life in lives.values())
    assert kinds == {
        ("submitted", "started", "finished"): 51,
        ("submitted", "started", "failed"): 1,
    }
    first = next(iter(lives.values()))
    assert {event.function for event in first} == {"square"}
    assert first[0].worker == ""
    assert first[1].worker == first[2].worker != ""
    assert first[2].time - first[1].time == pytest.approx(first[2].run_s)
    (failed,) = (event for event in events if event.what == "failed")
    assert isinstance(failed.error, KeyError)


def test_attempts(make: Make, tmp_path: Path) -> None:
    events: list[TaskEvent] = []
    pool = make(observers=[events.append], retry=Retry(wait=0))
    pool.submit(tasks.fail_first, tmp_path, 2).result()
    pool.shutdown()
    (life,) = by_task(events).values()
    assert [(event.what, event.attempt) for event in life] == [
        ("submitted", 1),
        ("started", 1),
        ("retried", 1),
        ("started", 2),
        ("retried", 2),
        ("started", 3),
        ("finished", 3),
    ]
    assert isinstance(life[2].error, ConnectionError)


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


def test_an_observer_that_fails_is_dropped(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[str] = []
    events: list[TaskEvent] = []

    def bad(event: TaskEvent) -> None:
        calls.append(event.what)
        raise SystemExit("from an observer")

    pool = make(observers=[bad, events.append])
    assert list(map_ordered(pool, tasks.square, range(10))) == [n * n for n in range(10)]
    pool.shutdown()
    assert calls == ["submitted"]
    assert len(by_task(events)) == 10
    assert "an observer has failed" in caplog.text


def test_views_and_groups_tell_the_same_observers() -> None:
    events: list[TaskEvent] = []
    with make_executor("thread", 1, observers=[events.append]) as pool:
        pool.with_options(task_timeout=50).submit(tasks.square, 1).result()
        with poolkit.TaskGroup(pool) as group:
            group.submit(tasks.square, 1)
    assert len(by_task(events)) == 2


def test_bad_observers(make: Make, pool: Executor) -> None:
    with pytest.raises(TypeError, match=r"try \[it\]"):
        make(observers=print)
    with pytest.raises(TypeError, match="callable"):
        make(observers=[3])
    bad: Any = [print]
    with pytest.raises(poolkit.UnsupportedError, match="observers of a view"):
        make_executor(pool, observers=bad)
