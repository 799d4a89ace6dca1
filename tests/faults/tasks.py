"""Tasks that go wrong in every way, and tasks that tell what they see in their process."""

import collections
import ctypes
import fcntl
import itertools
import multiprocessing
import multiprocessing.util
import os
import signal
import stat
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import poolkit

from ..tasks import Gate, square

FOREVER = "100000"  # seconds, as an argument of sleep(1)

# -- telling --------------------------------------------------------------------------------


def tell(mailbox: str, *numbers: int) -> None:
    """Send a line of numbers to the test; short lines arrive whole."""
    with Path(mailbox).open("wb", buffering=0) as fifo:
        fifo.write(" ".join(map(str, numbers)).encode() + b"\n")


def read_input() -> str:
    return sys.stdin.read()


def input_of_child() -> str:
    """Return what the standard input of a program is that this process runs."""
    link = ["readlink", "/proc/self/fd/0"]
    return subprocess.run(link, capture_output=True, text=True, check=True).stdout.strip()


def fork_and_compare() -> bool:
    """Say whether a child that is forked here has the `sys.stdin` that we have."""
    mine = sys.stdin
    pid = os.fork()
    if pid == 0:
        os._exit(sys.stdin is not mine)
    return os.waitpid(pid, 0)[1] == 0


def note(runs: Path, number: int) -> int:
    """Note in a file that this task runs: so it is seen if it runs twice."""
    descriptor = os.open(runs, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, f"{number}\n".encode())
    os.close(descriptor)
    return number


def hold(mailbox: str, gate: Gate, value: Any = None) -> Any:
    """Tell the worker's pid; return `value` when the test opens the gate."""
    tell(mailbox, os.getpid())
    gate.hold()
    return value


def talk_at_exit(mailbox: str, answers: str, times: int) -> None:
    """Have this worker, as it ends, tell so many numbers, and wait for an answer to each."""

    def talk() -> None:
        with Path(answers).open("rb", buffering=0) as fifo:
            for number in range(times):
                tell(mailbox, number)
                fifo.read(1)

    multiprocessing.util.Finalize(None, talk, exitpriority=1)


def pid_and_group(_: object = None) -> tuple[int, int]:
    return os.getpid(), os.getpgrp()


def process_name(gate: Gate) -> str:
    gate.hold()
    return multiprocessing.current_process().name


def open_files(gate: Gate) -> list[str]:
    """Return what the worker's descriptors stand for, but for the three standard ones."""
    gate.hold()
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if int(path.name) > 2:
                found.append(str(path.readlink()))
    return found


# -- dying ----------------------------------------------------------------------------------


def exit_now(code: int) -> NoReturn:
    os._exit(code)


def die_of(number: int) -> NoReturn:
    os.kill(os.getpid(), number)
    raise AssertionError("the signal has not killed")


def segfault() -> None:
    ctypes.string_at(0)


def die_at_gate(mailbox: str, gate: Gate) -> NoReturn:
    hold(mailbox, gate)
    die_of(signal.SIGKILL)


def note_and_hold_at(runs: Path, gate: Gate, held: int, number: int) -> int:
    """Note the run; hold at one number."""
    note(runs, number)
    if number == held:
        gate.hold()
    return number


def die_at(runs: Path, fatal: int, number: int) -> int:
    """Die at multiples of `fatal`, having noted the run."""
    note(runs, number)
    if number % fatal == 0:
        die_of(signal.SIGKILL)
    return number


def close_descriptors(then_die: bool) -> None:
    os.closerange(3, 1 << 16)
    if then_die:
        die_of(signal.SIGKILL)


def leave_child_with_descriptors(mailbox: str, gate: Gate) -> NoReturn:
    """Die, and leave a child that holds all descriptors until the gate opens.

    The child has left the worker's process group, so that it outlives it.
    """
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.write(writer, b".")
        try:
            gate.hold()
        finally:
            os._exit(0)
    os.read(reader, 1)  # before that, our death would be the child's
    tell(mailbox, os.getpid())
    die_of(signal.SIGKILL)


def start_child() -> int:
    """Start a process in the group of this one that lives until it is killed."""
    return subprocess.Popen(["sleep", FOREVER]).pid


def leave_child_in_group(mailbox: str, gate: Gate, code: int) -> NoReturn:
    tell(mailbox, os.getpid(), start_child())
    gate.hold()
    os._exit(code)


def send_half(mailbox: str, gate: Gate, size: int) -> bytes:
    """Return a large value; die as soon as a part of it waits to be read by the parent."""
    hold(mailbox, gate)
    threading.Thread(target=_die_while_sending, daemon=True).start()
    return bytes(size)


def _die_while_sending() -> None:
    while True:
        for path in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                if int(path.name) > 2 and _bytes_on_the_way(int(path.name)) > 1 << 15:
                    os.kill(os.getpid(), signal.SIGKILL)


def _bytes_on_the_way(descriptor: int) -> int:
    status = os.fstat(descriptor)
    if stat.S_ISSOCK(status.st_mode) or stat.S_ISFIFO(status.st_mode):
        request = termios.TIOCOUTQ if stat.S_ISSOCK(status.st_mode) else termios.FIONREAD
        answer = fcntl.ioctl(descriptor, request, struct.pack("i", 0))
        return int(struct.unpack("i", answer)[0])
    target = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    large = status.st_size > 1 << 20 and status.st_blocks > 0
    return status.st_size if large and target.startswith(("/memfd:", "/dev/shm/")) else 0


# -- hanging --------------------------------------------------------------------------------


def hang(_: object = None) -> NoReturn:
    while True:
        time.sleep(float(FOREVER))


def hang_ignoring_sigterm(_: object = None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang()


def hang_holding_the_gil(_: object = None) -> None:
    """Spin in C code, which neither yields the interpreter nor looks at signals."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    collections.deque(itertools.repeat(None), maxlen=0)


def hang_with_child(mailbox: str, how: str = "hang") -> None:
    tell(mailbox, os.getpid(), start_child())
    globals()[how]()


def hang_at(fatal: int, number: int) -> int:
    if number == fatal:
        hang()
    return number


def note_and_hang(runs: Path) -> NoReturn:
    """Note the pid, and only then ignore SIGTERM: who ignores it can be found."""
    note(runs, os.getpid())
    hang_ignoring_sigterm()


def hold_at(gate: Gate, number: int, value: int) -> int:
    if value == number:
        gate.hold()
    return value


# -- starting, and pools in workers ---------------------------------------------------------


def fail_to_start(_: object = None) -> NoReturn:
    raise ValueError("no database")


def die_at_first_start(marker: str) -> None:
    """Die in the first process that calls it."""
    with suppress(FileExistsError):
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        die_of(signal.SIGKILL)


hoarded: list[bytes] = []


def hoard(size: int) -> int:
    """Keep memory that is really used; return the pid."""
    hoarded.append(b"x" * size)
    return os.getpid()


def use_inner_pool() -> tuple[int, list[int], str]:
    """Run a pool in this worker, one task of which dies."""
    with poolkit.make_executor("process") as pool:
        crash = pool.submit(exit_now, 1).exception()
        squares = list(poolkit.map_ordered(pool, square, range(20)))
        return pool.max_workers, squares, type(crash).__name__


def die_with_inner_pool(mailbox: str, gate: Gate) -> NoReturn:
    """Make a pool, the task of which tells of itself and hangs; then die."""
    pool = poolkit.make_executor("process", 1)
    pool.submit(hang_with_child, mailbox, "hang_holding_the_gil")
    gate.hold()
    die_of(signal.SIGKILL)
