"""What executors for tests raise on their own account."""

from .._errors import PoolkitError, TaskCancelled
from .._public import public_in_testing as public


@public
class WouldBlockError(PoolkitError, RuntimeError):
    """A wait would never end: nothing runs what is waited for.

    Attributes:
        tasks: The calls that are waited for, shortened, for people.
        remedy: What to do about it.
    """

    def __init__(self, tasks: list[str], remedy: str) -> None:
        self.tasks = tasks
        self.remedy = remedy
        shown = ", ".join(tasks[:5]) + (f" and {len(tasks) - 5} more" if len(tasks) > 5 else "")
        super().__init__(f"waiting for {shown or 'something'} would never end. {remedy}")


class Ended(TaskCancelled):
    """Raised in what is left of a task when its simulation ends."""
