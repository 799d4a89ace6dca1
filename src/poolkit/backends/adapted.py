"""Any ``concurrent.futures.Executor`` as a backend, our own process kind for now among them.

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

from .._backend import Backend, Batch, Capabilities, Record, Running
from .._cpu import available_cpus
from .._errors import PoolBrokenError, PoolShutdownError, TaskSerializationError
from ._run import Run, running_items, surrender
from ._serialization import dump_error, dump_result, dump_task, load_error, load_result

# How an item ended in another pool: index, value, error, start, duration, worker.
Ending = tuple[int, Any, Any, float, float, str]


def _run_shared(batch: Batch) -> None:
    """Run a batch in a thread of another pool."""
    Run(batch, threading.current_thread().name).execute()


def _run_items(
    fn: Callable[..., Any], kwargs: Mapping[str, Any], items: Sequence[tuple[int, tuple[Any, ...]]]
) -> list[Ending]:
    """Run a batch in another pool's worker, wherever that is."""
    worker = f"{os.getpid()}/{threading.current_thread().name}"
    endings: list[Ending] = []
    for index, args in items:
        value, error = None, None
        start = time.monotonic()
        try:
            value = fn(*args, **kwargs)
        except BaseException as caught:
            error = caught.with_traceback(caught.__traceback__ and caught.__traceback__.tb_next)
        endings.append((index, value, error, start, time.monotonic() - start, worker))
    return endings


def _run_packed(fn_and_kwargs: bytes, items: Sequence[tuple[int, bytes]]) -> list[Ending]:
    """Run a batch in a worker of a process pool: pickled pieces in, pickled pieces out."""
    endings: list[Ending] = []
    worker = f"process {os.getpid()}"
    for index, packed in items:
        start = time.monotonic()
        value, error = None, None
        try:
            fn, kwargs = pickle.loads(fn_and_kwargs)
            args = pickle.loads(packed)
            start = time.monotonic()
            result = fn(*args, **kwargs)
            duration = time.monotonic() - start
            value = dump_result(result)
        except BaseException as caught:
            duration = time.monotonic() - start
            error = dump_error(
                caught.with_traceback(caught.__traceback__ and caught.__traceback__.tb_next)
            )
        endings.append((index, value, error, start, duration, worker))
    return endings


def _unpack(ending: Ending) -> Record:
    index, value, error, start, duration, worker = ending
    if error is not None:
        return Record(index, None, load_error(error), start, duration, worker)
    try:
        return Record(index, load_result(value), None, start, duration, worker)
    except TaskSerializationError as failure:
        return Record(index, None, failure, start, duration, worker)


class AdaptedBackend(Backend):
    """Runs batches on an executor that somebody else wrote."""

    def __init__(self, name: str, pool: Executor, *, owned: bool) -> None:
        self.name = name
        self.max_workers = getattr(pool, "_max_workers", None) or available_cpus()
        self._pool = pool
        self._owned = owned
        self._shared = isinstance(pool, ThreadPoolExecutor)
        self._packed = isinstance(pool, ProcessPoolExecutor)
        self.capabilities = Capabilities(
            serializes=self._packed, deadlines="soft" if self._shared else "none"
        )
        # Changed by single, atomic operations.
        self._futures: dict[Batch, Future[Any]] = {}
        self._withdrawing: set[Batch] = set()

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

    def _send(self, batch: Batch) -> "Future[Any] | None":
        if self._shared:
            return self._pool.submit(_run_shared, batch)
        if not self._packed:
            items = [(index, batch.items[index]) for index in reversed(batch.todo)]
            return self._pool.submit(_run_items, batch.fn, batch.kwargs, items)
        try:
            call = dump_task("the task", (batch.fn, batch.kwargs))
        except TaskSerializationError as error:
            self._fail(batch, batch.claim_rest(), error)
            return None
        packed: list[tuple[int, bytes]] = []
        for index in list(reversed(batch.todo)):
            try:
                packed.append((index, dump_task("the task's arguments", batch.items[index])))
            except TaskSerializationError as error:
                batch.claim(index)
                self._fail(batch, [index], error)
        return self._pool.submit(_run_packed, call, packed) if packed else None

    def _ended(self, batch: Batch, future: "Future[Any]") -> None:
        """Report what the other pool's future brought; its callback, so it must not raise."""
        self._futures.pop(batch, None)
        if self._shared:
            # Only a pool that was shut down or is broken leaves anything; `stop` sends anew.
            if future.cancelled() or future.exception() is not None:
                self._fail(batch, batch.claim_rest(), _failure(future))
            return
        if future.cancelled() and batch in self._withdrawing:
            return
        indices = batch.claim_rest()
        if future.cancelled() or future.exception() is not None:
            self._fail(batch, indices, _failure(future))
            return
        endings: list[Ending] = future.result()
        unpack = _unpack if self._packed else Record._make
        batch.report([unpack(ending) for ending in endings])

    def _fail(self, batch: Batch, indices: Sequence[int], error: BaseException) -> None:
        if indices:
            batch.report([Record(index, None, error, 0.0, 0.0, "") for index in indices])

    def withdraw(self, batch: Batch, indices: Collection[int]) -> list[int]:
        if self._shared:
            return [index for index in indices if batch.claim(index)]
        # The other pool knows only the whole, and cancelling it calls `_ended`, which has to
        # leave the items to us.
        future = self._futures.get(batch)
        if future is None or not set(batch.todo) <= set(indices):
            return []
        self._withdrawing.add(batch)
        try:
            return batch.claim_rest() if future.cancel() else []
        finally:
            self._withdrawing.discard(batch)

    def stop(self, batch: Batch, index: int, error: BaseException) -> bool:
        if not self._shared or surrender(batch, index, error) is None:
            return False
        if batch.todo:  # the thread that hangs will not come back to these
            try:
                self._pool.submit(_run_shared, batch)
            except RuntimeError as refusal:
                self._fail(batch, batch.claim_rest(), refusal)
        return True

    def running(self) -> list[Running]:
        batches = list(self._futures)
        if self._shared:
            return running_items(batches)
        return [
            Running(batch, index, 0.0)
            for batch in batches
            if (future := self._futures.get(batch)) is not None and future.running()
            for index in list(batch.todo)
        ]

    def shutdown(self, wait: bool) -> None:
        if self._owned:
            self._pool.shutdown(wait=wait)


def _failure(future: "Future[Any]") -> BaseException:
    """Return why another pool's future failed, in our words where it has none."""
    if future.cancelled():
        return PoolShutdownError("the adapted executor")
    error = future.exception()
    assert error is not None
    if isinstance(error, pickle.PicklingError) and not isinstance(error, TaskSerializationError):
        return TaskSerializationError("the task", str(error), "Pass plain data instead")
    return error
