"""The task that runs in this thread, and the worker that runs it.

Everything that needs to know "am I inside a task, and of which pool?" asks here.
"""

import threading
from typing import Any, Protocol


class Slot(Protocol):
    """A worker, as seen by code that runs in its thread."""

    @property
    def backend(self) -> Any:
        """The pool that the worker belongs to."""
        ...

    def run_here(self, batch: Any) -> None:
        """Run what is left of `batch` on the current thread's stack, inside the current task."""
        ...


class ThreadState(threading.local):
    """What the current thread is busy with; both None outside of workers and tasks."""

    slot: Slot | None = None
    batch: Any = None
    """The batch of the innermost task."""


threads = ThreadState()
