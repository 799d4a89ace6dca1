"""The hot paths whose instructions are counted, each in one thread, on a clock of its own.

A path is a function of how many operations to prepare. It returns what does them, and nothing
else: what is prepared, and what ran before to warm up, is in both of the counts of which the
difference is taken (see `instructions`).
"""

import gc
import itertools
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import poolkit
from poolkit._backend import Backend, Batch, Capabilities, Lone, Record, Successes, make_record
from poolkit._executor import PoolExecutor
from poolkit._options import TaskOptions
from poolkit.backends._quick_run import make_run
from poolkit.backends.inline import InlineBackend

from ..tasks import nothing
from .halves import BURST, TICK, ParentHalf, WorkerHalf, rehearse

CHUNK: Final = 256
"""Items of a chunk, where they are not for the window to find."""

Run = Callable[[], object]


class Path(NamedTuple):
    """A hot path, and how many operations are measured.

    Ten million instructions or more, so that nothing else shows; and whatever it calls is called
    so often in the course of them that the interpreter has specialised it when they are repeated.
    """

    prepare: Callable[[int], Run]
    operations: int


def stop_the_clock() -> None:
    """Have time pass by looks at the clock, and by nothing else.

    In all of this process: poolkit looks at ``time.monotonic`` where no clock is handed in.
    """
    time.monotonic = itertools.count(1000.0, TICK).__next__


class Noting(InlineBackend):
    """Runs nothing, and keeps what it was given."""

    capabilities = Capabilities()
    max_workers = 2

    def __init__(self) -> None:
        super().__init__("a pool that is counted", None, ())
        self.noted: list[Batch] = []

    def dispatch(self, batch: Batch) -> None:
        """Keep a batch."""
        self.noted.append(batch)


class Immediate(Noting):
    """Has the results of a batch as soon as it is given it, at no cost for each."""

    hosted = True  # lest a thread watch the inputs, which would be counted now and then

    def dispatch(self, batch: Batch) -> None:
        """Report a batch."""
        count = len(batch.todo)
        batch.todo.clear()
        start = self.clock.monotonic()
        times = [start] * count
        times.append(start + count * TICK)
        batch.report(Successes(0, [None] * count, times, "worker"))


class Heedless(Batch):
    """A batch that takes no notice of its results."""

    __slots__ = ()

    def report(self, records: Sequence[Record]) -> None:
        """Take no notice."""


def pool_on(backend: Backend) -> PoolExecutor:
    """Return a pool on a backend of ours."""
    return PoolExecutor("counted", backend, TaskOptions(), None, "block")


# -- the paths ------------------------------------------------------------------------------------


def submit(count: int) -> Run:
    """Submit tasks to a backend that only notes them."""
    pool = pool_on(Noting())

    def run() -> None:
        for number in range(count):
            pool.submit(nothing, number)

    return run


def resolve(count: int) -> Run:
    """Settle the futures of submitted tasks, and read their results."""
    backend = Noting()
    pool = pool_on(backend)
    futures = [pool.submit(nothing, number) for number in range(count)]

    def run() -> None:
        for batch, future in zip(backend.noted, futures, strict=True):
            batch.report((make_record((0, None, None, 1000.0, TICK, "worker")),))
            future.result()

    return run


def window(verb: Callable[..., Any], count: int, **options: Any) -> Run:
    """Map over items whose results are there at once."""
    pool = pool_on(Immediate())

    def run() -> None:
        for _ in verb(pool, nothing, iter(range(count)), **options):
            pass

    return run


def thread_task(count: int) -> Run:
    """Run batches of one as a thread does."""
    batches = [Heedless(nothing, [(number,)], {}, TaskOptions()) for number in range(count)]

    def run() -> None:
        for batch in batches:
            make_run(batch, "worker").execute()

    return run


def thread_chunks(count: int) -> Run:
    """Run chunks as a thread does."""
    batches = [
        Heedless(nothing, Lone(list(range(CHUNK))), {}, TaskOptions())
        for _ in range(count // CHUNK)
    ]

    def run() -> None:
        for batch in batches:
            make_run(batch, "worker").execute()

    return run


def parent(size: int, count: int) -> Run:
    """Send tasks to a worker process, and take in its results."""
    replies = [reply for _, reply in rehearse(size, count)]
    half = ParentHalf()

    def run() -> None:
        for reply in replies:
            half.send(size)
            half.take_in(reply)

    return run


def worker(size: int, count: int) -> Run:
    """Run tasks as a worker process does, and send their results."""
    requests = [request for request, _ in rehearse(size, count)]
    half = WorkerHalf()

    def run() -> None:
        for request in requests:
            half.answer(request)

    return run


PATHS: Final = {
    "submit": Path(submit, 1000),
    "resolve": Path(resolve, 1000),
    "window, map_ordered": Path(partial(window, poolkit.map_ordered), 2**14),
    "window, map_unordered": Path(partial(window, poolkit.map_unordered), 2**14),
    "window, map_outcomes": Path(partial(window, poolkit.map_outcomes), 500),
    "window, chunksize=1": Path(partial(window, poolkit.map_ordered, chunksize=1), 250),
    "task, thread": Path(thread_task, 1000),
    "task, parent of processes": Path(partial(parent, 1), 16 * BURST),
    "task, worker process": Path(partial(worker, 1), 16 * BURST),
    "chunk, thread": Path(thread_chunks, 16 * CHUNK),
    "chunk, parent of processes": Path(partial(parent, CHUNK), 16 * CHUNK),
    "chunk, worker process": Path(partial(worker, CHUNK), 16 * CHUNK),
}


# -- running them ---------------------------------------------------------------------------------


def run_copy(path: Path, *, measured: bool) -> int:
    """Prepare a path's operations in a copy of this process, and do them there or don't.

    Returns:
        The copy's process id.
    """
    child = os.fork()
    if not child:
        status = 1
        try:
            run = path.prepare(path.operations)
            if measured:
                run()
            if threading.active_count() == 1:
                status = 0
            else:
                print("there are threads, which can't be counted", file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("a copy of the process has failed, see above")
    return child


def main(names: Sequence[str]) -> None:
    """Run paths in pairs of copies of this process, which differ in nothing but the operations.

    Not even in an address. For each path, a line of output has the process ids of the copies
    without and with the operations, their number, and the path's name.
    """
    gc.disable()
    stop_the_clock()
    for name in names:
        path = PATHS[name]
        path.prepare(path.operations)()
        without, with_them = (run_copy(path, measured=measured) for measured in (False, True))
        print(without, with_them, path.operations, name, flush=True)
    os._exit(0)  # no pool is in a state to be shut down


if __name__ == "__main__":
    main(sys.argv[1:] or list(PATHS))
