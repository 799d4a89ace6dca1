"""What the collector finalizes in the midst of the pool's own work leaves the books right."""

import functools
import gc
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from poolkit import TaskAbortedError, map_ordered

from ..tasks import square
from . import tasks
from .helpers import MakePool, counted

pytestmark = pytest.mark.timeout(240)

MAPS, ITEMS = 4, 15
LAYERS = ("feeding", "recalling", "settling", "books", "pool")


class Striker:
    """Has the collector find something, each time at another line that runs under the lock."""

    def __init__(self, lock: Any) -> None:
        self.struck: set[tuple[Any, int]] = set()
        self.cycles: list[Any] = []
        """What it is to find."""
        self._lock = lock

    def trace(self, frame: FrameType, event: str, _arg: object) -> Any:
        """See `sys.settrace`."""
        module: str = frame.f_globals.get("__name__", "")
        if event == "call" and not module.startswith("poolkit.backends.process."):
            return None
        line = (frame.f_code, frame.f_lineno)
        watched = module.rpartition(".")[2] in LAYERS and self.cycles
        if event == "line" and watched and line not in self.struck and self._lock._is_owned():
            self.struck.add(line)
            self.cycles.pop()
            gc.collect()
        return self.trace


@pytest.fixture
def tracing() -> Iterator[None]:
    yield
    sys.settrace(None)
    threading.settrace(None)


@pytest.mark.filterwarnings("ignore:map_ordered.* was never iterated")
@pytest.mark.usefixtures("no_gc", "tracing")
def test_a_map_may_be_collected_while_its_items_are_moved(make_pool: MakePool, runs: Path) -> None:
    pool = make_pool(1, kill_grace=0)
    backend: Any = pool._link.backend
    striker = Striker(backend.lock)
    threading.settrace(striker.trace)  # for the threads that start from now on: the loop's, too
    note = functools.partial(tasks.note, runs)
    for round_ in range(400):
        before = len(striker.struck)
        for quick in [pool.submit(time.sleep, 0) for _ in range(30)]:
            quick.result()
        stuck = pool.submit(time.sleep, 1000)  # seconds; it should be as quick: work is sent ahead
        while not stuck.running():
            pass
        first = round_ * MAPS * ITEMS
        cycles: list[list[Any]] = []
        for start in range(first, first + MAPS * ITEMS, ITEMS):
            results = map_ordered(pool, note, range(start, start + ITEMS), chunksize=ITEMS)
            cycles.append([results])
            cycles[-1].append(cycles[-1])
            del results
        kept = pool.map(square, range(4))
        striker.cycles = cycles
        aborter = threading.Thread(target=stuck.abort)
        aborter.start()
        aborter.join()
        assert isinstance(stuck.exception(), TaskAbortedError)
        assert list(kept) == [0, 1, 4, 9]
        cycles.clear()
        gc.collect()
        if len(striker.struck) == before:
            break
    else:
        pytest.fail("there is always another line")
    assert before > 50
    assert pool.submit(square, 3).result() == 9
    pool.shutdown()
    assert set(counted(runs)) <= set(range(first + MAPS * ITEMS))
    assert set(counted(runs).values()) <= {1}
