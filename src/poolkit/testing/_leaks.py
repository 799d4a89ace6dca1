"""`no_pool_leaks`: fails what leaves threads, processes, executors or failures behind.

What counts, and what does not:

* Only what was made between start and end; nor does a worker count that a pool starts meanwhile
  which was there before, as one that a whole module shares.
* A thread or a process counts if it is still there when the grace is over. Three threads of
  poolkit's serve all pools, end by themselves a bit after they are needed, and never count.
* An executor counts if nobody has shut it down, also if it was dropped and collected; but a view
  doesn't, nor what runs in the caller, belongs to somebody else or is a test double: these hold
  nothing, but for threads, which count as such.
* A failure counts if its task was submitted meanwhile, has failed, and nobody has asked its
  future for the outcome, whether the future still exists or not.
"""

import contextlib
import gc
import inspect
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, Final, NamedTuple

from .. import _executor
from .._checks import check_seconds
from .._public import public_in_testing as public
from ._origins import Origin, Recorder

_SHARED_THREADS: Final = ("poolkit-retries", "poolkit-deadlines", "poolkit-inputs")
# Ours alone: it may be stuck in code of the user's that it asked for a `repr`, or called back.
# A simulation's threads end with it.
_OWN_THREADS: Final = ("poolkit-watchdog", "poolkit-simulated")
# The first and the longest pause between two looks, in seconds.
_SHORT_PAUSE: Final = 0.001
_LONG_PAUSE: Final = 0.05


class Leak(NamedTuple):
    """Something that was left behind.

    Attributes:
        what: What it is.
        made: How it came about: "made", "started" or "submitted".
        origin: The line that did so.
    """

    what: str
    made: str
    origin: Origin | None

    def __str__(self) -> str:
        where = "where no line of yours shows" if self.origin is None else f"at {self.origin}"
        return f"{self.what}, {self.made} {where}"


def describe_leaks(leaks: Sequence[Leak]) -> str:
    """Return the leaks as text, one a line."""
    counts = Counter(str(leak) for leak in leaks)
    lines = [f"{text} ({count} times)" if count > 1 else text for text, count in counts.items()]
    return "\n".join(["left behind:", *(f"  {line}" for line in lines)])


@public
class PoolLeakError(AssertionError):
    """Something was left behind, in a block or a test that must not.

    Attributes:
        leaks: What, each with the line that made it.
    """

    def __init__(self, leaks: Sequence[Leak]) -> None:
        self.leaks = tuple(leaks)
        super().__init__(describe_leaks(self.leaks))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.leaks,)


class LeakCheck:
    """What to look for, and since when; to be started and stopped by one thread."""

    def __init__(
        self,
        *,
        threads: bool = True,
        processes: bool = True,
        executors: bool = True,
        failures: bool = True,
        grace: float = 1.0,
    ) -> None:
        """Prepare; see `no_pool_leaks` for the arguments.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: The grace is negative.
        """
        flags = {
            "threads": threads,
            "processes": processes,
            "executors": executors,
            "failures": failures,
        }
        for name, flag in flags.items():
            if not isinstance(flag, bool):
                raise TypeError(f"{name} must be True or False, not {flag!r:.80}")
        seconds = check_seconds("grace", grace, allow_zero=True)
        if seconds is None:
            raise TypeError(f"grace must be a number of seconds, not {grace!r}")
        self._grace = seconds
        self._finders = [
            getattr(self, f"_{name}") for name, is_wanted in flags.items() if is_wanted
        ]
        self._recorder = Recorder()

    def start(self) -> None:
        """Note what is made from now on."""
        self._recorder.start()

    def stop(self) -> None:
        """Note nothing more."""
        self._recorder.stop()

    def find(self) -> list[Leak]:
        """Return what is left behind, once the grace is over or nothing is."""
        leaks = self._look()
        if leaks:
            gc.collect()  # what only a cycle of references keeps alive is about to go
        end, pause = time.monotonic() + self._grace, _SHORT_PAUSE
        while (leaks := self._look()) and any(leak.made == "started" for leak in leaks):
            left = end - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONG_PAUSE)
        return leaks

    def _look(self) -> list[Leak]:
        return [leak for find in self._finders for leak in find()]

    def _executors(self) -> Iterator[Leak]:
        for pool in self._recorder.pools():
            if not (pool.scope.closed or pool.holds_nothing):
                yield Leak(f"open executor ({pool.name})", "made", pool.origin)

    def _failures(self) -> Iterator[Leak]:
        for failure in self._recorder.failures():
            what = f"failure that nobody asked for ({failure.error})"
            yield Leak(what, "submitted", failure.origin)

    def _threads(self) -> Iterator[Leak]:
        exempt = self._workers_of_others()
        for thread, origin in self._recorder.threads():
            spared = thread.name in _SHARED_THREADS or thread.name.startswith(_OWN_THREADS)
            if thread.is_alive() and not spared and thread not in exempt:
                yield Leak(f"thread {thread.name!r}", "started", origin)

    def _processes(self) -> Iterator[Leak]:
        exempt = self._workers_of_others()
        for process, origin in self._recorder.processes():
            if process not in exempt and _is_alive(process):
                with contextlib.suppress(ValueError):  # it has just been closed
                    yield Leak(f"process {process.name!r}, pid {process.pid}", "started", origin)

    def _workers_of_others(self) -> set[Any]:
        """Return the threads and processes of all pools that were not made meanwhile."""
        mine = {id(pool.scope) for pool in self._recorder.pools()}
        return {
            helper
            for link in list(_executor._links)
            if id(link.scopes[0]) not in mine
            for helper in _helpers(link.backend)
        }


def _helpers(backend: Any) -> Iterator[Any]:
    """Return the threads and processes of a pool. Kinds keep them where they like."""
    for workers in ("_workers", "workers"):
        for worker in list(getattr(backend, workers, ())):
            yield getattr(worker, "thread", None)
            yield getattr(worker, "process", None)
    loop = getattr(backend, "loop", None)
    yield getattr(loop, "_thread", None)
    yield getattr(getattr(loop, "starter", None), "_thread", None)
    pool: Any = getattr(backend, "_pool", None)  # of the standard library's
    yield from list(getattr(pool, "_threads", ()) or ())
    processes: Any = getattr(pool, "_processes", None)
    yield from list(processes.values() if processes else ())
    yield getattr(pool, "_executor_manager_thread", None)


def _is_alive(process: BaseProcess) -> bool:
    """Whether a process has not ended. Takes its exit code from nobody who waits for it."""
    try:
        if process.pid is None or connection.wait([process.sentinel], 0):
            return False
        if hasattr(os, "waitid"):  # a descendant may hold the sentinel after its end
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, process.pid, options) is None
    except ChildProcessError:  # the fork server's child, or one that somebody has waited for
        return True
    except (ValueError, OSError):  # closed: whoever owned it has seen its end
        return False
    return True


@public
def no_pool_leaks(
    *,
    threads: bool = True,
    processes: bool = True,
    executors: bool = True,
    failures: bool = True,
    grace: float = 1.0,
) -> AbstractContextManager[None]:
    """Fail if the block leaves anything of a pool's behind; also a marker of the pytest plugin.

    While the block runs, a few functions of poolkit and of `threading` are wrapped, so that each
    leak names the line that made it. Blocks may be nested.

    Args:
        threads: Whether threads count.
        processes: Whether processes count, as far as `multiprocessing` knows of them.
        executors: Whether poolkit's executors count that nobody has shut down.
        failures: Whether tasks count that failed, while nobody asked for their outcome.
        grace: Seconds that threads and processes have, to end; they are only waited for while
            there are any.

    Returns:
        A context manager. If the block raises, its error gets a note of what was left behind.

    Raises:
        PoolLeakError: On leaving the block: something is left behind.
    """
    check = LeakCheck(
        threads=threads, processes=processes, executors=executors, failures=failures, grace=grace
    )
    return _checked(check)


@contextlib.contextmanager
def _checked(check: LeakCheck) -> Iterator[None]:
    check.start()
    try:
        try:
            yield
        except BaseException as error:
            if leaks := check.find():
                error.add_note(describe_leaks(leaks))
            raise
        if leaks := check.find():
            raise PoolLeakError(leaks)
    finally:
        check.stop()


KNOWN: Final = tuple(inspect.signature(LeakCheck).parameters)
"""The arguments, for messages."""
