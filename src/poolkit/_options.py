"""Options of tasks, and the sentinel for "as the pool has it"."""

import enum
from typing import Final, Literal

import attrs


class Inherit(enum.Enum):
    """Type of `INHERIT`; an enum, so that type checkers can tell it from a value."""

    INHERIT = "INHERIT"

    def __repr__(self) -> str:
        return "INHERIT"


INHERIT: Final = Inherit.INHERIT
"""Keep the option as the executor has it; ``None`` means "none"."""

Seconds = float | None | Inherit
WhenFull = Literal["block", "raise"]


@attrs.frozen
class TaskOptions:
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
