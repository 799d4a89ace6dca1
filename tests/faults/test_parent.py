"""Workers never outlive their parent; and the parent's forks and exits are as without a pool."""

import os
import signal
import sys
from pathlib import Path

import pytest

from . import tasks
from .census import Endings, shared_memory_names
from .helpers import Mailbox, MakePool, StartScript

pytestmark = pytest.mark.timeout(60)

SOON = 5.0
"""Seconds within which workers are gone; the kernel tells them at once."""

DYING_PARENT = """\
import os
import signal
import sys
from poolkit import make_executor
from tests.faults import tasks

def main():
    mailbox, start_method = sys.argv[1:]
    pool = make_executor("process", 2, start_method=start_method)
    assert list(pool.map(abs, range(50))) == list(range(50))
    pool.submit(tasks.hang_with_child, mailbox, "hang_holding_the_gil")
    pool.submit(tasks.hang_with_child, mailbox, "hang_ignoring_sigterm")
    pid = os.fork()  # a child that knows nothing of the pool, and outlives it
    if pid == 0:
        while True:
            signal.pause()
    tasks.tell(mailbox, pid)
    sys.stdin.read()
    os._exit(3)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("start_method", ["fork", "forkserver"])
@pytest.mark.parametrize("way", ["SIGKILL", "os._exit"])
def test_workers_die_with_their_parent(
    start_script: StartScript, mailbox: Mailbox, start_method: str, way: str
) -> None:
    script = start_script(DYING_PARENT, mailbox.path, start_method)
    told = [mailbox.read() for _ in range(3)]
    ((forked,),) = [pids for pids in told if len(pids) == 1]
    workers = [pid for pids in told if len(pids) == 2 for pid in pids]
    try:
        with Endings(*workers) as workers_and_children:
            if way == "SIGKILL":
                script.process.kill()
                assert script.end() == -signal.SIGKILL
            else:
                script.write("")
                assert script.end() == 3
            workers_and_children.wait(SOON)
    finally:
        os.kill(forked, signal.SIGKILL)
    assert shared_memory_names(script.process.pid) == []


READING_PARENT = """\
import sys
import threading
from pathlib import Path
from poolkit import make_executor
from tests.faults import tasks

def reads(thread):
    call = Path(f"/proc/self/task/{thread}/syscall").read_text().split()
    return call[:2] == ["0", "0x0"]  # read, of descriptor 0

def submit(reader):
    while not reads(reader):
        pass
    with make_executor("process", 1, start_method="fork") as pool:
        tasks.tell(sys.argv[1], pool.submit(abs, -7).result())
        tasks.tell(sys.argv[1], len(pool.submit(tasks.read_input).result()))

if __name__ == "__main__":
    thread = threading.Thread(target=submit, args=(threading.get_native_id(),))
    thread.start()
    sys.stdin.read()
    thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_worker_is_forked_while_a_thread_reads_standard_input(
    start_script: StartScript, mailbox: Mailbox
) -> None:
    """Whose lock is taken then, also in the worker, where multiprocessing closes it."""
    script = start_script(READING_PARENT, mailbox.path)
    assert [mailbox.read(), mailbox.read()] == [[7], [0]]
    script.write("")
    script.check()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_what_a_forked_worker_starts_has_the_parents_input(make_pool: MakePool) -> None:
    """As with the other start methods."""
    pool = make_pool(1, start_method="fork")
    assert pool.submit(tasks.input_of_child).result() == str(Path("/proc/self/fd/0").readlink())
    assert pool.submit(tasks.fork_and_compare).result()


CTRL_C = """\
import concurrent.futures, signal, sys
from poolkit import make_executor
from tests.faults import tasks

def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    mailbox, task = sys.argv[1:]
    with make_executor("process", 2, kill_grace=0.2) as pool:
        assert list(pool.map(abs, range(50))) == list(range(50))
        futures = [pool.submit(tasks.hang_with_child, mailbox, task) for _ in range(2)]
        futures += [pool.submit(abs, number) for number in range(50)]
        concurrent.futures.wait(futures)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("task", ["hang", "hang_ignoring_sigterm", "hang_holding_the_gil"])
def test_ctrl_c_ends_a_program(start_script: StartScript, mailbox: Mailbox, task: str) -> None:
    script = start_script(CTRL_C, mailbox.path, task)
    with Endings(*mailbox.read(), *mailbox.read()) as workers_and_children:
        os.killpg(script.process.pid, signal.SIGINT)  # as a terminal does
        assert script.end() == -signal.SIGINT, script.errors
        workers_and_children.wait(SOON)
    assert script.errors.count("Traceback") == 1, script.errors
    assert "KeyboardInterrupt" in script.errors.splitlines()
    assert shared_memory_names(script.process.pid) == []


FORKING = """\
import os
import sys
from pathlib import Path
from poolkit import make_executor
from tests.tasks import Gate, GateKeeper, square

def child(how, pool, futures):
    try:
        pool.submit(square, 1)
    except RuntimeError:
        pass
    else:
        os._exit(9)
    if how == "use":
        with make_executor("process", 1, start_method="fork") as own:
            assert own.submit(square, 4).result() == 16
    if how == "shut down":
        pool.shutdown()
    if how == "drop":
        del pool, futures
    if how == "_exit":
        os._exit(0)
    sys.exit(0)

def main():
    keeper = GateKeeper(Gate.make(Path("gate")))
    pool = make_executor("process", 2, start_method=sys.argv[1])
    futures = [pool.submit(keeper.gate.hold, number) for number in range(2)]
    keeper.wait_started(2)
    futures += [pool.submit(square, number) for number in range(20)]
    for how in ("exit", "_exit", "use", "shut down", "drop"):
        pid = os.fork()
        if pid == 0:
            child(how, pool, futures)
        _, status = os.waitpid(pid, 0)
        print(how, os.waitstatus_to_exitcode(status), flush=True)
    keeper.open()
    assert [future.result() for future in futures] == [0, 1] + [n * n for n in range(20)]
    assert list(pool.map(square, range(20))) == [n * n for n in range(20)]
    pool.shutdown()
    print("done")

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("start_method", ["fork", "forkserver"])
def test_forks_of_a_program_with_a_pool(start_script: StartScript, start_method: str) -> None:
    script = start_script(FORKING, start_method)
    script.check()
    expected = ["exit 0", "_exit 0", "use 0", "shut down 0", "drop 0", "done"]
    assert script.output.splitlines() == expected


NORMAL_EXIT = """\
import sys
from pathlib import Path
from poolkit import make_executor
from tests.faults import tasks

def main():
    pool = make_executor("process", 2)
    for number in range(1, 60):
        pool.submit(tasks.die_at, Path(sys.argv[1]), 20, number)

if __name__ == "__main__":
    main()
"""


def test_pending_tasks_run_at_exit(start_script: StartScript, runs: Path) -> None:
    script = start_script(NORMAL_EXIT, str(runs))
    script.check()
    assert sorted(map(int, runs.read_text().split())) == list(range(1, 60))


FORKSERVER_KILLED = """\
import concurrent.futures
import multiprocessing.forkserver
import os
import signal
import sys
from pathlib import Path
from poolkit import PoolkitError, make_executor
from tests.tasks import Gate, GateKeeper, square

def main():
    keeper = GateKeeper(Gate.make(Path("gate")))
    pool = make_executor("process", 2, start_method="forkserver")
    futures = [pool.submit(keeper.gate.hold, number) for number in range(2)]
    keeper.wait_started(2)
    os.kill(multiprocessing.forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    keeper.open()
    futures += [pool.submit(square, number) for number in range(20)]
    assert not concurrent.futures.wait(futures, timeout=20).not_done
    for future, value in zip(futures, [0, 1] + [n * n for n in range(20)]):
        error = future.exception()
        assert isinstance(error, PoolkitError) if error else future.result() == value
    pool.shutdown()
    with make_executor("process", 2) as pool:
        assert list(pool.map(square, range(20))) == [n * n for n in range(20)]
    print("done")

if __name__ == "__main__":
    main()
"""


def test_a_dead_forkserver_hangs_nothing(start_script: StartScript) -> None:
    script = start_script(FORKSERVER_KILLED)
    script.check()
    assert script.output.split() == ["done"]
