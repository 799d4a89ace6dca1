"""The ``"dask"`` kind, on real clusters: what its workers and the connection can go through.

Most tests join one cluster of two processes. Scripts start clusters of their own, each in a session
of its own, so that what they leave behind is found.
"""

import asyncio
import ctypes
import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from poolkit import (
    PoolBrokenError,
    PoolExecutor,
    PoolShutdownError,
    Retry,
    TaskAbortedError,
    TaskGroup,
    TaskSerializationError,
    TaskTimeoutError,
    WorkerCrashedError,
    aio,
    current_task,
    make_executor,
    map_ordered,
    map_outcomes,
    map_unordered,
)
from poolkit.backends._remote_worker import Parcel

from ..tasks import GateKeeper, count_call, fail_when_running, keywords, square
from .start import dask_cluster, needs

pytestmark = needs("distributed")

WORKERS: Final = 2
LONG: Final = 40.0
"""Seconds; what waits so long for something that must come hangs."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with dask_cluster(WORKERS) as address:
        yield address


@pytest.fixture(scope="module")
def other(address: str) -> Iterator[Any]:
    """Connect somebody else to the cluster."""
    client = importlib.import_module("distributed").Client(address, set_as_default=False)
    yield client
    client.close()


@pytest.fixture
def pool(address: str) -> Iterator[PoolExecutor]:
    with make_executor("dask", address=address) as pool:
        yield pool


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for something that nobody tells of."""
    end = time.monotonic() + LONG
    while not is_so():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def work_for(seconds: float, number: int) -> int:
    time.sleep(seconds)
    return number * number


def tell_pid(path: Path) -> None:
    """Write the process's number into a file, all at once."""
    path.with_suffix(".part").write_text(str(os.getpid()))
    path.with_suffix(".part").rename(path)


def die_at(guilty: int, number: int) -> int:
    if number == guilty:
        time.sleep(0.1)  # so that it is heard to have begun
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def call_and_die(folder: Path) -> None:
    count_call(folder, "task")
    os._exit(0)


def count_and_hang_at(folder: Path, late: int, number: int) -> int:
    """Count the calls; one of them takes long, and then another stays to be made or not."""
    count_call(folder, str(number))
    if number == late:
        time.sleep(1.0)
        count_call(folder, "woken")
    return number


def hang(path: Path) -> None:
    tell_pid(path)
    time.sleep(LONG)


def wait_for_token(path: Path) -> NoReturn:
    """Say that it runs, and go on until told to stop."""
    path.touch()
    (path.parent / "running").touch()
    current_task().wait(LONG)
    if current_task().cancelled:
        path.with_name("asked").touch()
    current_task().check()
    raise AssertionError("nobody asked it to stop")


def hold_the_lock(path: Path) -> None:
    """Let nobody else in this process run for a while."""
    tell_pid(path)
    ctypes.PyDLL(None).sleep(6)


def worker_name() -> str:
    name: str = importlib.import_module("distributed").get_worker().address
    return name


def remember(word: str) -> None:
    os.environ["POOLKIT_TEST_WORD"] = os.environ.get("POOLKIT_TEST_WORD", "") + word


def recall(_x: object = None) -> tuple[int, str]:
    return os.getpid(), os.environ["POOLKIT_TEST_WORD"]


def fail_to_start() -> NoReturn:
    raise SystemExit("no start today")


class BadlyDescribed(Exception):
    def __str__(self) -> str:
        raise SystemExit


def raise_badly() -> NoReturn:
    raise BadlyDescribed


def raise_it(error: BaseException) -> NoReturn:
    raise error


def length(data: bytes) -> int:
    return len(data)


def count_parcels() -> int:
    """Count the parcels that a worker is at, as far as poolkit is concerned."""
    return len(importlib.import_module("poolkit.backends._supervised")._listening)


# -- workers that die --------------------------------------------------------------------------


@pytest.mark.parametrize("retry", [None, Retry(on=(WorkerCrashedError,), wait=0.01)])
def test_killed_workers_lose_nothing(pool: PoolExecutor, other: Any, retry: Retry | None) -> None:
    outcomes = map_outcomes(
        pool, work_for, [0.005] * 300, range(300), ordered=True, chunksize=5, retry=retry
    )
    seen = [next(outcomes)]
    for _ in range(2):
        os.kill(next(iter(other.run(os.getpid).values())), signal.SIGKILL)
        seen += [next(outcomes) for _ in range(60)]
    seen += outcomes
    assert [outcome.index for outcome in seen] == list(range(300))
    failed = [outcome for outcome in seen if not outcome.ok]
    assert {type(outcome.error) for outcome in failed} <= {WorkerCrashedError}
    assert len(failed) <= (2 if retry is None else 0)
    assert all(outcome.value == outcome.index**2 for outcome in seen if outcome.ok)


def test_a_death_in_a_chunk_is_charged_to_the_guilty_alone(pool: PoolExecutor) -> None:
    outcomes = list(map_outcomes(pool, die_at, [7] * 20, range(20), ordered=True, chunksize=5))
    assert [outcome.index for outcome in outcomes if not outcome.ok] == [7]
    assert isinstance(outcomes[7].error, WorkerCrashedError)


@pytest.mark.parametrize("failures", [3])
def test_what_dies_on_a_lenient_cluster_never_runs_again(tmp_path: Path, failures: int) -> None:
    distributed: Any = importlib.import_module("distributed")
    cluster = distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
        scheduler_kwargs={"allowed_failures": failures, "dashboard": False},
    )
    try:
        with make_executor("dask", address=cluster.scheduler_address) as pool:
            assert pool.max_workers == 2
            (outcome,) = map_outcomes(pool, call_and_die, [tmp_path], at_most_once=True)
            assert isinstance(outcome.error, WorkerCrashedError)
            assert pool.submit(square, 3).result(LONG) == 9
    finally:
        cluster.close()
    assert len(list(tmp_path.iterdir())) == 1


# -- what tasks are given, and give -----------------------------------------------------------


def test_equal_calls_run_each(pool: PoolExecutor, tmp_path: Path) -> None:
    futures = [pool.submit(count_call, tmp_path, "same") for _ in range(5)]
    assert sorted(future.result(LONG) for future in futures) == [0, 1, 2, 3, 4]


def test_keywords_that_dask_knows_reach_the_function(pool: PoolExecutor) -> None:
    given = {"key": 1, "priority": 2, "workers": 3, "pure": 4, "retries": 5, "resources": 6}
    assert pool.submit(keywords, **given).result(LONG) == ((), given)


def test_tasks_find_the_worker_of_dasks(pool: PoolExecutor, other: Any) -> None:
    assert pool.submit(worker_name).result(LONG) in other.run(os.getpid)


def test_a_large_argument_arrives_without_a_warning(pool: PoolExecutor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pool.submit(length, bytes(30_000_000)).result(LONG) == 30_000_000


def test_an_argument_is_as_it_was_when_it_was_submitted(pool: PoolExecutor) -> None:
    argument = [1]
    future = pool.submit(len, argument)
    argument.append(2)
    assert future.result(LONG) == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_every_error_comes_back(pool: PoolExecutor, error: BaseException) -> None:
    assert type(pool.submit(raise_it, error).exception(LONG)) is type(error)


def test_an_error_that_ends_whoever_describes_it_comes_back(pool: PoolExecutor) -> None:
    assert "BadlyDescribed" in str(pool.submit(raise_badly).exception(LONG))


def test_what_cannot_travel_fails_alone(pool: PoolExecutor) -> None:
    with pytest.raises(TaskSerializationError):
        pool.submit(repr, threading.Lock())
    assert isinstance(pool.submit(threading.Lock).exception(LONG), TaskSerializationError)
    assert pool.submit(square, 3).result(LONG) == 9


# -- time-outs, aborting, cancelling -----------------------------------------------------------


def test_hung_tasks_free_their_slots(address: str, tmp_path: Path) -> None:
    with make_executor("dask", address=address) as pool:
        limited = pool.with_options(task_timeout=0.2)
        hung = [limited.submit(time.sleep, 5) for _ in range(2 * WORKERS)]
        assert {type(future.exception(LONG)) for future in hung} == {TaskTimeoutError}
        hung = [pool.submit(hang, tmp_path / str(number)) for number in range(WORKERS)]
        wait_until(lambda: all(future.running() for future in hung))
        assert [future.abort() for future in hung] == ["abandoned"] * WORKERS
        assert {type(future.exception(LONG)) for future in hung} == {TaskAbortedError}
        assert pool.submit(square, 3).result(LONG) == 9


def test_aborting_just_before_the_end_leaves_slots_to_others(
    address: str, other: Any, tmp_path: Path
) -> None:
    with make_executor("dask", address=address) as pool:
        hung = [pool.submit(hang, tmp_path / str(number)) for number in range(WORKERS)]
        wait_until(lambda: all(future.running() for future in hung))
        for future in hung:
            future.abort()
    assert other.submit(square, 3, pure=False).result(LONG) == 9
    wait_until(lambda: list(other.run(count_parcels).values()) == [0] * WORKERS)


def test_a_late_call_neither_loses_nor_repeats_its_neighbours(
    pool: PoolExecutor, tmp_path: Path
) -> None:
    numbers = (number for number in range(6))  # of unknown length, so that they travel together
    outcomes = list(
        map_outcomes(
            pool,
            count_and_hang_at,
            [tmp_path] * 6,
            [2] * 6,
            numbers,
            chunksize=6,
            task_timeout=0.3,
            ordered=True,
        )
    )
    assert [outcome.ok for outcome in outcomes] == [True, True, False, True, True, True]
    assert isinstance(outcomes[2].error, TaskTimeoutError)
    wait_until(lambda: (tmp_path / "woken-0").exists())
    # Whoever was abandoned has had the time to go on with others' work.
    assert pool.submit(square, 3).result(LONG) == 9
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == [f"{number}-0" for number in range(6)] + ["woken-0"]


def test_tasks_can_be_cancelled_while_the_cluster_serves_others(
    pool: PoolExecutor, other: Any, gate: GateKeeper, tmp_path: Path
) -> None:
    busy = [other.submit(gate.gate.hold, number, pure=False) for number in range(WORKERS)]
    gate.wait_started(WORKERS)
    waiting = [pool.submit(count_call, tmp_path, str(number)) for number in range(8)]
    dropped = map_ordered(pool, count_call, [tmp_path] * 10, ["dropped"] * 10, chunksize=5)
    assert [future.cancel() for future in waiting[:-1]] == [True] * 7
    assert not any(future.running() for future in waiting)
    dropped.close()
    wait_until(lambda: pool.statistics().pending == 1)
    gate.open()
    assert [future.result(LONG) for future in busy] == list(range(WORKERS))
    assert waiting[-1].result(LONG) == 0
    assert [path.name for path in tmp_path.glob("*-*")] == ["7-0"]


def test_a_burst_of_cancels_loses_and_repeats_nothing(address: str, tmp_path: Path) -> None:
    with make_executor("dask", WORKERS + 2, address=address) as pool:
        cancelled: list[int] = []
        futures = []
        for number in range(150):
            futures.append(pool.submit(count_call, tmp_path, f"call{number}"))
            if number % 3 == 0 and futures[number // 2].cancel():
                cancelled.append(number // 2)
            if number % 50 == 49:
                wait_until(futures[number].done)
        ran = [number for number, future in enumerate(futures) if not future.cancelled()]
        assert [futures[number].result(LONG) for number in ran] == [0] * len(ran)
    assert sorted(path.name for path in tmp_path.glob("call*")) == sorted(
        f"call{number}-0" for number in range(150) if number not in cancelled
    )


def test_a_worker_that_does_not_answer_holds_nobody_up_for_long(
    pool: PoolExecutor, tmp_path: Path
) -> None:
    future = pool.submit(hold_the_lock, tmp_path / "pid")
    wait_until((tmp_path / "pid").exists)
    assert not future.cancel()
    assert not future.done()
    assert future.result(LONG) is None


def test_a_parcel_that_has_ended_is_not_taken_back() -> None:
    supervised: Any = importlib.import_module("poolkit.backends._supervised")
    parcel = Parcel("a pool", None, pickle.dumps((square, {})), [(0, (3,))], None, 1)
    told: list[Any] = []
    began, ended = supervised.supervise("ended", parcel, told.append)
    assert (told, ended[1][0][:2]) == ([began], (0, 9))
    assert supervised.have_begun(["ended", "new"]) == [True, False]
    assert supervised.end_parcels(["ended", "new"], by_force=True) == [False, True]
    assert supervised.supervise("new", parcel, told.append) == []


# -- initializers -----------------------------------------------------------------------------


def test_the_initializer_runs_once_in_each_process(address: str) -> None:
    with make_executor("dask", initializer=remember, initargs=("a",), address=address) as pool:
        first = dict(map_unordered(pool, recall, range(50), chunksize=1))
    assert set(first.values()) == {"a"}
    with make_executor("dask", initializer=remember, initargs=("b",), address=address) as pool:
        for pid, word in map_unordered(pool, recall, range(50), chunksize=1):
            assert word == ("ab" if pid in first else "b")


def test_an_initializer_that_fails_breaks_the_pool(address: str) -> None:
    with make_executor("dask", initializer=fail_to_start, address=address) as pool:
        error = pool.submit(square, 3).exception(LONG)
        assert isinstance(error, PoolBrokenError)
        assert isinstance(error.__cause__, SystemExit)
        with pytest.raises(PoolBrokenError):
            pool.submit(square, 3)


# -- groups and asyncio -------------------------------------------------------------------------


def test_a_group_asks_its_running_tasks_to_stop(address: str, tmp_path: Path) -> None:
    with (
        make_executor("dask", address=address) as pool,
        pytest.raises(ExceptionGroup) as caught,
        TaskGroup(pool) as group,
    ):
        group.submit(wait_for_token, tmp_path / "token")
        group.submit(fail_when_running, tmp_path)
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
    assert (tmp_path / "asked").exists()


def test_asyncio(pool: PoolExecutor, tmp_path: Path) -> None:
    async def main() -> list[int]:
        hung = asyncio.ensure_future(aio.run(pool, hang, tmp_path / "hung"))
        while not (tmp_path / "hung").exists():
            await asyncio.sleep(0.005)
        hung.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hung
        assert await aio.run(pool, square, 3) == 9
        return [value async for value in aio.map_ordered(pool, square, range(20))]

    assert asyncio.run(main()) == [number * number for number in range(20)]


# -- the connection ----------------------------------------------------------------------------


def test_a_client_that_was_given_is_used_and_left_open(address: str, other: Any) -> None:
    handlers = dict(other._event_handlers)
    with make_executor("dask", client=other) as one, make_executor("dask", 1, client=other) as two:
        assert (one.max_workers, two.max_workers) == (WORKERS, 1)
        assert list(map_ordered(one, square, range(50))) == [n * n for n in range(50)]
        assert two.submit(square, 4).result(LONG) == 16
    assert other.submit(square, 3, pure=False).result(LONG) == 9
    assert dict(other._event_handlers) == handlers


def test_pools_leave_nothing_in_the_cluster(address: str, other: Any) -> None:
    def left(dask_scheduler: Any) -> list[str]:
        names = [*dask_scheduler.tasks, *dask_scheduler._broker._topics]
        return [name for name in names if str(name).startswith("poolkit-")]

    before = set(other.run_on_scheduler(left))
    with make_executor("dask", address=address) as pool:
        errors = [pool.submit(raise_it, ValueError(number)).exception(LONG) for number in range(5)]
        list(map_ordered(pool, square, range(50)))
    wait_until(lambda: set(other.run_on_scheduler(left)) <= before)
    assert len(errors) == 5
    assert list(other.run(count_parcels).values()) == [0] * WORKERS


@pytest.mark.parametrize("closed_before", [False, True])
def test_a_closed_client_is_a_clear_error(address: str, *, closed_before: bool) -> None:
    distributed: Any = importlib.import_module("distributed")
    client = distributed.Client(address, set_as_default=False)
    with make_executor("dask", client=client) as pool:
        if closed_before:
            client.close()
        futures = [pool.submit(time.sleep, 0.5) for _ in range(3 * WORKERS)]
        client.close()
        assert {type(future.exception(LONG)) for future in futures} == {PoolShutdownError}


def test_bad_options_are_clear_errors(address: str, other: Any) -> None:
    distributed: Any = importlib.import_module("distributed")
    dask: Any = importlib.import_module("dask")
    with pytest.raises(ValueError, match="not both"):
        make_executor("dask", address=address, client=other)
    with pytest.raises(TypeError, match="does not know the option 'adress'"):
        make_executor("dask", adress=address)
    with pytest.raises(TypeError, match="client must be"):
        make_executor("dask", client=address)
    with pytest.raises(TaskSerializationError):
        make_executor("dask", initializer=square, initargs=(threading.Lock(),), address=address)
    closed = distributed.Client(address, set_as_default=False)
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        make_executor("dask", client=closed)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.raises(OSError, match=r"127\.0\.0\.1:9"),
    ):
        make_executor("dask", address="tcp://127.0.0.1:9")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'poolkit\[dask\]'"):
        make_executor("dask")


# -- scripts with clusters of their own ---------------------------------------------------------


def start(folder: Path, source: str) -> "subprocess.Popen[str]":
    script = folder / "script.py"
    script.write_text(source)
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(script)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "POOLKIT_TEST_MARK": str(folder)},
    )


def those_of(folder: Path) -> list[int]:
    """Return the processes that a script has left, whatever session they are of."""
    mark = f"POOLKIT_TEST_MARK={folder}".encode()
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except (OSError, ValueError):
            continue
    return found


def finish(script: "subprocess.Popen[str]", folder: Path) -> tuple[str, str]:
    """Let a script end; return what it wrote, and check that it leaves no process."""
    try:
        out, err = script.communicate(timeout=LONG)
        wait_until(lambda: not those_of(folder))
    finally:
        for pid in those_of(folder):
            os.kill(pid, signal.SIGKILL)
    return out, err


GUARDLESS: Final = """
import os, threading, time
from pathlib import Path
from poolkit import WorkerCrashedError, make_executor, map_ordered

def square(x):
    return x * x

def die():
    os._exit(3)

def count_descriptors():
    return len(os.listdir("/proc/self/fd"))

import distributed
before = count_descriptors()
with make_executor("dask", 2) as pool:
    print(pool.max_workers, list(map_ordered(pool, square, range(5))))
    print(type(pool.submit(die).exception()).__name__)
    print(type(pool.with_options(task_timeout=0.2).submit(time.sleep, 30).exception()).__name__)
    print(pool.submit(square, 4).result())
print(count_descriptors() - before, [thread.name for thread in threading.enumerate()])
print(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
"""


@pytest.mark.slow
def test_a_script_without_a_guard_is_quiet_and_leaves_nothing(tmp_path: Path) -> None:
    out, err = finish(start(tmp_path, GUARDLESS), tmp_path)
    assert err == ""
    assert out.splitlines() == [
        "2 [0, 1, 4, 9, 16]",
        "WorkerCrashedError",
        "TaskTimeoutError",
        "16",
        "0 ['MainThread']",
        "[]",
    ]


FORGOTTEN: Final = """
import time
from pathlib import Path
from poolkit import make_executor

def write(number):
    time.sleep(0.05)
    Path(f"done{number}").touch()

if __name__ == "__main__":
    pool = make_executor("dask", 1)
    for number in range(10):
        pool.submit(write, number)
    print("end")
"""


@pytest.mark.slow
def test_a_script_that_never_shuts_its_pool_down(tmp_path: Path) -> None:
    assert finish(start(tmp_path, FORGOTTEN), tmp_path) == ("end\n", "")
    assert len(list(tmp_path.glob("done*"))) == 10


INTERRUPTED: Final = """
from poolkit import current_task, make_executor

def wait(_number):
    current_task().wait(600)
    current_task().check()

if __name__ == "__main__":
    with make_executor("dask", 1) as pool:
        futures = [pool.submit(wait, number) for number in range(5)]
        while not futures[0].running():
            pass
        print("ready", flush=True)
        futures[-1].result()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_script_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    script = start(tmp_path, INTERRUPTED)
    assert script.stdout is not None
    assert script.stdout.readline() == "ready\n"
    os.killpg(script.pid, number)
    _, err = finish(script, tmp_path)
    assert script.returncode == -number
    if number == signal.SIGINT:
        assert err.rstrip().endswith("KeyboardInterrupt")
        assert err.count("Traceback") == 1
    else:
        assert err == ""
