"""The pools that are compared: how each is made, given tasks, and read, in one small class.

Each is used with its defaults, in the way that its documentation shows, on the same number of
workers. Only the start method of processes is set, to the same for every one that lets its user
choose. Libraries are imported where a pool is made: a sample loads nothing but what it measures.
"""

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import peers
from _contender import Contender, Task, context
from typing_extensions import override


class Poolkit(Contender):
    """poolkit on processes, its results as they come."""

    module, ours, limits = "poolkit", True, True
    kind = "process"

    @override
    def make(self) -> Any:
        import poolkit

        self.verb: Callable[..., Iterable[Any]] = poolkit.map_unordered
        pool = poolkit.make_executor(self.kind, self.workers, task_timeout=self.limit)
        return self.stack.enter_context(pool)

    @override
    def map(self, fn: Task, items: Iterable[Any], **chunksize: int) -> Iterable[Any]:
        return self.verb(self.pool, fn, items, **chunksize)


class PoolkitOrdered(Poolkit):
    """poolkit on processes, its results in the order of the input."""

    remark = "map_ordered"

    @override
    def make(self) -> Any:
        import poolkit

        pool = super().make()
        self.verb = poolkit.map_ordered
        return pool


class PoolkitThreads(Poolkit):
    """poolkit on threads."""

    kind = "thread"


class PoolkitThreadsOrdered(PoolkitOrdered):
    """poolkit on threads, its results in the order of the input."""

    kind = "thread"


class Stdlib(Contender):
    """concurrent.futures on processes."""

    chunks = True

    @override
    def make(self) -> Any:
        from concurrent.futures import ProcessPoolExecutor

        return self.stack.enter_context(ProcessPoolExecutor(self.workers, context()))


class StdlibThreads(Contender):
    """concurrent.futures on threads."""

    @override
    def make(self) -> Any:
        from concurrent.futures import ThreadPoolExecutor

        return self.stack.enter_context(ThreadPoolExecutor(self.workers))


class MpPool(Contender):
    """multiprocessing.Pool: its lazy map."""

    chunks = True
    remark = "imap_unordered"

    @override
    def make(self) -> Any:
        return self.stack.enter_context(context().Pool(self.workers))

    @override
    def submit(self, fn: Task, /, *args: Any) -> Any:
        return self.pool.apply_async(fn, args)

    @override
    def read(self, handle: Any) -> Any:
        return handle.get()

    @override
    def one_each(self, fn: Task, items: Iterable[Any]) -> Iterable[Any]:
        return list(self.pool.imap_unordered(fn, items, chunksize=1))

    @override
    def map(self, fn: Task, items: Iterable[Any], **chunksize: int) -> Iterable[Any]:
        return self.pool.imap_unordered(fn, items, **chunksize)


class MpPoolMap(MpPool):
    """multiprocessing.Pool: its eager map, which chooses chunks by the length of the input."""

    chunks = False
    remark = "map"

    @override
    def map(self, fn: Task, items: Iterable[Any], **_: int) -> Iterable[Any]:
        return self.pool.map(fn, items)


class MpThreadPool(MpPool):
    """multiprocessing.pool.ThreadPool."""

    remark = "imap"

    @override
    def make(self) -> Any:
        from multiprocessing.pool import ThreadPool

        return self.stack.enter_context(ThreadPool(self.workers))

    @override
    def map(self, fn: Task, items: Iterable[Any], **chunksize: int) -> Iterable[Any]:
        return self.pool.imap(fn, items, **chunksize)


class ByHand(Stdlib):
    """The standard library's processes, and arrays put into shared memory by hand."""

    reference, remark = True, "not a library"

    @override
    def submit(self, fn: Task, /, *args: Any) -> Any:
        import by_hand

        return by_hand.submit(self.pool, fn, *args)

    @override
    def read(self, handle: Any) -> Any:
        import by_hand

        return by_hand.read(handle)


PROCESSES: dict[str, type[Contender]] = {
    "stdlib": Stdlib,
    "poolkit": Poolkit,
    "poolkit, ordered": PoolkitOrdered,
    "mp.Pool": MpPool,
    "mp.Pool, eager": MpPoolMap,
    "Pebble": peers.Pebble,
    "loky": peers.Loky,
    "joblib": peers.Joblib,
    "mpire": peers.Mpire,
    "deadpool": peers.Deadpool,
    "more-executors": peers.MoreExecutors,
    "futurist": peers.Futurist,
    "streamable": peers.Streamable,
    "dask": peers.Dask,
    "shared memory by hand": ByHand,
}
THREADS: dict[str, type[Contender]] = {
    "stdlib": StdlibThreads,
    "poolkit": PoolkitThreads,
    "poolkit, ordered": PoolkitThreadsOrdered,
    "mp ThreadPool": MpThreadPool,
    "Pebble": peers.PebbleThreads,
    "joblib": peers.JoblibThreads,
    "mpire": peers.MpireThreads,
    "more-executors": peers.MoreExecutorsThreads,
    "futurist": peers.FuturistThreads,
    "streamable": peers.StreamableThreads,
    "dask": peers.DaskThreads,
}
MAPS_ONLY = {"poolkit, ordered", "mp.Pool, eager"}  # the same as others, but for their maps


def missing(name: str) -> str | None:
    """Return which module a contender needs and can't have; None if it can run."""
    module = find(name).module
    return module if module and importlib.util.find_spec(module) is None else None


def find(name: str) -> type[Contender]:
    """Return a contender of either kind."""
    return (PROCESSES | THREADS)[name]
