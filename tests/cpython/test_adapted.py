"""What the tests of process pools that `left_out` lists are about, on a pool that survives a crash.

Where CPython's demand that the whole pool is broken, these demand that one future fails and that
the pool lives.
"""

import contextlib
import gc
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poolkit import (
    PoolBrokenError,
    PoolExecutor,
    PoolShutdownError,
    TaskFuture,
    TaskSerializationError,
    WorkerCrashedError,
    make_executor,
)

from ..tasks import GateKeeper
from . import crashes
from .crashes import AtPickling, AtUnpickling

pytestmark = pytest.mark.timeout(30)

START_METHODS = ("fork", "forkserver", "spawn")

Make = Callable[..., PoolExecutor]


@pytest.fixture(scope="module", params=START_METHODS)
def start_method(request: pytest.FixtureRequest) -> str:
    method: str = request.param
    return method


@pytest.fixture(scope="module")
def tried_pool(start_method: str) -> Iterator[PoolExecutor]:
    """One pool of two workers that lives through all tests that ask for it."""
    with make_executor("process", 2, start_method=start_method) as pool:
        yield pool


@pytest.fixture
def make(start_method: str) -> Make:
    """Make a pool of the start method."""
    return lambda *args, **options: make_executor(
        "process", *args, start_method=start_method, **options
    )


class Pids:
    """Receives the process ids that `crashes.say_pid_and_sleep` sends."""

    def __init__(self, fifo: Path) -> None:
        os.mkfifo(fifo)
        self.fifo = fifo
        self.descriptor = os.open(fifo, os.O_RDWR)

    def next(self) -> int:
        return int(os.read(self.descriptor, 10))


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Pids]:
    pids = Pids(tmp_path / "pids")
    yield pids
    os.close(pids.descriptor)


def check_lives(pool: PoolExecutor) -> None:
    assert list(pool.map(pow, range(20), [2] * 20)) == [n * n for n in range(20)]


def wait_until_gone(pids: set[int]) -> None:
    """Wait until no process has one of these ids; the pool has to wait for them, too."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                time.sleep(0.01)


def text_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("task", "how"),
    [
        pytest.param((crashes.segfault,), "SIGSEGV", id="in the task"),
        pytest.param((os._exit, 99), "99", id="exit in the task"),
        pytest.param((id, AtUnpickling(crashes.segfault)), "SIGSEGV", id="reading arguments"),
        pytest.param((AtPickling, crashes.segfault), "SIGSEGV", id="writing the result"),
        pytest.param((crashes.segfault, "a" * 4_000_000), "SIGSEGV", id="large arguments"),
    ],
)
def test_crash_costs_one_task(tried_pool: PoolExecutor, task: Any, how: str) -> None:
    neighbours = [tried_pool.submit(pow, n, 2) for n in range(10)]
    future: TaskFuture[object] = tried_pool.submit(*task)
    neighbours += [tried_pool.submit(pow, n, 2) for n in range(10, 20)]
    with pytest.raises(WorkerCrashedError, match=how):
        future.result()
    assert [neighbour.result() for neighbour in neighbours] == [n * n for n in range(20)]
    check_lives(tried_pool)


def test_map_that_crashes_each_time(tried_pool: PoolExecutor) -> None:
    results = tried_pool.map(crashes.segfault, ["a" * 1_000_000] * 10)
    with pytest.raises(WorkerCrashedError):
        list(results)
    check_lives(tried_pool)


def test_each_killed_task_has_an_error_of_its_own(tried_pool: PoolExecutor, pids: Pids) -> None:
    futures = [tried_pool.submit(crashes.say_pid_and_sleep, pids.fifo) for _ in range(2)]
    killed = [pids.next(), pids.next()]
    for pid in killed:
        os.kill(pid, signal.SIGTERM)
    errors = [future.exception() for future in futures]
    for error in errors:
        assert isinstance(error, WorkerCrashedError)
        assert "SIGTERM" in str(error)
    assert errors[0] is not errors[1]
    assert all(any(str(pid) in str(error) for error in errors) for pid in killed)
    check_lives(tried_pool)


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        pytest.param((id, AtUnpickling(crashes.refuse)), TaskSerializationError, id="arguments"),
        pytest.param(
            (id, AtUnpickling(crashes.leave)),
            (TaskSerializationError, SystemExit),
            id="arguments that exit",
        ),
        pytest.param((AtUnpickling, crashes.refuse), TaskSerializationError, id="result"),
        pytest.param((AtUnpickling, crashes.leave), TaskSerializationError, id="result that exits"),
    ],
)
def test_one_that_can_not_travel(tried_pool: PoolExecutor, task: Any, kind: Any) -> None:
    future: TaskFuture[object] = tried_pool.submit(*task)
    with pytest.raises(kind):
        future.result()
    check_lives(tried_pool)


def test_arguments_that_refuse_to_be_pickled(make: Make) -> None:
    pool = make(2)
    assert pool.submit(pow, 2, 8).result() == 256
    with pytest.raises(TaskSerializationError, match="not with me"):
        pool.submit(id, AtPickling(crashes.refuse))
    last = pool.submit(pow, 2, 9)
    pool.shutdown(wait=False)
    assert last.result() == 512
    pool.shutdown()


def test_remote_traceback(tried_pool: PoolExecutor, capsys: pytest.CaptureFixture[str]) -> None:
    error = tried_pool.submit(crashes.raise_here).exception()
    assert type(error) is RuntimeError
    assert error.args == (123,)
    assert "raise RuntimeError(123)  # this very line" in str(error.__cause__)
    sys.__excepthook__(type(error), error, error.__traceback__)
    assert "raise RuntimeError(123)  # this very line" in capsys.readouterr().err


@pytest.mark.parametrize("end", ["terminate_workers", "kill_workers"])
def test_forced_end(make: Make, pids: Pids, end: str) -> None:
    pool = make(2)
    running = [pool.submit(crashes.say_pid_and_sleep, pids.fifo) for _ in range(2)]
    waiting = [pool.submit(pow, 2, n) for n in range(10)]
    workers = {pids.next(), pids.next()}
    getattr(pool, end)()
    for future in running:
        assert isinstance(future.exception(), WorkerCrashedError)
    assert all(future.cancelled() for future in waiting)
    with pytest.raises(PoolShutdownError):
        pool.submit(pow, 2, 8)
    pool.shutdown()
    wait_until_gone(workers)


def test_initializer_that_fails(make: Make) -> None:
    argument = crashes.Argument()
    let_initializer_fail(make, argument)
    gone = weakref.ref(argument)
    del argument
    gc.collect()
    gc.collect()  # what the executor's finalizer held
    assert gone() is None


def let_initializer_fail(make: Make, argument: object) -> None:
    with make(2, initializer=crashes.fail_to_initialize, initargs=(argument,)) as pool:
        futures: list[TaskFuture[int]] = []
        with contextlib.suppress(PoolBrokenError):  # it may be quick
            futures += [pool.submit(pow, 2, 8) for _ in range(5)]
        for future in futures:
            assert isinstance(future.exception(), PoolBrokenError)
        with pytest.raises(PoolBrokenError) as caught:
            pool.submit(pow, 2, 8).result()
        assert "ValueError: error in initializer" in text_of(caught.value)


def test_workers_that_never_get_ready(make: Make) -> None:
    with (
        make(2, initializer=os._exit, initargs=(3,)) as pool,
        pytest.raises(PoolBrokenError, match="3"),
    ):
        pool.submit(pow, 2, 8).result()


@pytest.mark.parametrize("threads", [0, 1])
def test_without_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the interpreter's exit, no thread can be started."""
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_few(thread: threading.Thread) -> None:
        if len(started) == threads:
            raise RuntimeError("can't create new thread at interpreter shutdown")
        started.append(thread)
        start(thread)

    pool = make_executor("process", 2)
    monkeypatch.setattr(threading.Thread, "start", start_few)
    try:
        results = list(pool.map(pow, range(10), [2] * 10))
    except (RuntimeError, PoolBrokenError):
        pass
    else:
        assert results == [n * n for n in range(10)]
    pool.shutdown()


@pytest.mark.parametrize("start_method", START_METHODS[1:], indirect=True)
def test_max_tasks_per_child(make: Make) -> None:
    with make(1, max_tasks_per_child=3) as pool:
        pids = [pool.submit(os.getpid).result() for _ in range(7)]
    assert [pids.index(pid) for pid in pids] == [0, 0, 0, 3, 3, 3, 6]


@pytest.mark.parametrize("start_method", START_METHODS[1:], indirect=True)
@pytest.mark.parametrize(("closed", "dropped"), [(True, False), (True, True), (False, True)])
def test_workers_are_replaced_to_the_end(
    make: Make, closed: bool, dropped: bool, gate: GateKeeper
) -> None:
    pool = make(1, max_tasks_per_child=1)
    futures: list[TaskFuture[Any]] = [
        pool.submit(gate.gate.hold, 0),
        pool.submit(crashes.fail, 1),
        pool.submit(gate.gate.hold, 2),
    ]
    gate.wait_started()
    if closed:
        pool.shutdown(wait=False)
    if dropped:
        del pool
        gc.collect()
    gate.open()
    assert futures[0].result() == 0
    assert isinstance(futures[1].exception(), KeyError)
    assert futures[2].result() == 2


def test_workers_start_on_demand(make: Make) -> None:
    with make(3) as pool:
        assert len({pool.submit(os.getpid).result() for _ in range(3)}) == 1


def test_no_more_workers_than_asked_for(make: Make) -> None:
    with make(3) as pool:
        futures = [pool.submit(crashes.pid_after, 0.01) for _ in range(30)]
        assert len({future.result() for future in futures}) <= 3


@pytest.mark.parametrize("warm", [False, True])
def test_cancel_futures(make: Make, warm: bool) -> None:
    pool = make(5)
    futures = [pool.submit(crashes.pid_after, 0.1) for _ in range(50)]
    if warm:
        futures[0].result()
    pool.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    others = [future for future in futures if not future.cancelled()]
    assert warm <= len(others) < 30
    assert not any(future.exception() for future in others)


@pytest.mark.parametrize("end", ["wait", "no wait", "dropped"])
def test_workers_end(make: Make, end: str) -> None:
    pool = make(3)
    futures = [pool.submit(crashes.pid_after, 0.05) for _ in range(6)]
    if end == "dropped":
        del pool
        gc.collect()
    else:
        pool.shutdown(wait=end == "wait")
        assert end == "no wait" or all(future.done() for future in futures)
    pids = {future.result() for future in futures}
    wait_until_gone(pids)
