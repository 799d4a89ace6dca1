"""Options of tasks."""

from typing import NamedTuple


class TaskOptions(NamedTuple):
    """How each task of a batch is to be run.

    Attributes:
        task_timeout: Seconds that a task may run, from its start in the worker; None for no limit.
        priority: Smaller goes first, among work that no worker has.
        at_most_once: Whether no task may be run again because a neighbour in its chunk killed
            the worker that they shared.
    """

    task_timeout: float | None = None
    priority: int = 0
    at_most_once: bool = False
