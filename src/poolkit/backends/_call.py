"""`RemoteCall`: a task's options where its batch is not: in a worker of another process."""

from typing import Any

from .._describe import describe_call
from .._errors import TaskAbortedError, TaskCancelled, TaskTimeoutError
from .._task import Run


class RemoteCall:
    """Stands for a batch and its options, for `current_task`.

    Args:
        limit: The ``task_timeout``, in seconds.
        attempt: Which attempt this is.
    """

    def __init__(self, limit: float | None, attempt: int) -> None:
        self.task_timeout = limit
        self.attempt = attempt
        self.unwanted = False

    @property
    def options(self) -> "RemoteCall":
        return self

    @property
    def origin(self) -> "RemoteCall":
        return self


def judge(
    error: BaseException, run: Run, duration: float, function: Any, args: tuple[Any, ...]
) -> BaseException:
    """Return what a task's error means: one that stopped when asked to was late, or aborted."""
    if not isinstance(error, TaskCancelled):
        return error
    text, limit = describe_call(function, args), run.batch.options.task_timeout
    if limit is not None and duration >= limit:
        return TaskTimeoutError(text, limit)
    return TaskAbortedError(text) if run.stopping else error
