"""Any ``concurrent.futures.Executor`` as a backend.

A batch becomes one task of the other pool, which calls the items one after the other. How it
travels depends on the pool:

* A thread pool shares our memory, so that each item is claimed, timed and given up by itself.
* A process pool of the standard library gets each item pickled by itself, and sends each result
  back so: one that can't travel fails alone.
* Any other pool gets the objects as they are, and does with them what it does.

The batch's items stay unclaimed (`Batch.todo`) until the other pool's future is done, except on
threads. Whatever is then still unclaimed ends as that future did.
"""

import os
import pickle
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from typing import Any

from .._backend import Backend, Batch, Capabilities, Record, Running, Statistics
from .._cpu import available_cpus
from .._errors import PoolBrokenError, PoolShutdownError, TaskSerializationError
from .._task import Run, threads
from ._call import RemoteCall
from ._packing import unpack
from ._quick_run import make_run
from ._remote_worker import call_one
from ._run import MAX_NESTED, running_items, surrender
from ._serialization import dump_task
from ._tracebacks import without_our_frame

# How an item ended in another pool: number, value, error, start, duration, worker.
Ending = tuple[int, Any, Any, float, float, str]


class _BorrowedThread:
    """A thread of another pool, as the `Slot` of the tasks that we run in it."""

    def __init__(self, backend: "AdaptedBackend") -> None:
        self.backend = backend
        self._depth = 0

    def run_here(self, batch: Batch) -> None:
        if self._depth < MAX_NESTED:
            self._depth += 1
            make_run(batch, threading.current_thread().name).execute()
            self._depth -= 1

    def lend(self, awaited: Collection[Batch]) -> bool:
        """Run what is awaited in a thread of our own: the other pool knows no spare workers."""
        if not awaited:
            return False
        backend = self.backend
        with backend.lock:
            backend.waiting += 1  # from now on, what is dispatched gets a thread of our own
        parts = [part for batch in awaited for part in batch.unfinished_parts]
        waiting = [part for part in parts if part.todo and part.is_due]
        if waiting:
            backend.run_apart(*waiting)
        return True

    def reclaim(self) -> None:
        with self.backend.lock:
            self.backend.waiting -= 1


def _run_shared(backend: "AdaptedBackend", *batches: Batch) -> None:
    """Run batches in a thread of another pool, or in a spare one."""
    outer, threads.slot = threads.slot, _BorrowedThread(backend)
    try:
        for batch in batches:
            backend.live.append(batch)
            try:
                if not make_run(batch, threading.current_thread().name).execute():
                    break
            finally:
                backend.live.remove(batch)
    finally:
        threads.slot = outer


def _run_items(
    fn: Callable[..., Any], kwargs: Mapping[str, Any], items: Sequence[tuple[int, tuple[Any, ...]]]
) -> list[Ending]:
    """Run a batch in another pool's worker, wherever that is."""
    worker = f"{os.getpid()}/{threading.current_thread().name}"
    endings: list[Ending] = []
    for number, args in items:
        value, error = None, None
        start = time.monotonic()
        try:
            value = fn(*args, **kwargs)
        except BaseException as caught:
            error = without_our_frame(caught)
        endings.append((number, value, error, start, time.monotonic() - start, worker))
    return endings


def _run_packed(call: bytes, items: Sequence[tuple[int, bytes]]) -> list[Ending]:
    """Run a batch in a worker of a process pool: pickled pieces in, pickled pieces out."""
    worker = f"process {os.getpid()}"
    run = Run(RemoteCall(None, 1))
    return [(*call_one(call, number, packed, run), worker) for number, packed in items]


class AdaptedBackend(Backend):
    """Runs batches on an executor that somebody else wrote."""

    def __init__(self, name: str, pool: Executor, *, owned: bool) -> None:
        self.name = name
        self.max_workers = _workers_of(pool)
        self._pool = pool
        self.owned = owned
        self._shared = isinstance(pool, ThreadPoolExecutor)
        self._packed = isinstance(pool, ProcessPoolExecutor)
        self.capabilities = Capabilities(
            serializes=self._packed,
            deadlines="soft" if self._shared else "none",
            stops="abandoned" if self._shared else None,
        )
        # Changed by single, atomic operations.
        self.live: list[Batch] = []
        """What runs in threads of this process."""
        self._futures: dict[Batch, Future[Any]] = {}
        self._withdrawing: set[Batch] = set()
        self.lock = threading.Lock()  # guards `waiting`
        self.waiting = 0
        """Threads of the other pool that wait in tasks for tasks of this one."""

    def dispatch(self, batch: Batch) -> None:
        try:
            future = self._send(batch)
        except BrokenExecutor as error:
            raise PoolBrokenError(self.name, str(error)) from error
        except RuntimeError as error:
            if "shutdown" in str(error) or "shut down" in str(error):
                raise PoolShutdownError(self.name) from error
            raise
        if future is not None:
            self._futures[batch] = future
            future.add_done_callback(lambda future: self._ended(batch, future))

    def run_apart(self, *batches: Batch) -> None:
        """Run batches in a thread of our own."""
        threading.Thread(
            target=_run_shared, args=(self, *batches), name="poolkit-spare", daemon=True
        ).start()

    def _send(self, batch: Batch) -> "Future[Any] | None":
        if self._shared:
            if self.waiting:  # perhaps for this, and nobody else there may be free
                self.run_apart(batch)
                return None
            return self._pool.submit(_run_shared, self, batch)
        if not self._packed:
            items = [(number, batch.items[number]) for number in reversed(batch.todo)]
            return self._pool.submit(_run_items, batch.fn, batch.kwargs, items)
        try:
            call = dump_task("the task", (batch.fn, batch.kwargs))
        except TaskSerializationError as error:
            batch.report_failed(batch.claim_rest(), error)
            return None
        packed: list[tuple[int, bytes]] = []
        for number in list(reversed(batch.todo)):
            try:
                packed.append((number, dump_task("the task's arguments", batch.items[number])))
            except TaskSerializationError as error:
                batch.claim(number)
                batch.report_failed([number], error)
        return self._pool.submit(_run_packed, call, packed) if packed else None

    def _ended(self, batch: Batch, future: "Future[Any]") -> None:
        """Report what the other pool's future brought; its callback, so it must not raise."""
        self._futures.pop(batch, None)
        if self._shared:
            # Only a pool that was shut down or is broken leaves anything; `stop` sends anew.
            if future.cancelled() or future.exception() is not None:
                batch.report_failed(batch.claim_rest(), _failure(future))
            return
        if future.cancelled() and batch in self._withdrawing:
            return
        numbers = batch.claim_rest()
        if future.cancelled() or future.exception() is not None:
            batch.report_failed(numbers, _failure(future))
            return
        endings: list[Ending] = future.result()
        if not endings:  # it was taken back before it was sent
            return
        if self._packed:
            batch.report([unpack(ending[:5], ending[5]) for ending in endings])
        else:
            batch.report([Record._make(ending) for ending in endings])

    def withdraw(self, batch: Batch) -> list[int]:
        if self._shared:
            return batch.claim_rest()
        # The other pool knows only the whole, and cancelling it calls `_ended`, which has to
        # leave the items to us.
        future = self._futures.get(batch)
        if future is None:
            return []
        self._withdrawing.add(batch)
        try:
            return batch.claim_rest() if future.cancel() else []
        finally:
            self._withdrawing.discard(batch)

    def stop(self, batch: Batch, number: int, error: BaseException) -> bool:
        surrendered = surrender(batch, number, error) if self._shared else None
        if surrendered is None:
            return False
        batch.report(surrendered[1])
        if batch.todo:  # the thread that hangs will not come back to these
            try:
                self._pool.submit(_run_shared, self, batch)
            except RuntimeError as refusal:
                batch.report_failed(batch.claim_rest(), refusal)
        return True

    def running(self) -> list[Running]:
        if self._shared:
            return running_items(list(dict.fromkeys(self.live)))
        batches = list(self._futures)
        return [
            Running(batch, number, 0.0)
            for batch in batches
            if (future := self._futures.get(batch)) is not None and future.running()
            for number in list(batch.todo)
        ]

    def statistics(self) -> Statistics:
        return Statistics(workers=self.max_workers, running=len(self.running()))

    def shutdown(self, wait: bool) -> None:
        if self.owned:
            self._pool.shutdown(wait=wait)


def _workers_of(pool: Executor) -> int:
    """Return how many workers another pool has, if it says so in the usual ways."""
    for name in ("_max_workers", "max_workers"):
        count = getattr(pool, name, None)
        if isinstance(count, int) and count > 0:
            return count
    return available_cpus()


def _failure(future: "Future[Any]") -> BaseException:
    """Return why another pool's future failed, in our words where it has none."""
    if future.cancelled():
        return PoolShutdownError("the adapted executor")
    error = future.exception()
    assert error is not None
    if isinstance(error, pickle.PicklingError) and not isinstance(error, TaskSerializationError):
        return TaskSerializationError("the task", str(error), "Pass plain data instead")
    return error
