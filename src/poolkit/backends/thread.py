"""The ``"thread"`` kind: our own pool of daemon threads.

::

    dispatch ──> pending ──┐
                           ├── _staff(): a batch and a slot ──> an idle worker, else a new one
    a finished worker's slot ┘

A *slot* is the permission to run one task; there are ``max_workers``. Whoever adds a batch or
frees a slot calls `_staff`, which hands batches to workers while there are both; a worker that
ends its batch takes the next one itself, without a change of threads.

Invariants:

* ``_active`` counts the workers that hold a slot, which are those with a batch in hand, and no
  batch is handed out while ``_active >= max_workers``.
* Idle workers are chosen last in, first out: the warm one works, the others stay asleep.
* A thread can't be killed. `stop` abandons the worker: it loses its slot at once, so that the
  pool goes on with a new one, and its thread ends when the hung call returns, if ever. All
  threads are daemons, so that a hung one can't block the interpreter's exit.
* A worker whose task waits for others of the pool lends its slot (`lend`), for which the awaited
  batches go to the front, and takes it back without queuing (`reclaim`). Then more than
  ``max_workers`` may be active; nothing starts until enough of them have ended.
* ``pending`` is empty or all slots are taken, once everybody has done what they are at. Adding
  to the queue and taking from it need no lock, only changes of ``_active`` do. Who adds looks
  for a free slot afterwards; who frees a slot looks at the queue afterwards. One of them sees.
* No user code runs, and no thread is started or joined, under the lock.
"""

import itertools
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, cast

from .._backend import Backend, Batch, Capabilities, Running, Statistics
from .._errors import PoolBrokenError
from .._task import threads
from ._pending import PendingQueue, pop_runnable
from ._quick_run import make_run
from ._run import MAX_NESTED, LocalRun, running_items, surrender

DEFAULT_MAX_ABANDONED = 64

# Where in the standard library a thread is while it waits for something we can't see.
_WAITING_PLACES = ("threading.py", "queue.py", "_base.py", "selectors.py", "connection.py")


def _nothing() -> None:
    """Do what a thread does in the end, if nobody wants anything."""


def count_blocked(workers: Iterable[threading.Thread]) -> int:
    """Count threads that wait inside one of the standard library's waiting functions."""
    frames = sys._current_frames()
    innermost = [frames[w.ident] for w in workers if w.ident in frames]
    return sum(frame.f_code.co_filename.endswith(_WAITING_PLACES) for frame in innermost)


class _Worker:
    """A thread that runs batches, one after the other; a `Slot` for the tasks in them."""

    def __init__(self, backend: "ThreadBackend", name: str) -> None:
        self.backend = backend
        self.name = name
        self.batches: list[Batch] = []
        """What it runs, one on top of the other; also read by threads that look what runs."""
        self.lost = False
        """It was abandoned; set by its own thread, when it finds out."""
        self.waiting = False
        """It has lent its slot. Guarded by the backend's lock."""
        self.thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._wake = threading.Lock()
        self._wake.acquire()

    def begin(self, batch: Batch | None) -> None:
        """Start the thread or end its sleep; None tells it to end."""
        if batch is not None:
            self.batches.append(batch)
        if self.thread.ident is None:
            self.thread.start()
        else:
            self._wake.release()

    def _main(self) -> None:
        threads.slot = self
        if self.backend.initialize():
            while self.batches:
                self._run_last()
                if self.lost:
                    break
                if not self.backend.next_batch(self):
                    self._wake.acquire()
        else:
            self.backend.fail(self.batches)
        self.batches.clear()
        self.backend.leave()
        self.backend.ended(self)

    def _run_last(self) -> None:
        try:
            if not self.backend.make_run(self.batches[-1], self.name, self).execute():
                self.lost = True
        finally:
            self.batches.pop()  # keep nothing alive while asleep

    def run_here(self, batch: Batch) -> None:
        if len(self.batches) <= MAX_NESTED:
            self.batches.append(batch)
            self._run_last()

    def lend(self, awaited: Collection[Batch]) -> bool:
        return bool(awaited) and self.backend.lend(self, awaited)

    def reclaim(self) -> None:
        self.backend.reclaim(self)


class ThreadBackend(Backend):
    """A pool of threads; see the module for its rules.

    Another kind whose workers are threads brings ``make_run``, which makes what runs a batch, and
    ``leave``, which each thread calls in the end.
    """

    capabilities = Capabilities(priorities=True, deadlines="soft", stops="abandoned")

    def __init__(
        self,
        name: str,
        max_workers: int,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        thread_name_prefix: str = "",
        max_abandoned: int = DEFAULT_MAX_ABANDONED,
        make_run: Callable[[Batch, str, object], LocalRun] = make_run,
        leave: Callable[[], object] = _nothing,
    ) -> None:
        self.make_run = make_run
        self.leave = leave
        self.name = name
        self.max_workers = max_workers
        self._initializer = initializer
        self._initargs = initargs
        self._prefix = thread_name_prefix or name
        self._numbers = itertools.count()
        self._max_abandoned = max_abandoned
        self._withdrawn = 0  # roughly, since the queue was swept
        # Guards all fields below, but for `PendingQueue.plain`. Re-entrant, as the collector may
        # strike while it is held, and what it finalizes may shut this pool down.
        self._lock = threading.RLock()
        self._pending = PendingQueue()
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()  # all but the abandoned ones
        self._active = 0
        self._abandoned = 0
        self._closing = False
        self._broken: PoolBrokenError | None = None

    def dispatch(self, batch: Batch) -> None:
        broken = self._broken
        if broken is not None:
            raise self._error(broken.reason, broken.__cause__)
        if batch.options.priority:
            with self._lock:
                self._pending.push(batch)
        else:
            self._pending.plain.append(batch)
        # A worker that gives its slot back looks at the queue after that, so whoever comes
        # second of it and us sees the other: see the last invariant.
        if self._active < self.max_workers:
            with self._lock:
                ready = self._staff()
            self._begin(ready)
        error = self._broken
        if error is not None:  # since we looked; `_break` may have missed this batch
            self._fail(batch, error)

    def _staff(self) -> list[tuple[_Worker, Batch]]:
        """Match pending batches with free slots. Call with the lock held, then `_begin`."""
        ready: list[tuple[_Worker, Batch]] = []
        while self._active < self.max_workers and (batch := self._pending.pop()) is not None:
            if self._idle:
                worker = self._idle.pop()
            else:
                worker = _Worker(self, f"{self._prefix}_{next(self._numbers)}")
                self._workers.add(worker)
            self._active += 1
            ready.append((worker, batch))
        return ready

    def _begin(self, ready: Collection[tuple[_Worker, Batch]]) -> None:
        """Set workers to work; without the lock."""
        for worker, batch in ready:
            try:
                worker.begin(batch)
            except RuntimeError as error:  # the system gives no more threads
                with self._lock:
                    self._active -= 1
                    self._workers.discard(worker)
                    if self._active > 0:  # whoever runs takes it later
                        self._pending.push_first([batch])
                        continue
                self._fail(batch, self._error("the system refused to start a thread", error))

    def initialize(self) -> bool:
        """Run the initializer, in a new worker's thread; False if the pool is broken."""
        if self._initializer is not None:
            try:
                self._initializer(*self._initargs)
            except BaseException as error:
                self._break("its initializer failed", error)
        return self._broken is None

    def next_batch(self, worker: _Worker) -> bool:
        """Give `worker`, done with its batch, the next; False if it has to sleep until `begin`."""
        if self._active <= self.max_workers and not self._pending.special:
            batch = pop_runnable(self._pending.plain)
            if batch is not None:
                worker.batches.append(batch)
                return True
        with self._lock:
            self._active -= 1
            if self._active < self.max_workers:
                batch = self._pending.pop()
                if batch is not None:
                    self._active += 1
                    worker.batches.append(batch)
                    return True
            # With this many others about, nobody would miss this one.
            surplus = len(self._idle) + self._active >= self.max_workers
            if self._closing or surplus:
                return True
            self._idle.append(worker)
            return False

    def ended(self, worker: _Worker) -> None:
        """Strike a worker whose thread is about to end off the books."""
        with self._lock:
            if worker.lost:  # perhaps a moment before `stop` counts it
                self._abandoned -= 1
            elif not self._closing:  # else `shutdown` joins it
                self._workers.discard(worker)

    def lend(self, worker: _Worker, awaited: Collection[Batch]) -> bool:
        """Free the slot of a worker that has to wait, for the tasks that it waits for first."""
        with self._lock:
            if worker.waiting or worker not in self._workers:
                return False
            worker.waiting = True
            self._active -= 1
            self._pending.push_first(awaited)
            ready = self._staff()
        self._begin(ready)
        return True

    def reclaim(self, worker: _Worker) -> None:
        """Take the slot back. One too many may be active then; no task starts until that ends."""
        with self._lock:
            worker.waiting = False
            if worker in self._workers:
                self._active += 1

    def withdraw(self, batch: Batch) -> list[int]:
        withdrawn = batch.claim_rest()
        self._withdrawn += 1
        if self._withdrawn > max(256, len(self._pending.plain) // 2):
            self._withdrawn = 0
            with self._lock:
                self._pending.sweep()
                ready = self._staff()
            self._begin(ready)
        return withdrawn

    def stop(self, batch: Batch, number: int, error: BaseException) -> bool:
        surrendered = surrender(batch, number, error)
        if surrendered is None:
            return False
        run, records = surrendered
        worker = cast(_Worker, run.owner)
        with self._lock:
            if worker in self._workers:  # else it was abandoned before, with a task below this
                self._workers.discard(worker)
                self._abandoned += 1
                if not worker.waiting:
                    self._active -= 1
            self._pending.push_first([batch])
            abandoned = self._abandoned
            ready = self._staff()
        self._begin(ready)
        batch.report(records)
        if abandoned > self._max_abandoned:
            self._break(
                f"{abandoned} threads hang in tasks that were given up, more than "
                f"max_abandoned={self._max_abandoned}; they go on until their calls return"
            )
        return True

    def running(self) -> list[Running]:
        with self._lock:
            workers = list(self._workers)
        return running_items([batch for worker in workers for batch in list(worker.batches)])

    def statistics(self) -> Statistics:
        running = len(self.running())
        with self._lock:
            workers = list(self._workers)
            return Statistics(
                workers=len(workers),
                idle=len(self._idle),
                running=running,
                waiting=sum(worker.waiting for worker in workers),
                blocked=count_blocked(w.thread for w in workers if w.batches and not w.waiting),
                abandoned=max(0, self._abandoned),
            )

    def _error(self, reason: str, cause: BaseException | None) -> PoolBrokenError:
        error = PoolBrokenError(self.name, reason)
        error.__cause__ = cause
        return error

    def _break(self, reason: str, cause: BaseException | None = None) -> None:
        """Refuse all further work and fail what has not started."""
        with self._lock:
            if self._broken is None:
                self._broken = self._error(reason, cause)
            batches = [*self._pending]
            for worker in self._workers:
                batches += worker.batches
            self._pending.clear()
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.begin(None)
        self.fail(batches)

    def fail(self, batches: Collection[Batch]) -> None:
        """Fail what has not started of these, in a broken pool."""
        if self._broken is not None:
            for batch in list(batches):
                self._fail(batch, self._broken)

    def _fail(self, batch: Batch, error: BaseException) -> None:
        batch.report_failed(batch.claim_rest(), error)

    def shutdown(self, wait: bool) -> None:
        with self._lock:
            self._closing = True
            idle, self._idle = self._idle, []
            workers = list(self._workers)
        for worker in idle:
            worker.begin(None)
        if wait:
            for worker in workers:
                if worker.thread is threading.current_thread():
                    continue
                while worker.thread.ident is None and worker in self._workers:
                    time.sleep(0)  # another thread is about to start it, in `_begin`
                if worker.thread.ident is not None:
                    worker.thread.join()
                with self._lock:
                    self._workers.discard(worker)
