"""What one would write by hand to send large arrays to processes: the reference for `arrays`.

The parent copies an array into a block of shared memory and sends its name; the worker works on
the block itself, and a result goes back in the same block. The parent removes it.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple


class Handle(NamedTuple):
    """A task under way, and the block that its array is in."""

    future: "Future[Any]"
    block: SharedMemory


def submit(pool: Executor, fn: Callable[[Any], Any], array: Any) -> Handle:
    """Send an array of floats."""
    import numpy as np

    block = SharedMemory(create=True, size=array.nbytes)
    np.frombuffer(block.buf)[:] = array
    return Handle(pool.submit(run, fn, block.name), block)


def run(fn: Callable[[Any], Any], name: str) -> Any:
    """Call the function, in a worker, with the array; leave an array that it returns in place."""
    import numpy as np

    block = SharedMemory(name)
    values = np.frombuffer(block.buf)
    result = fn(values)
    if isinstance(result, np.ndarray):
        values[:] = result
        result = None
    del values
    block.close()
    return result


def read(handle: Handle) -> Any:
    """Return a number as it is, and an array as a copy of the block."""
    import numpy as np

    result = handle.future.result()
    if result is None:
        result = np.frombuffer(handle.block.buf).copy()
    handle.block.close()
    handle.block.unlink()
    return result
