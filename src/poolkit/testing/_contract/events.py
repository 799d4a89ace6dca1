"""What observers of the executor are told."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Final

import pytest

from ..._errors import UnsupportedError
from ..._events import TaskEvent
from ..._executor import PoolExecutor
from ..._factory import make_executor
from ..._map import map_ordered
from ..._retry import Retry
from .. import _contract_tasks as tasks
from .base import ContractBase, MakePool

ENDS: Final = frozenset({"finished", "failed", "timed_out", "crashed", "abandoned", "cancelled"})


class EventsContract(ContractBase):
    """``observers=``."""

    def test_observers_see_the_whole_life_of_each_task(self, make_pool: MakePool) -> None:
        """It is submitted, started and ended, once each, with the worker and the times."""
        events: list[TaskEvent] = []
        pool = make_pool(observers=[events.append])
        assert self.result(pool.submit(tasks.square, 3)) == 9
        assert self.error(pool.submit(tasks.fail, "x")) is not None
        assert list(map_ordered(pool, tasks.square, range(50))) == [n * n for n in range(50)]
        pool.shutdown()
        lives = _by_task(events)
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

    def test_observers_see_each_attempt(self, make_pool: MakePool, tmp_path: Path) -> None:
        """A retried task is one task."""
        events: list[TaskEvent] = []
        pool = make_pool(observers=[events.append], retry=Retry(wait=0))
        self.result(pool.submit(tasks.fail_first, tmp_path, 2))
        pool.shutdown()
        (life,) = _by_task(events).values()
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

    def test_an_observer_that_fails_is_dropped(
        self, make_pool: MakePool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No task suffers, and no other observer; the log says so."""
        calls: list[str] = []
        events: list[TaskEvent] = []

        def bad(event: TaskEvent) -> None:
            calls.append(event.what)
            raise SystemExit("from an observer")

        pool = make_pool(observers=[bad, events.append])
        assert list(map_ordered(pool, tasks.square, range(10))) == [n * n for n in range(10)]
        pool.shutdown()
        assert calls == ["submitted"]
        assert len(_by_task(events)) == 10
        assert "an observer has failed" in caplog.text

    def test_wrong_observers_are_refused_at_the_call(
        self, make_pool: MakePool, pool: PoolExecutor
    ) -> None:
        """With a word about what they should be."""
        with pytest.raises(TypeError, match=r"try \[it\]"):
            make_pool(observers=print)
        with pytest.raises(TypeError, match="callable"):
            make_pool(observers=[3])
        useless: list[Any] = [print]
        with pytest.raises(UnsupportedError, match="observers of a view"):
            make_executor(pool, observers=useless)


def _by_task(events: list[TaskEvent]) -> dict[int, list[TaskEvent]]:
    """Sort events by task, and check that each life is whole: one end, and that at the end."""
    lives: dict[int, list[TaskEvent]] = defaultdict(list)
    for event in events:
        lives[event.task].append(event)
    for life in lives.values():
        assert life[0].what == "submitted"
        assert [event.what in ENDS for event in life] == [False] * (len(life) - 1) + [True]
        times = [event.time for event in life]
        assert times == sorted(times)
    return lives
