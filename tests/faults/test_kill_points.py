"""A worker, or the parent, is killed at each step of the protocol in turn.

`poolkit.backends.process.steps` counts the steps of a short scenario that has a bit of everything:
single tasks, a chunk, a large result, an initializer, workers that are recycled, a time limit.
"""

import itertools
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from poolkit import (
    Outcome,
    TaskTimeoutError,
    WorkerCrashedError,
    make_executor,
    map_outcomes,
)

from .. import tasks as plain_tasks
from . import tasks
from .helpers import counted, kill_parent_at_each, kill_worker_at_each

pytestmark = pytest.mark.timeout(100)

LARGE: Final = 3 << 20
CHUNK: Final = 6


def run_scenario(runs: Path, start_method: str, *, recycle: bool) -> list[Outcome[Any]]:
    """Run it; return an outcome for each task, in order."""
    outcomes: list[Outcome[Any]] = []
    with make_executor(
        "process",
        2,
        start_method=start_method,
        initializer=plain_tasks.square,
        initargs=(2,),
        max_tasks_per_child=4 if recycle else None,
        kill_grace=0.1,
    ) as pool:
        singles = [pool.submit(tasks.note, runs, n) for n in range(5)]
        large = pool.submit(bytes, LARGE)
        late = pool.with_options(task_timeout=0.05).submit(tasks.hang)
        chunk = map_outcomes(
            pool, tasks.note, itertools.repeat(runs), range(100, 100 + CHUNK), chunksize=CHUNK
        )
        outcomes += sorted(chunk, key=lambda outcome: outcome.index)
        futures: list[Future[Any]] = [*singles, large, late]
        for future in futures:
            error = future.exception()
            value: Any = None if error is not None else future.result()
            outcomes.append(Outcome(0, (), value, error, 1, "", 0.0, 0.0))
    return outcomes


def check(outcomes: list[Outcome[Any]], runs: Path, *, crashes: int) -> None:
    chunk, singles = outcomes[:CHUNK], outcomes[CHUNK : CHUNK + 5]
    large, late = outcomes[CHUNK + 5 :]
    crashed = [o for o in outcomes if isinstance(o.error, WorkerCrashedError)]
    assert len(crashed) <= crashes
    for number, outcome in [*enumerate(singles), *enumerate(chunk, 100)]:
        if outcome not in crashed:
            assert outcome.unwrap() == number
    if large not in crashed:
        assert large.value == bytes(LARGE)
    if late not in crashed:
        assert isinstance(late.error, TaskTimeoutError)
    ran = counted(runs)
    assert all(ran[number] <= 1 for number in range(5)), ran
    assert all(ran[n] >= 1 for n, o in enumerate(singles) if o not in crashed), ran


@pytest.mark.parametrize(("start_method", "recycle"), [("fork", False), ("forkserver", True)])
def test_the_scenario_without_a_kill(runs: Path, start_method: str, recycle: bool) -> None:
    check(run_scenario(runs, start_method, recycle=recycle), runs, crashes=0)


def run_anew(runs: Path, start_method: str, *, recycle: bool, crashes: int) -> None:
    """Run the scenario as if it were the first time, and check it."""
    runs.unlink(missing_ok=True)
    runs.touch()
    check(run_scenario(runs, start_method, recycle=recycle), runs, crashes=crashes)


@pytest.mark.usefixtures("either_way")
def test_a_worker_killed_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Path
) -> None:
    run = partial(run_anew, runs, "fork", recycle=False, crashes=1)
    step = kill_worker_at_each(itertools.count(1), tmp_path, monkeypatch, run)
    print(f"{step} steps")
    assert step > 15, "the steps are not counted"


def test_a_recycled_worker_killed_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Path
) -> None:
    # Forking workers can't be recycled, and the server's were born with their environment.
    run = partial(run_anew, runs, "spawn", recycle=True, crashes=1)
    step = kill_worker_at_each(range(1, 200, 9), tmp_path, monkeypatch, run)
    print(f"{step} steps")
    assert step > 15, "the steps are not counted"


def test_the_parent_killed_at_any_step(tmp_path: Path, runs: Path) -> None:
    # Whatever is left of its workers, the census finds.
    run = partial(run_anew, runs, "fork", recycle=False, crashes=0)
    step = kill_parent_at_each(tmp_path, run)
    print(f"{step} steps")
    assert step > 15, "the steps are not counted"
