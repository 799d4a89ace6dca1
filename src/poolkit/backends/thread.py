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
* ``pending`` is empty or all slots are taken, whenever the lock is free.
* Idle workers are chosen last in, first out: the warm one works, the others stay asleep.
* A thread can't be killed. `stop` abandons the worker: it loses its slot at once, so that the
  pool goes on with a new one, and its thread ends when the hung call returns, if ever. All
  threads are daemons, so that a hung one can't block the interpreter's exit.
* No user code runs, and no thread is started or joined, under the lock.

A batch may stand in ``pending`` though all its items were withdrawn; workers pass over it.
"""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, cast

from .._backend import Backend, Batch, Capabilities, Record, Running
from .._errors import PoolBrokenError
from .._task import threads
from ._run import Run, running_items, surrender

DEFAULT_MAX_ABANDONED = 64


class _Worker:
    """A thread that runs batches, one after the other."""

    def __init__(self, backend: "ThreadBackend", name: str) -> None:
        self.backend = backend
        self.name = name
        self.batch: Batch | None = None
        """What it runs; also read by other threads, to see what is running."""
        self.thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._wake = threading.Lock()
        self._wake.acquire()

    def begin(self, batch: Batch | None) -> None:
        """Start the thread or end its sleep; None tells it to end."""
        self.batch = batch
        if self.thread.ident is None:
            self.thread.start()
        else:
            self._wake.release()

    def run_here(self, batch: Batch) -> None:
        """Run another batch inside the task at hand, on its stack and with its slot."""
        Run(batch, self.name, self).execute()

    def _main(self) -> None:
        threads.slot = self
        abandoned = False
        if self.backend.initialize():
            while self.batch is not None:
                if not Run(self.batch, self.name, self).execute():
                    abandoned = True
                    break
                self.batch = None  # keep nothing alive while asleep
                if not self.backend.next_batch(self):
                    self._wake.acquire()
        self.batch = None
        self.backend.ended(self, abandoned)


class ThreadBackend(Backend):
    """A pool of threads; see the module for its rules."""

    capabilities = Capabilities(deadlines="soft")

    def __init__(
        self,
        name: str,
        max_workers: int,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        thread_name_prefix: str = "",
        max_abandoned: int = DEFAULT_MAX_ABANDONED,
    ) -> None:
        self.name = name
        self.max_workers = max_workers
        self._initializer = initializer
        self._initargs = initargs
        self._prefix = thread_name_prefix or name
        self._numbers = itertools.count()
        self._max_abandoned = max_abandoned
        # Guards all fields below.
        self._lock = threading.Lock()
        self._pending: deque[Batch] = deque()
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()  # all but the abandoned ones
        self._active = 0
        self._abandoned = 0
        self._closing = False
        self._broken: PoolBrokenError | None = None

    def dispatch(self, batch: Batch) -> None:
        with self._lock:
            if self._broken is not None:
                raise self._error(self._broken.reason, self._broken.__cause__)
            self._pending.append(batch)
            ready = self._staff()
        self._begin(ready)

    def _staff(self) -> list[tuple[_Worker, Batch]]:
        """Match pending batches with free slots. Call with the lock held, then `_begin`."""
        ready: list[tuple[_Worker, Batch]] = []
        while self._active < self.max_workers and (batch := self._take()) is not None:
            if self._idle:
                worker = self._idle.pop()
            else:
                worker = _Worker(self, f"{self._prefix}_{next(self._numbers)}")
                self._workers.add(worker)
            self._active += 1
            ready.append((worker, batch))
        return ready

    def _take(self) -> Batch | None:
        while self._pending:
            batch = self._pending.popleft()
            if batch.todo:
                return batch
        return None

    def _begin(self, ready: list[tuple[_Worker, Batch]]) -> None:
        """Set workers to work; without the lock."""
        for worker, batch in ready:
            try:
                worker.begin(batch)
            except RuntimeError as error:  # the system gives no more threads
                with self._lock:
                    self._active -= 1
                    self._workers.discard(worker)
                    if self._active > 0:  # whoever runs takes it later
                        self._pending.appendleft(batch)
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
        with self._lock:
            self._active -= 1
            worker.batch = self._take() if self._active < self.max_workers else None
            if worker.batch is not None:
                self._active += 1
                return True
            # With this many others about, nobody would miss this one.
            surplus = len(self._idle) + self._active >= self.max_workers
            if self._closing or surplus:
                return True
            self._idle.append(worker)
            return False

    def ended(self, worker: _Worker, abandoned: bool) -> None:
        """Strike a worker whose thread is about to end off the books."""
        with self._lock:
            if abandoned:  # perhaps a moment before `stop` counts it
                self._abandoned -= 1
            elif not self._closing:  # else `shutdown` joins it
                self._workers.discard(worker)

    def withdraw(self, batch: Batch, indices: Collection[int]) -> list[int]:
        return [index for index in indices if batch.claim(index)]

    def stop(self, batch: Batch, index: int, error: BaseException) -> bool:
        run = surrender(batch, index, error)
        if run is None:
            return False
        with self._lock:
            self._workers.discard(cast(_Worker, run.owner))
            self._abandoned += 1
            self._active -= 1
            if batch.todo:
                self._pending.appendleft(batch)
            too_many = self._abandoned > self._max_abandoned
            ready = self._staff()
        self._begin(ready)
        if too_many:
            self._break(
                f"{self._abandoned} threads hang in tasks past their time-out, more than "
                f"max_abandoned={self._max_abandoned}"
            )
        return True

    def running(self) -> list[Running]:
        with self._lock:
            workers = list(self._workers)
        return running_items([worker.batch for worker in workers])

    def _error(self, reason: str, cause: BaseException | None) -> PoolBrokenError:
        error = PoolBrokenError(self.name, reason)
        error.__cause__ = cause
        return error

    def _break(self, reason: str, cause: BaseException | None = None) -> None:
        """Refuse all further work and fail what has not started."""
        with self._lock:
            if self._broken is None:
                self._broken = self._error(reason, cause)
            error = self._broken
            batches = [*self._pending, *(w.batch for w in self._workers if w.batch is not None)]
            self._pending.clear()
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.begin(None)
        for batch in batches:
            self._fail(batch, error)

    def _fail(self, batch: Batch, error: BaseException) -> None:
        indices = batch.claim_rest()
        if indices:
            batch.report([Record(index, None, error, 0.0, 0.0, "") for index in indices])

    def shutdown(self, wait: bool) -> None:
        with self._lock:
            self._closing = True
            idle, self._idle = self._idle, []
            workers = list(self._workers)
        for worker in idle:
            worker.begin(None)
        if wait:
            for worker in workers:
                if worker.thread is not threading.current_thread():
                    worker.thread.join()
