"""What every pool that is compared looks like to the rows."""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

Task = Callable[..., Any]
WORKERS = 2
METHOD = "forkserver"  # how processes are started, for every pool that lets one choose


class Contender:
    """A pool, open from its making to `close`.

    Args:
        limit: Seconds that a task may run; None for no limit. Only for those that have `limits`.
        workers: How many tasks run at once.
    """

    module: ClassVar[str] = ""  # what has to be installed
    ours: ClassVar[bool] = False  # measured against the bars
    reference: ClassVar[bool] = False  # not a library: what could be had by hand
    limits: ClassVar[bool] = False  # knows a limit on a task's run
    submits: ClassVar[bool] = True  # takes single tasks, and gives a handle for each
    chunks: ClassVar[bool] = False  # its map has to be told a chunk size
    remark: ClassVar[str] = ""  # what is used, where it isn't obvious

    def __init__(self, limit: float | None = None, workers: int = WORKERS) -> None:
        self.limit = limit
        self.workers = workers
        self.stack = contextlib.ExitStack()
        self.pool: Any = self.make()

    def make(self) -> Any:
        """Make the pool; put what ends it on the stack."""
        raise NotImplementedError

    def submit(self, fn: Task, /, *args: Any) -> Any:
        """Give one task to the pool; return its handle."""
        return self.pool.submit(fn, *args)

    def read(self, handle: Any) -> Any:
        """Wait for a task's result."""
        return handle.result()

    def one_each(self, fn: Task, items: Iterable[Any]) -> Iterable[Any]:
        """Run a task per item, each sent alone, in the fastest way that the pool has for it."""
        handles = [self.submit(fn, item) for item in items]
        return [self.read(handle) for handle in handles]

    def map(self, fn: Task, items: Iterable[Any], **chunksize: int) -> Iterable[Any]:
        """Run the function over all items; return the results in whatever order comes first."""
        return self.pool.map(fn, items, **chunksize)

    def stream(self, fn: Task, items: Iterable[Any], **chunksize: int) -> Any:
        """Map lazily over a long input, if the pool has a way for that."""
        return self.map(fn, items, **chunksize)

    def close(self) -> None:
        """End the pool."""
        self.stack.close()


def context() -> Any:
    """Return multiprocessing with the start method of this comparison."""
    return multiprocessing.get_context(METHOD)
