"""What all of these tests share: the count before and after, pools, innocents, scripts."""

import multiprocessing.resource_tracker
import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from poolkit import PoolExecutor, Statistics, _map, make_executor

from ..tasks import GateKeeper, square
from .census import adopt_orphans, census, descendants, kill, what_is_left
from .helpers import Innocents, Mailbox, MakePool, Script, StartScript

if sys.platform != "linux":  # there is no /proc, pidfd and prctl
    collect_ignore_glob = ["test_*.py"]

_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.fixture(params=["timed", "untimed"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `map_outcomes` run its items as it does, and as verbs do that ask for no times."""
    if request.param == "untimed":
        open_window = _map.open_window

        def open_untimed(*args: Any, timed: bool = False, **options: Any) -> Any:
            return open_window(*args, **options)

        monkeypatch.setattr(_map, "open_window", open_untimed)


@pytest.fixture(scope="package", autouse=True)
def what_lives_longer() -> Iterator[None]:
    """Start what multiprocessing and poolkit start once in a process, and keep."""
    adopt_orphans(True)
    multiprocessing.resource_tracker.ensure_running()
    with make_executor("process", 1, start_method="forkserver") as pool:
        assert pool.submit(square, 2).result() == 4
    yield
    adopt_orphans(False)


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest, what_lives_longer: None) -> Iterator[None]:
    """Check that a test leaves no process, thread, descriptor or shared memory behind."""
    before = census()
    spared = {process.pid for process in descendants()}
    yield
    left = [] if request.node.stash.get(_failed, False) else what_is_left(before)
    kill([process for process in descendants() if process.pid not in spared])
    if left:
        pytest.fail("left behind: " + "; ".join(left))


@pytest.fixture
def make_pool(request: pytest.FixtureRequest) -> Iterator[MakePool]:
    """Make pools of two processes; all are shut down at the end."""
    pools: list[PoolExecutor] = []

    def make(max_workers: int = 2, **options: Any) -> PoolExecutor:
        pools.append(make_executor("process", max_workers, **options))
        return pools[-1]

    yield make
    if request.node.stash.get(_failed, False):
        for pool in pools:
            pool.kill_workers()
        return
    for pool in pools:
        pool.shutdown()
        assert pool.statistics() == Statistics()


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def start_method(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def innocents(make_gate: Callable[[], GateKeeper]) -> Innocents:
    """Run innocent tasks around a fault; all must come back right.

    One of them runs from before the fault till after it, if the pool has another worker.
    """

    @contextmanager
    def run(pool: PoolExecutor, *, hold: bool = True) -> Iterator[None]:
        keeper = make_gate()
        held = pool.submit(keeper.gate.hold, "held") if hold else None
        if held is not None:
            keeper.wait_started()
        futures = [pool.submit(square, n) for n in range(30)]
        yield
        futures += [pool.submit(square, n) for n in range(30, 60)]
        assert [future.result() for future in futures] == [n * n for n in range(60)]
        if held is not None:
            assert held.running()
            keeper.open()
            assert held.result() == "held"

    return run


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    with Mailbox(tmp_path / "mailbox") as mailbox:
        yield mailbox


@pytest.fixture
def start_script(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartScript]:
    """Start programs, each in a session of its own; none may need to be ended."""
    scripts: list[Script] = []

    def start(source: str, *arguments: str, how: str = "file") -> Script:
        folder = tmp_path / f"script{len(scripts)}"
        folder.mkdir()
        scripts.append(Script(folder, source, arguments, how))
        return scripts[-1]

    yield start
    for script in scripts:
        if request.node.stash.get(_failed, False):
            kill([each for each in descendants() if each.session == script.process.pid])
        script.close()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The file in which tasks note that they run; see `tests.faults.tasks.note`."""
    path = tmp_path / "runs"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    return path
