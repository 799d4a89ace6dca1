"""Options of tasks."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ._retry import Retry


class TaskOptions(NamedTuple):
    """How each task of a batch is to be run.

    Attributes:
        task_timeout: Seconds that a task may run, from its start in the worker; None for no limit.
        priority: Smaller goes first, among work that no worker has.
        at_most_once: Whether no task may be run again because a neighbour in its chunk killed
            the worker that they shared.
        retry: Whether and how failed tasks are tried again.
    """

    task_timeout: float | None = None
    priority: int = 0
    at_most_once: bool = False
    retry: "Retry | None" = None


def check_retry(value: Any) -> "Retry | None":
    """Return the ``retry`` argument if it is one."""
    if value is None:
        return None
    from ._retry import Retry  # with attrs, which takes as long to load as a worker to start

    if isinstance(value, Retry):
        return value
    raise TypeError(f"retry must be a poolkit.Retry or None, not {value!r:.80}; try Retry()")
