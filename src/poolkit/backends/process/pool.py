"""The ``"process"`` kind: poolkit's own pool of processes.

::

    dispatch (any thread): pack ──> pending ──> feed ──> a worker's books and its channel
    the loop's thread:     results, deaths, timers ──> records ──> batches

The promises, the messages and the reasons are in ``docs/explanation/process-pool.md``. This module
is what the face sees. Below it, `feeding`, `recalling` and `settling` decide who gets what, `loop`
waits and reads, `handle` knows one process, and `worker` is what runs there.
"""

import math
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.context import BaseContext
from typing import Any

from ..._backend import Backend, Batch, Capabilities, Running, Statistics
from ..._errors import TaskSerializationError
from .endings import Ending
from .feeding import QUICK, TOGETHER
from .handle import State, Worker
from .parcel import Packer
from .settling import Settling


class ProcessBackend(Settling, Backend):
    """A pool of processes; see the module for its parts."""

    capabilities = Capabilities(priorities=True, serializes=True, deadlines="hard", stops="killed")

    def __init__(
        self,
        name: str,
        max_workers: int,
        context: BaseContext,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        *,
        packer: Packer,
        max_tasks_per_child: int | None,
        max_worker_memory: int | None,
        kill_grace: float,
    ) -> None:
        start = partial(
            Worker.start,
            context=context,
            initializer=initializer,
            initargs=initargs,
            most_memory=max_worker_memory,
        )
        quota = max_tasks_per_child or math.inf
        super().__init__(name, max_workers, quota, kill_grace, start, packer.store)
        self._packer = packer
        self._withdrawn = 0  # batches, roughly, since the queue was swept

    def dispatch(self, batch: Batch) -> None:
        broken = self.broken
        if broken is not None:
            raise self.error()
        if not self._pack(batch):
            return
        # Now, as it may have been run and forgotten before we look again.
        quick = len(batch.items) == 1 and batch.parcel.function.mean < QUICK
        if batch.options.priority:
            with self.lock:
                self.pending.push(batch)
        else:
            self.pending.plain.append(batch)
        limit = batch.options.task_timeout
        if limit is not None and limit < self.least_limit:
            with self.lock:
                self.least_limit = min(limit, self.least_limit)
        if not self.loop.runs:
            self.loop.start()
        if self.room and (self.idle or not quick or len(self.pending.plain) >= TOGETHER):
            try:
                if self.is_under_way():
                    self.loop.wake()
                else:
                    with self.lock:
                        self.feed()
            except BaseException:  # an interrupt: whatever it has left undone, the loop does
                self.loop.mend()
                raise
        if limit is not None:
            self.loop.look_within(limit)
        broken = self.broken
        if broken is not None:  # since we looked; `break_down` may have missed this batch
            self.fail(batch, batch.claim_rest())
            self.loop.wake()

    def _pack(self, batch: Batch) -> bool:
        """Pack a batch; report what can't be sent, and say whether anything is left."""
        packed = batch.origin.parcel
        if packed is not None:  # another attempt, at what was pickled when it was submitted
            batch.parcel = packed.part(batch.item, batch.attempt)
            return bool(batch.todo)
        try:
            batch.parcel, refused = self._packer.pack(batch)
        except TaskSerializationError as error:
            batch.report_failed(batch.claim_rest(), error)
            return False
        if refused:
            for number, refusal in refused.items():
                if batch.claim(number):
                    batch.report_failed([number], refusal)
        if batch.parcel.large or batch.parcel.shipment is not None:
            batch.weigh(batch.parcel.weight)
        return bool(batch.todo)

    def withdraw(self, batch: Batch) -> list[int]:
        if self.is_under_way():  # what workers were sent runs, as if it had started
            return batch.claim_rest()
        with self.lock:
            numbers = batch.claim_rest()
            self._withdrawn += 1
            if self._withdrawn > max(256, len(self.pending) // 2):
                self._withdrawn = 0
                self.pending.sweep()
            if len(numbers) < len(batch.items):
                for worker in self.workers:
                    if worker.books:
                        mine = [s for a, s in worker.books.live() if a.batch is batch]
                        numbers += [number for _, number in self.take_back(worker, mine)]
            return numbers

    def stop(self, batch: Batch, number: int, error: BaseException) -> bool:
        # The main thread may be interrupted anywhere; so it leaves that to the loop.
        if threading.current_thread() is threading.main_thread():
            return self.loop.call(partial(self._stop, batch, number, error))
        with self.lock:
            stopped = self._stop(batch, number, error)
        self.loop.wake()
        return stopped

    def _stop(self, batch: Batch, number: int, error: BaseException) -> bool:
        for worker in self.workers:
            serial = worker.books.serial_of(batch, number)
            if serial is not None:
                start = worker.board.start
                if not self.condemn(worker, serial):
                    return False
                spent = time.monotonic() - start
                self.endings.append(Ending(batch, number, lambda: error, start, spent, worker.name))
                return True
        return False

    def running(self) -> list[Running]:
        found: list[Running] = []
        with self.lock:
            for worker in self.workers:
                serial = worker.board.serial if worker.books else 0
                assignment = worker.books.find(serial)
                if assignment is not None:
                    number = assignment.numbers[serial - assignment.first]
                    found.append(Running(assignment.batch, number, worker.board.start))
        return found

    def statistics(self) -> Statistics:
        running = len(self.running())
        with self.lock:
            present = [w for w in self.workers if w.state is State.READY]
            return Statistics(
                workers=len(present),
                idle=sum(not worker.books for worker in present),
                running=running,
                pending=sum(
                    sum(1 for _ in worker.books.live(worker.board.serial))
                    for worker in self.workers
                ),
            )

    def end_workers(self, number: int) -> None:
        """Send a signal to all workers; what runs fails as they die. After `shutdown`."""
        with self.lock:
            for worker in self.workers:
                worker.signal(number)
                worker.kill_at = time.monotonic() + self.kill_grace
        self.loop.mend()

    def shutdown(self, wait: bool) -> None:
        with self.lock:
            self.closing = True
        self.loop.wake()
        if wait:
            self.loop.join()

    def abandon(self) -> None:
        """In a forked child: close what was inherited. Takes no lock: its holder is not here."""
        self.closing = True
        self.lock = threading.RLock()
        workers, self.workers = self.workers, []
        for worker in workers:
            worker.abandon()
        self.pending.clear()
        if self.store is not None:
            self.store.abandon(self.lock)
        self.loop.abandon(self.lock)
