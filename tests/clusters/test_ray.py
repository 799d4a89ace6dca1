"""The ``"ray"`` kind, on a Ray of its own: what its workers and the connection can go through.

Most tests share one Ray, which a pool holds open. Scripts have others, each in a session of its
own, so that what they leave behind is found.
"""

import ctypes
import importlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from poolkit import (
    PoolExecutor,
    TaskAbortedError,
    TaskSerializationError,
    TaskTimeoutError,
    UnsupportedError,
    WorkerCrashedError,
    make_executor,
    map_ordered,
    map_outcomes,
    map_unordered,
)
from poolkit.backends._remote_worker import Parcel
from poolkit.backends.ray import RayEngine

from ..tasks import GateKeeper, add, count_call, square
from .start import needs

pytestmark = [needs("ray"), pytest.mark.ray]

CPUS: Final = 2
LARGE: Final = 8 << 20
"""Bytes."""
LONG: Final = 600.0
"""Seconds; what waits so long for something that must come hangs."""


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with make_executor("ray", CPUS):
        yield


@pytest.fixture
def pool() -> Iterator[PoolExecutor]:
    with make_executor("ray") as pool:
        yield pool


def pid_of(_x: object = None) -> int:
    return os.getpid()


def kill_at(guilty: int, number: int) -> int:
    if number == guilty:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def tell_pid(path: Path) -> None:
    """Write the process's number into a file, all at once."""
    path.with_suffix(".part").write_text(str(os.getpid()))
    path.with_suffix(".part").rename(path)


def hang(path: Path, how: str) -> None:
    """Hang so that only SIGKILL helps."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    tell_pid(path)
    if how == "asleep":
        time.sleep(LONG)
    else:  # with the interpreter's lock held
        ctypes.PyDLL(None).sleep(int(LONG))


def read_pid(path: Path) -> int:
    """Wait for a task to say who runs it."""
    while not path.exists():
        time.sleep(0.005)
    return int(path.read_text())


def wait_gone(pid: int) -> None:
    """Wait until a process has ended, or only its parent has to take note."""
    while True:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.005)


def call_and_die(folder: Path) -> None:
    count_call(folder, "task")
    os._exit(0)


def double(data: bytes) -> bytes:
    return data * 2


class HardExit(BaseException):
    pass


def raise_it(error: BaseException) -> NoReturn:
    raise error


def remember(key: str, word: str) -> None:
    os.environ[key] = os.environ.get(key, "") + word


def recall(key: str) -> tuple[int, str]:
    return os.getpid(), os.environ[key]


def test_a_worker_dies_in_the_middle_of_a_map(pool: PoolExecutor) -> None:
    outcomes = list(map_outcomes(pool, kill_at, [77] * 200, range(200), ordered=True))
    assert [outcome.value for outcome in outcomes if outcome.ok] == [
        number * number for number in range(200) if number != 77
    ]
    (crash,) = [outcome.error for outcome in outcomes if not outcome.ok]
    assert isinstance(crash, WorkerCrashedError)
    assert "77" in crash.task


def test_a_worker_is_killed_from_outside(pool: PoolExecutor, gate: GateKeeper) -> None:
    held = [pool.submit(add_pid, gate.gate.hold, number) for number in range(2)]
    gate.wait_started(2)
    pids = [int(Path(gate.gate.folder, f"pid{number}").read_text()) for number in range(2)]
    os.kill(pids[0], signal.SIGKILL)
    error = held[0].exception(LONG)
    assert isinstance(error, WorkerCrashedError)
    assert error.pid == pids[0]
    gate.open()
    assert held[1].result(LONG) == 1
    assert pool.submit(square, 3).result(LONG) == 9


def add_pid(hold: Callable[[object], object], number: int) -> object:
    folder: Path = hold.__self__.folder  # type: ignore[attr-defined]
    (folder / f"pid{number}").write_text(str(os.getpid()))
    return hold(number)


def test_what_has_crashed_is_not_run_again(pool: PoolExecutor, tmp_path: Path) -> None:
    for _ in range(5):
        with pytest.raises(WorkerCrashedError):
            pool.submit(call_and_die, tmp_path).result(LONG)
    assert count_call(tmp_path, "task") == 5  # before this one


@pytest.mark.parametrize("how", ["asleep", "in C"])
def test_abort_ends_what_hangs(pool: PoolExecutor, tmp_path: Path, how: str) -> None:
    hung = pool.submit(hang, tmp_path / "pid", how)
    pid = read_pid(tmp_path / "pid")
    assert hung.abort() == "killed"
    assert isinstance(hung.exception(0), TaskAbortedError)
    wait_gone(pid)
    assert pool.submit(square, 3).result(LONG) == 9


@pytest.mark.parametrize("how", ["asleep", "in C"])
def test_a_time_limit_ends_what_hangs(pool: PoolExecutor, tmp_path: Path, how: str) -> None:
    limited = pool.with_options(task_timeout=0.5)
    hung = limited.submit(hang, tmp_path / "pid", how)
    assert isinstance(hung.exception(LONG), TaskTimeoutError)
    wait_gone(read_pid(tmp_path / "pid"))
    assert pool.submit(square, 3).result(LONG) == 9


def test_only_the_late_item_of_a_map_fails(pool: PoolExecutor, tmp_path: Path) -> None:
    outcomes = list(
        map_outcomes(
            pool,
            hang_at,
            [tmp_path / "pid"] * 40,
            range(40),
            task_timeout=3,
            chunksize=10,
            ordered=True,
        )
    )
    assert [outcome.index for outcome in outcomes if not outcome.ok] == [13]
    assert isinstance(outcomes[13].error, TaskTimeoutError)
    assert [outcome.value for outcome in outcomes if outcome.ok] == [
        number for number in range(40) if number != 13
    ]


def hang_at(path: Path, number: int) -> int:
    if number == 13:
        hang(path, "in C")
    return number


def test_thousands_of_small_items(pool: PoolExecutor) -> None:
    assert list(map_ordered(pool, square, range(2000))) == [x * x for x in range(2000)]
    assert sorted(map_unordered(pool, square, range(2000))) == [x * x for x in range(2000)]


def test_hundreds_of_tasks(pool: PoolExecutor) -> None:
    futures = [pool.submit(add, number, 1) for number in range(300)]
    assert [future.result(LONG) for future in futures] == list(range(1, 301))


def test_large_arguments_and_results(pool: PoolExecutor) -> None:
    large = [bytes([number]) * LARGE for number in range(4)]
    for given, got in zip(large, map_ordered(pool, double, large), strict=True):
        assert got == given * 2


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(1), HardExit("x")]
)
def test_no_exception_ends_a_worker(error: BaseException) -> None:
    with make_executor("ray", 1) as single:
        before = single.submit(pid_of).result(LONG)
        raised = single.submit(raise_it, error).exception(LONG)
        assert raised is not None
        assert type(raised) is type(error)
        assert raised.args == error.args
        assert single.submit(pid_of).result(LONG) == before


def test_an_error_of_rays_is_the_users_own(pool: PoolExecutor) -> None:
    ray: Any = importlib.import_module("ray")
    error = pool.submit(raise_it, ray.exceptions.TaskCancelledError()).exception(LONG)
    assert type(error) is ray.exceptions.TaskCancelledError


def test_tasks_that_wait_in_ray_can_be_cancelled(gate: GateKeeper, tmp_path: Path) -> None:
    with make_executor("ray", CPUS + 2) as wide:
        held = [wide.submit(gate.gate.hold, number) for number in range(CPUS)]
        gate.wait_started(CPUS)
        more = [wide.submit(count_call, tmp_path, f"more{number}") for number in range(6)]
        assert not any(future.running() for future in more)
        assert wide.statistics().running == CPUS
        assert [future.cancel() for future in more[:-1]] == [True] * 5
        assert not any(future.cancel() for future in held)
        gate.open()
        assert [future.result(LONG) for future in held] == list(range(CPUS))
        assert more[-1].result(LONG) == 0
    assert [path.name for path in tmp_path.glob("more*")] == ["more5-0"]


class Deaf:
    """A listener that only notes whether it is told anything."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def heard(self, message: tuple[Any, ...]) -> None:
        self.told.append(message)

    def finished(self) -> None:
        self.told.append("finished")

    def lost(self, error: BaseException, *, died: bool, worker: str | None = None) -> None:
        self.told.append(error)


def test_what_is_revoked_never_begins(pool: PoolExecutor, gate: GateKeeper, tmp_path: Path) -> None:
    held = [pool.submit(gate.gate.hold, number) for number in range(CPUS)]
    gate.wait_started(CPUS)
    engine, listener = RayEngine("the test's"), Deaf()
    call = pickle.dumps((count_call, {}))
    items = [(0, pickle.dumps((tmp_path, "revoked")))]
    try:
        sent = engine.send(Parcel("the test's", None, call, items, None, 1), listener)
        assert engine.revoke([sent]) == [True]
        gate.open()  # and Ray hands it to a worker, which must wait there
        assert [future.result(LONG) for future in held] == list(range(CPUS))
        for number in range(20):
            assert pool.submit(square, number).result(LONG) == number * number
        assert engine.begun([sent]) == [False]
        engine.give_up(sent)
    finally:
        engine.close()
    assert not listener.told
    assert not list(tmp_path.glob("revoked*"))


def test_a_burst_of_cancels_loses_and_repeats_nothing(tmp_path: Path) -> None:
    with make_executor("ray", CPUS + 2) as wide:
        cancelled: list[int] = []
        futures = []
        for number in range(60):
            futures.append(wide.submit(count_call, tmp_path, f"call{number}"))
            if number % 3 == 0 and futures[number // 2].cancel():
                cancelled.append(number // 2)
        ran = [number for number, future in enumerate(futures) if not future.cancelled()]
        assert [futures[number].result(LONG) for number in ran] == [0] * len(ran)
    assert sorted(path.name for path in tmp_path.glob("call*")) == sorted(
        f"call{number}-0" for number in range(60) if number not in cancelled
    )


def test_the_initializer_runs_once_in_each_process() -> None:
    key = f"POOLKIT_TEST_{uuid.uuid4().hex}"
    with make_executor("ray", initializer=remember, initargs=(key, "a")) as pool:
        first = dict(map_unordered(pool, recall, [key] * 50, chunksize=1))
    assert set(first.values()) == {"a"}
    with make_executor("ray", initializer=remember, initargs=(key, "b")) as pool:
        for pid, word in map_unordered(pool, recall, [key] * 50, chunksize=1):
            assert word == ("ab" if pid in first else "b")


def test_workers_find_modules_where_this_process_does(
    pool: PoolExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here_for_ray.py").write_text("def answer():\n    return 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here_for_ray  # type: ignore[import-not-found]

    assert pool.submit(only_here_for_ray.answer).result(LONG) == 42


def test_what_workers_cannot_import_fails_alone(pool: PoolExecutor) -> None:
    class Gone:
        def __reduce__(self) -> Any:
            return __import__, ("no_such_module_anywhere",)

    gone: Any = Gone()
    assert isinstance(pool.submit(square, gone).exception(LONG), TaskSerializationError)
    assert pool.submit(square, 3).result(LONG) == 9


def test_each_task_may_need_more(gate: GateKeeper) -> None:
    with make_executor("ray", ray_options={"num_cpus": CPUS}) as pool:
        assert pool.max_workers == 1
        held = [pool.submit(gate.gate.hold, number) for number in range(2)]
        gate.wait_started()
        assert [future.running() for future in held] == [True, False]
        gate.open()
        assert [future.result(LONG) for future in held] == [0, 1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_retries": 3}, "retry"),
        ({"num_returns": 1}, "poolkit"),
        ({"nonsense": 1}, "nonsense"),
        ({"resources": {"nonsense": 1}}, "nonsense"),
        ({"num_cpus": CPUS + 1}, "num_cpus"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make_executor("ray", ray_options=options)


def test_another_address_is_refused() -> None:
    with pytest.raises(ValueError, match="is connected to Ray at"):
        make_executor("ray", address="127.0.0.1:1")
    with pytest.raises(ValueError, match="host:port"):
        make_executor("ray", address="nonsense")
    with pytest.raises(UnsupportedError, match="ray://"):
        make_executor("ray", address="ray://127.0.0.1:10001")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'poolkit\[ray\]'"):
        make_executor("ray")


# -- scripts with a Ray of their own ------------------------------------------------------------


def start(folder: Path, source: str, *args: str, **env: str) -> "subprocess.Popen[str]":
    script = folder / "script.py"
    number = 0
    while script.exists():
        number += 1
        script = folder / f"script{number}.py"
    script.write_text(source)
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(script), *args],
        cwd=folder,
        env={**os.environ, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Make a folder for temporary files, with a name that is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="pk", dir="/tmp") as folder:
        yield Path(folder)


def members(session: int) -> list[str]:
    """Return the names of the processes of a session."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(rest.split()[3]) == session and rest.split()[0] != "Z":
            found.append(name)
    return found


def finish(script: "subprocess.Popen[str]", said: str = "") -> tuple[str, str]:
    """Let a script end; return what it wrote to stdout and stderr, and check what it leaves."""
    try:
        out, err = script.communicate(said, timeout=100)
        assert script.returncode == 0, err
        assert not members(script.pid)
    finally:
        if members(script.pid):
            for path in Path("/proc").glob("[0-9]*/stat"):
                try:
                    if os.getsid(int(path.parent.name)) == script.pid:
                        os.kill(int(path.parent.name), signal.SIGKILL)
                except ProcessLookupError:
                    continue
    return out, err


EVERYTHING = """
import os, signal, sys, threading, time
from pathlib import Path
from poolkit import WorkerCrashedError, make_executor, map_ordered

def square(x):
    return x * x

def die():
    os._exit(3)

def hang(path):
    Path(path).touch()
    time.sleep(600)

def speak():
    print("to stdout")
    print("to stderr", file=sys.stderr)

if __name__ == "__main__":
    before = signal.getsignal(signal.SIGTERM)
    with make_executor("ray", 2) as pool:
        print(list(map_ordered(pool, square, range(5))))
        print(type(pool.submit(die).exception()).__name__)
        hung = pool.submit(hang, "hung")
        while not os.path.exists("hung"):
            time.sleep(0.005)
        print(hung.abort(), type(hung.exception()).__name__)
        pool.submit(speak).result()
        with make_executor("ray") as other:
            print(other.submit(square, 3).result())
        print(pool.submit(square, 4).result())
    import ray
    print(ray.is_initialized(), [thread.name for thread in threading.enumerate()])
    print(signal.getsignal(signal.SIGTERM) == before)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    print([child for child in children.split()])
    with make_executor("ray", 1) as again:
        print(again.max_workers, again.submit(square, 5).result())
"""


@pytest.mark.slow
def test_a_pool_is_quiet_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    out, err = finish(start(tmp_path, EVERYTHING, TMPDIR=str(temporary)))
    assert out.splitlines() == [
        "[0, 1, 4, 9, 16]",
        "WorkerCrashedError",
        "killed TaskAbortedError",
        "9",
        "16",
        "False ['MainThread']",
        "True",
        "[]",
        "1 25",
    ]
    assert err == ""
    assert not list(temporary.iterdir())


FORGOTTEN = """
import sys, threading, time
from pathlib import Path
from poolkit import make_executor

def write(number):
    time.sleep(0.05)
    Path(f"done{number}").touch()

if __name__ == "__main__":
    made = []
    starter = threading.Thread(target=lambda: made.append(make_executor("ray", 2)))
    starter.start()
    starter.join()  # Ray must not end with the thread that asked for it
    for number in range(10):
        made[0].submit(write, number)
    print("end")
"""


@pytest.mark.slow
def test_a_script_that_never_shuts_its_pool_down(tmp_path: Path) -> None:
    # The folder's name is too long for sockets.
    out, err = finish(start(tmp_path, FORGOTTEN, TMPDIR=str(tmp_path)))
    assert (out, err) == ("end\n", "")
    assert len(list(tmp_path.glob("done*"))) == 10


HOST = """
import logging, sys, time
import ray
from poolkit import PoolBrokenError, make_executor

@ray.remote
def answer():
    return 42

def square(x):
    return x * x

def check():
    assert ray.get(answer.remote()) == 42

if __name__ == "__main__":
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    with make_executor("ray") as pool:
        assert pool.submit(square, 3).result() == 9
    check()
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.readline()
    check()
    with make_executor("ray") as pool:
        held = [pool.submit(time.sleep, 600) for _ in range(5)]
        while not held[1].running():
            time.sleep(0.005)
        ray.shutdown()
        print({type(future.exception()).__name__ for future in held})
        try:
            print(pool.submit(square, 3).exception())
        except PoolBrokenError as error:
            print(error)
"""

GUEST = """
import sys
from poolkit import make_executor, map_ordered

def square(x):
    return x * x

if __name__ == "__main__":
    try:
        make_executor("ray", address="127.0.0.1:1")
    except ConnectionError as error:
        print(error)
    with make_executor("ray", address=sys.argv[1]) as pool:
        print(pool.max_workers, list(map_ordered(pool, square, range(5))))
    import ray
    print(ray.is_initialized())
"""


@pytest.mark.slow
def test_a_ray_that_others_started_is_joined_and_left_running(
    tmp_path: Path, temporary: Path
) -> None:
    host = start(tmp_path, HOST, TMPDIR=str(temporary))
    try:
        assert host.stdout is not None
        address = host.stdout.readline().strip()
        out, err = finish(start(tmp_path, GUEST, address, RAY_AUTH_MODE="token"))
        assert "no Ray cluster answers at 127.0.0.1:1" in out
        assert out.splitlines()[1:] == ["2 [0, 1, 4, 9, 16]", "False"]
        assert err == ""
    finally:
        out, err = finish(host, "go on\n")
    types, refused = out.splitlines()
    assert types == "{'PoolBrokenError'}"
    assert "ray.shutdown()" in refused
    assert err == ""
