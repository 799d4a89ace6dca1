"""Counts what a test may leave behind: processes, threads, descriptors, shared-memory names."""

import ctypes
import gc
import multiprocessing.forkserver
import multiprocessing.process
import multiprocessing.resource_tracker
import os
import re
import select
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import attrs

LIMIT: Final = 20.0
"""Seconds that whatever must end may take, on the slowest of machines."""

_PR_SET_CHILD_SUBREAPER: Final = 36
_PAUSE: Final = 0.005  # seconds between two counts


def adopt_orphans(adopt: bool) -> None:
    """Become the parent of descendants whose parents die, so that none gets out of sight."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@attrs.frozen
class Process:
    """What ``/proc/<pid>/stat`` says."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    session: int


def processes() -> dict[int, Process]:
    """Return all processes that there are, by pid."""
    found = {}
    for path in Path("/proc").iterdir():  # `glob` stumbles over one that ends meanwhile
        if not path.name.isdecimal():
            continue
        with suppress(OSError):  # as this might
            start, _, rest = (path / "stat").read_text(errors="replace").rpartition(")")
            pid, _, name = start.partition(" (")
            state, *numbers = rest.split()[:4]
            found[int(pid)] = Process(int(pid), name, state, *map(int, numbers))
    return found


def descendants() -> list[Process]:
    """Return this process' children and theirs, without those that multiprocessing keeps."""
    everything = processes()
    children: dict[int, list[Process]] = {}
    for process in everything.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    ancestors = [os.getpid()]
    while ancestors:
        own = children.get(ancestors.pop(), [])
        ancestors += [process.pid for process in own]
        found += own
    forkserver: Any = multiprocessing.forkserver
    tracker: Any = multiprocessing.resource_tracker
    kept = {forkserver._forkserver._forkserver_pid, tracker._resource_tracker._pid}
    return [process for process in found if process.pid not in kept]


def reap_adopted() -> None:
    """Bury adopted orphans, as nobody else does; what this process has started, others have to."""
    started: Any = multiprocessing.process._children  # type: ignore[attr-defined]
    own = {process.pid for process in started}
    for process in descendants():
        if process.state == "Z" and process.parent == os.getpid() and process.pid not in own:
            with suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def shared_memory_names(pid: int) -> list[str]:
    """Return the names of shared memory that carry a pid."""
    carries = re.compile(rf"(?<!\d){pid}(?!\d)")
    return [path.name for path in Path("/dev/shm").iterdir() if carries.search(path.name)]


def descriptors(pid: int | str = "self") -> list[str]:
    """Return what each descriptor of a process, or of this one, stands for."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # the one that lists them is closed by now
            found.append(str(path.readlink()))
    return found


def census() -> Counter[str]:
    """Count all that this process has, by description."""
    return Counter(
        [
            *(f"process {process.pid}, {process.name}" for process in descendants()),
            *(f"thread {path.name}" for path in Path("/proc/self/task").iterdir()),
            *(f"descriptor of {target}" for target in descriptors()),
            *(f"shared memory {name}" for name in shared_memory_names(os.getpid())),
        ]
    )


def what_is_left(before: Counter[str], limit: float = LIMIT) -> list[str]:
    """Wait until nothing is here that was not before; return what still is after `limit` s."""
    deadline = time.monotonic() + limit
    while True:
        gc.collect()
        reap_adopted()
        left = census() - before
        if not left or time.monotonic() > deadline:
            return sorted(left.elements())
        time.sleep(_PAUSE)


def kill(those: list[Process]) -> None:
    """Kill processes that a failed test has left."""
    for process in those:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    reap_adopted()


class Endings:
    """Waits for processes to end that are none of our children; takes them while they live."""

    def __init__(self, *pids: int) -> None:
        self._pids: dict[int, int] = {}
        for pid in pids:
            with suppress(ProcessLookupError):
                self._pids[os.pidfd_open(pid)] = pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for descriptor in self._pids:
            os.close(descriptor)

    def wait(self, limit: float = LIMIT) -> None:
        """Return when all have ended; fail after `limit` seconds."""
        deadline = time.monotonic() + limit
        running = dict(self._pids)
        poll = select.poll()
        for descriptor in running:
            poll.register(descriptor, select.POLLIN)
        while running:
            ended = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            assert ended, f"still alive after {limit:g} s: {list(running.values())}"
            for descriptor, _ in ended:
                poll.unregister(descriptor)
                del running[descriptor]
