"""The libraries that poolkit is compared with."""

from collections.abc import Iterable
from typing import Any, ClassVar

from _contender import METHOD, Contender, Task, context
from typing_extensions import override


class Pebble(Contender):
    """Pebble on processes."""

    module, limits, chunks = "pebble", True, True

    @override
    def make(self) -> Any:
        from pebble import ProcessPool

        return self.stack.enter_context(ProcessPool(self.workers, context=context()))

    @override
    def submit(self, fn: Task, /, *args: Any) -> Any:
        return self.pool.schedule(fn, args, timeout=self.limit)

    @override
    def map(self, fn: Task, items: Iterable[Any], **chunksize: int) -> Iterable[Any]:
        return self.pool.map(fn, items, **chunksize).result()


class PebbleThreads(Pebble):
    """Pebble on threads."""

    limits = False

    @override
    def make(self) -> Any:
        from pebble import ThreadPool

        return self.stack.enter_context(ThreadPool(self.workers))

    @override
    def submit(self, fn: Task, /, *args: Any) -> Any:
        return self.pool.schedule(fn, args)


class Loky(Contender):
    """Loky, on the start method of the others: it is slower on its own."""

    module, chunks = "loky", True

    @override
    def make(self) -> Any:
        import loky

        return self.stack.enter_context(loky.ProcessPoolExecutor(self.workers, context=context()))


class Joblib(Contender):
    """joblib on processes; it has its own start method."""

    module, submits = "joblib", False
    prefer: ClassVar[str] = "processes"

    @override
    def make(self) -> Any:
        return self.parallel()

    def parallel(self, **options: Any) -> Any:
        """Return what runs one list of calls; its workers live on."""
        from joblib import Parallel

        return self.stack.enter_context(Parallel(self.workers, prefer=self.prefer, **options))

    @override
    def one_each(self, fn: Task, items: Iterable[Any]) -> Iterable[Any]:
        from joblib import delayed

        run = self.parallel(batch_size=1, pre_dispatch="all")
        return run(delayed(fn)(item) for item in items)

    @override
    def map(self, fn: Task, items: Iterable[Any], **_: int) -> Iterable[Any]:
        from joblib import delayed

        return self.pool(delayed(fn)(item) for item in items)

    @override
    def stream(self, fn: Task, items: Iterable[Any], **_: int) -> Any:
        from joblib import delayed

        run = self.parallel(return_as="generator_unordered")
        return run(delayed(fn)(item) for item in items)


class JoblibThreads(Joblib):
    """joblib on threads."""

    prefer = "threads"


class Mpire(Contender):
    """mpire on processes. Its maps fail whole at the first time-out, so tasks go in one by one."""

    module, limits = "mpire", True
    remark = "imap_unordered"
    method: ClassVar[str] = METHOD

    @override
    def make(self) -> Any:
        from mpire import WorkerPool

        pool = WorkerPool(self.workers, start_method=self.method, keep_alive=True)
        return self.stack.enter_context(pool)

    @override
    def submit(self, fn: Task, /, *args: Any) -> Any:
        return self.pool.apply_async(fn, args, task_timeout=self.limit)

    @override
    def read(self, handle: Any) -> Any:
        return handle.get()

    @override
    def map(self, fn: Task, items: Iterable[Any], **_: int) -> Iterable[Any]:
        return self.pool.imap_unordered(fn, items)


class MpireThreads(Mpire):
    """mpire on threads."""

    method, limits = "threading", False


class Deadpool(Contender):
    """deadpool-executor."""

    module, limits = "deadpool", True

    @override
    def make(self) -> Any:
        from deadpool import Deadpool as Pool

        return self.stack.enter_context(Pool(self.workers, mp_context=METHOD))

    @override
    def submit(self, fn: Task, /, *args: Any) -> Any:
        return self.pool.submit(fn, *args, deadpool_timeout=self.limit)


class MoreExecutors(Contender):
    """more-executors on processes, with the retries that one takes it for."""

    module, limits = "more_executors", True
    remark = "with_retry"

    @override
    def make(self) -> Any:
        from more_executors import Executors

        return self.wrap(Executors.process_pool(self.workers, context()))

    def wrap(self, pool: Any) -> Any:
        """Add what was asked for."""
        pool = pool.with_retry()
        return self.stack.enter_context(pool.with_timeout(self.limit) if self.limit else pool)


class MoreExecutorsThreads(MoreExecutors):
    """more-executors on threads."""

    @override
    def make(self) -> Any:
        from more_executors import Executors

        return self.wrap(Executors.thread_pool(self.workers))


class Futurist(Contender):
    """Futurist on processes."""

    module, chunks = "futurist", True

    @override
    def make(self) -> Any:
        import futurist

        return self.stack.enter_context(futurist.ProcessPoolExecutor(self.workers, context()))


class FuturistThreads(Contender):
    """Futurist on threads."""

    module = "futurist"

    @override
    def make(self) -> Any:
        import futurist

        return self.stack.enter_context(futurist.ThreadPoolExecutor(self.workers))


class Streamable(Contender):
    """streamable over the standard library's processes."""

    module, submits = "streamable", False

    @override
    def make(self) -> Any:
        from concurrent.futures import ProcessPoolExecutor

        return self.stack.enter_context(ProcessPoolExecutor(self.workers, context()))

    @override
    def map(self, fn: Task, items: Iterable[Any], **_: int) -> Iterable[Any]:
        from streamable import stream

        return stream(items).map(fn, concurrency=self.pool, as_completed=True)


class StreamableThreads(Streamable):
    """streamable on its own threads."""

    @override
    def make(self) -> Any:
        return self.workers


class Dask(Contender):
    """dask.distributed on processes of this machine; it has its own start method."""

    module = "distributed"
    processes: ClassVar[bool] = True

    @override
    def make(self) -> Any:
        from distributed import Client, LocalCluster

        workers, threads = (self.workers, 1) if self.processes else (1, self.workers)
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            processes=self.processes,
            dashboard_address=None,
        )
        self.stack.enter_context(cluster)
        return self.stack.enter_context(Client(cluster))

    @override
    def submit(self, fn: Task, /, *args: Any) -> Any:
        return self.pool.submit(fn, *args, pure=False)

    @override
    def one_each(self, fn: Task, items: Iterable[Any]) -> Iterable[Any]:
        return self.pool.gather([self.submit(fn, item) for item in items])

    @override
    def map(self, fn: Task, items: Iterable[Any], **_: int) -> Iterable[Any]:
        return self.pool.gather(self.pool.map(fn, items, pure=False))


class DaskThreads(Dask):
    """dask.distributed on threads of this process."""

    processes = False
