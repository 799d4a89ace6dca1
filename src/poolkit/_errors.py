"""The one tree of errors that poolkit itself raises.

Each class is also its standard-library cousin, so that code written for ``concurrent.futures``
catches it unchanged. The message is built from the attributes, which are kept; every error
survives pickling with both.
"""

import pickle
import queue
import signal
from concurrent.futures import BrokenExecutor
from typing import Any

from ._public import public


def _restore(
    cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> BaseException:
    """Rebuild a pickled error without running ``__init__``, which takes other arguments."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


@public
class PoolkitError(Exception):
    """Base of all errors that poolkit raises on its own account."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


@public
class TaskCancelled(BaseException):
    """Raised in a task by `CurrentTask.check`, once nobody wants its result any more.

    A `BaseException`, so that an ``except Exception`` in the task's own code lets it through.
    """


@public
class TaskTimeoutError(PoolkitError, TimeoutError):
    """A task ran longer than its ``task_timeout``.

    A limit on *waiting* (``future.result(timeout)``) raises the plain `TimeoutError` instead.

    Attributes:
        task: The call, shortened, for people.
        limit_s: The limit, in seconds, counted from the start of the run in the worker.
    """

    def __init__(self, task: str, limit_s: float) -> None:
        self.task = task
        self.limit_s = limit_s
        super().__init__(f"{task} ran longer than its task_timeout of {limit_s:g} s")


@public
class TaskAbortedError(PoolkitError):
    """A running task was given up by `TaskFuture.abort`."""

    def __init__(self, task: str) -> None:
        self.task = task
        super().__init__(f"{task} was aborted")


@public
class DeadlockError(PoolkitError, RuntimeError):
    """A task was about to wait for tasks that, in the end, wait for it.

    Attributes:
        tasks: The calls of the cycle, shortened; each waits for the next, the last for the first.
    """

    def __init__(self, tasks: list[str]) -> None:
        self.tasks = tasks
        chain = " -> ".join([*tasks, tasks[0]])
        super().__init__(f"these tasks wait for each other, without a time limit: {chain}")


@public
class PoolShutdownError(PoolkitError, RuntimeError):
    """Work was given to a pool, or to a view of one, that has been shut down."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        super().__init__(
            f"{pool} has been shut down and takes no new tasks; "
            "submit before its 'with' block ends, or make another executor"
        )


@public
class WorkerCrashedError(PoolkitError, BrokenExecutor):
    """The worker process that ran a task ended before the task did; the pool lives on.

    Attributes:
        task: The call, shortened, for people.
        pid: The process that has ended, on its machine; None if a cluster did not say.
        exit_code: As ``multiprocessing.Process.exitcode``: minus the signal's number if a signal
            killed it; None if nobody could tell.
        worker: Where else to look for it, in a cluster; None on this machine.
    """

    def __init__(
        self, task: str, pid: int | None, exit_code: int | None, worker: str | None = None
    ) -> None:
        self.task = task
        self.pid = pid
        self.exit_code = exit_code
        self.worker = worker
        if exit_code is None:
            how = "ended, nobody knows how"
        elif self.signal_name is not None:
            how = f"was killed by {self.signal_name}"
        else:
            how = f"exited with code {exit_code}"
        who = worker or ("of unknown name" if pid is None else f"process {pid}")
        super().__init__(f"{task} did not finish: its worker ({who}) {how}")

    @property
    def signal_name(self) -> str | None:
        """Name of the signal that killed the process, such as ``"SIGKILL"``; None if none did."""
        if self.exit_code is None or self.exit_code >= 0:
            return None
        try:
            return signal.Signals(-self.exit_code).name
        except ValueError:
            return f"signal {-self.exit_code}"


@public
class PoolBrokenError(PoolkitError, BrokenExecutor):
    """The pool can run nothing more; ``reason`` says why, and ``__cause__`` holds any cause."""

    def __init__(self, pool: str, reason: str) -> None:
        self.pool = pool
        self.reason = reason
        super().__init__(f"{pool} is broken: {reason}")


@public
class TaskSerializationError(PoolkitError, pickle.PicklingError):
    """A function, an argument or a result can't travel to or from another process."""

    def __init__(self, what: str, reason: str, remedy: str) -> None:
        self.what = what
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{what} can't be sent between processes: {reason}. {remedy}")


@public
class RemoteTaskError(PoolkitError):
    """Stands for a task's error that could not travel back to the caller.

    Attributes:
        type_name: Qualified name of the original error's class.
        message: What ``str()`` gave for it.
        traceback: Its formatted traceback, as text.
    """

    def __init__(self, type_name: str, message: str, traceback: str) -> None:
        self.type_name = type_name
        self.message = message
        self.traceback = traceback
        super().__init__(f"{type_name}: {message}")


@public
class QueueFullError(PoolkitError, queue.Full):
    """``max_pending`` tasks are unresolved and the executor was made with ``when_full="raise"``."""

    def __init__(self, pool: str, max_pending: int) -> None:
        self.pool = pool
        self.max_pending = max_pending
        super().__init__(
            f"{pool} already holds max_pending={max_pending} unresolved tasks; "
            "retry later, or use when_full='block'"
        )


@public
class UnsupportedError(PoolkitError, NotImplementedError):
    """A kind of executor can't honour what was asked of it."""

    def __init__(self, kind: str, what: str, instead: str) -> None:
        self.kind = kind
        self.what = what
        self.instead = instead
        super().__init__(f"the {kind!r} kind does not support {what}; {instead}")
