"""A cluster's workers as a backend: what its kinds have in common.

::

    dispatch ──pack──> Books ──the pool's thread──> engine.send ──> the cluster ──> run_parcel
    batches <──records── the pool's thread <──inbox── a parcel's `Sent` <── the engine

An `Engine` knows one kind of cluster: it sends a parcel, gives one up, and tells how each goes.
All else is here, and in the `Books`.

Invariants:

* One thread of the pool's own sends parcels and takes in what is told of them. So no interrupt
  comes between a parcel's entry in the books and its sending, and callbacks run there, too, with
  no lock held. The engine's threads only queue what they tell.
* A parcel of one item whose worker dies is charged to it. One of several is sent again, item by
  item.
* The engine is closed when nothing waits and nothing is under way, under the books' lock; a batch
  that comes later is refused.
"""

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .._backend import Backend, Batch, Running, Statistics, make_record
from .._errors import (
    PoolBrokenError,
    PoolShutdownError,
    TaskTimeoutError,
    WorkerCrashedError,
)
from .._task import threads
from ._packing import Packed, dump_afar, pack_for, unpack
from ._remote_books import Books
from ._remote_engine import Engine, Sent
from ._remote_worker import Message, Parcel
from ._serialization import load_error

_log = logging.getLogger("poolkit")


class RemoteBackend(Backend):
    """Runs batches on a cluster; see the module for its rules.

    Args:
        name: The pool, for people.
        engine: The cluster; closed with the pool.
        max_workers: How many parcels may run at once; None for as many as the cluster can.
        initializer: Called in each process of the cluster that runs tasks of this pool, once.
        initargs: Its arguments.

    Raises:
        TaskSerializationError: The initializer or its arguments can't be sent.
    """

    chunk_seconds = 0.05  # a parcel costs a cluster a few milliseconds

    def __init__(
        self,
        name: str,
        engine: Engine,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        self.name = name
        self._asked_for = max_workers
        self.max_workers = max_workers or engine.slots
        self.capabilities = engine.capabilities
        self._engine = engine
        self._id = uuid.uuid4().hex
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._books = Books(self._inbox, self.max_workers)
        # The books' lock guards these.
        self._closing = False
        self._closed = False
        self._broken: PoolBrokenError | None = None
        self._thread = threading.Thread(target=self._serve, name="poolkit-remote", daemon=True)
        try:
            self._initializer = (
                None
                if initializer is None
                else dump_afar("the initializer", (initializer, initargs))
            )
            self._thread.start()
        except BaseException:
            self._close_engine()
            raise

    # -- on the way to the cluster ------------------------------------------------------------

    def dispatch(self, batch: Batch) -> None:
        if self._is_broken():
            raise self._error()
        if self._closed:
            raise PoolShutdownError(self.name)
        if not pack_for(batch):
            return
        if not self._enter(batch):  # closed since we looked
            batch.report_failed(batch.claim_rest(), PoolShutdownError(self.name))
            return
        self._inbox.put(None)
        if self._is_broken():  # since we looked
            self._fail(batch)

    def _enter(self, batch: Batch) -> bool:
        """Put a batch on the books; False if they are closed."""
        with self._books.lock:
            if not self._closed:
                self._books.push(batch)
            return not self._closed

    def _feed(self) -> None:
        """Send what there is room for; in the pool's thread."""
        if self._asked_for is None:
            self.max_workers = self._books.limit = self._engine.slots
        while (sent := self._books.take_next(self._engine.slots)) is not None:
            try:
                handle = self._engine.send(self._make_parcel(sent), sent)
            except BaseException as error:
                self._lost(sent, error, died=False, worker=None)
                continue
            if not self._books.give_handle(sent, handle):  # given up meanwhile
                self._engine.give_up(handle)

    def _make_parcel(self, sent: Sent) -> Parcel:
        batch = sent.batch
        packed: Packed = batch.parcel
        return Parcel(
            self._id,
            self._initializer,
            packed.call,
            [(number, packed.entries[number]) for number in list(sent.left)],
            batch.options.task_timeout,
            batch.attempt,
        )

    # -- on the way back ----------------------------------------------------------------------

    def _serve(self) -> None:
        """Send parcels and take in how they go, until the pool is closed and nothing is left."""
        threads.serving = self
        while True:
            try:
                news = self._inbox.get(timeout=self._books.pause())
            except queue.Empty:
                news = None
            try:
                if news is not None:
                    self._take_in(*news)
                self._feed()
            except BaseException:
                _log.exception("%s failed to take in a result", self.name)
            del news  # keep nothing alive while waiting for more
            with self._books.lock:
                self._closed = over = self._closing and self._books.is_empty
            if over:
                self._close_engine()
                return

    def _take_in(self, sent: Sent, message: Message) -> None:
        kind = message[0]
        if kind == "began":
            self._began(sent, *message[1:])
        elif sent not in self._books:  # given up
            return
        elif kind == "ended":
            self._ended(sent, *message[1:])
        elif kind == "late":
            self._late(sent, *message[1:])
        elif kind == "broken":
            self._break("its initializer failed", load_error(message[1]))
            self._report(sent, list(sent.left), lambda number: self._error())
        elif kind == "finished":
            self._put_back(sent)
        else:
            self._lost(sent, *message[1:])

    def _began(self, sent: Sent, number: int | None, worker: str = "", pid: Any = None) -> None:
        ask = partial(self._ask_to_stop, sent)
        if not self._books.begin(sent, number, ask):
            return
        if worker:
            sent.worker, sent.pid = worker, pid
        # Who wants it no more says so first, and then asks what is running to stop.
        if sent.batch.unwanted:
            ask()

    def _ask_to_stop(self, sent: Sent) -> None:
        if self.capabilities.stops == "abandoned" and sent.handle is not None:
            self._engine.ask_to_stop(sent.handle)

    def _ended(self, sent: Sent, endings: Sequence[Any], now: float) -> None:
        ahead = time.monotonic() - now
        taken = set(self._books.take(sent, [ending[0] for ending in endings]))
        endings = [ending for ending in endings if ending[0] in taken]
        if endings:
            self._books.note_duration(sum(ending[4] for ending in endings))
            sent.batch.report([unpack(ending, sent.worker, ahead) for ending in endings])

    def _late(self, sent: Sent, number: int, duration: float) -> None:
        limit = sent.batch.options.task_timeout or 0.0
        error = TaskTimeoutError(sent.batch.describe(number), limit)
        self._report(sent, [number], lambda number: error, duration)
        if not sent.batch.may_repeat:  # nobody wants the rest
            self._report(sent, list(sent.left), lambda number: error)

    def _lost(self, sent: Sent, error: BaseException, died: bool, worker: str | None) -> None:
        """Settle a parcel that will not end."""
        sent.worker = sent.worker or worker or ""
        if not died:
            self._report(sent, list(sent.left), lambda number: error)
        elif not self._books.note_death(sent):
            self._report(sent, list(sent.left), partial(self._crash, sent, error=error))
        self._put_back(sent)

    def _crash(self, sent: Sent, number: int, *, error: BaseException | None) -> BaseException:
        crash = WorkerCrashedError(sent.batch.describe(number), sent.pid, None, sent.worker or None)
        crash.__cause__ = error
        return crash

    def _report(
        self,
        sent: Sent,
        numbers: Sequence[int],
        make_error: Callable[[int], BaseException],
        duration: float | None = None,
    ) -> None:
        """Settle items of a parcel by an error."""
        now = time.monotonic()
        if duration is None:
            duration = now - (sent.start or now)
        worker = sent.worker or "unknown"
        for number in self._books.take(sent, numbers):
            failure = (number, None, make_error(number), now - duration, duration, worker)
            sent.batch.report([make_record(failure)])

    def _put_back(self, sent: Sent) -> None:
        self._books.put_back(sent)
        if self._is_broken():
            self._fail(sent.batch)

    def _close_engine(self) -> None:
        try:
            self._engine.close()
        except Exception:
            _log.exception("%s failed to release its cluster", self.name)

    # -- taking back and giving up ------------------------------------------------------------

    def withdraw(self, batch: Batch) -> list[int]:
        # First what waits in the cluster, perhaps for long: an interrupt may come while we ask.
        while (sent := self._books.silent_of(batch)) is not None:
            if sent.handle is None:  # it is just being sent
                time.sleep(0.001)
            else:
                self._recall(sent)
        numbers = self._books.take_back(batch)
        if numbers:
            self._inbox.put(None)  # there is room for others
        return numbers

    def _recall(self, wanted: Sent) -> None:
        """Take back what was sent and has not begun, for the sake of one that is cancelled.

        All of it: others will be cancelled, too, and asking for all costs the same.
        """
        self._books.note_recall()
        silent = self._books.silent
        answers = self._engine.revoke([sent.handle for sent in silent])
        for sent, is_back in zip(silent, answers, strict=True):
            if is_back:
                self._put_back(sent)
                self._engine.give_up(sent.handle)
        if wanted in self._books and wanted.number is None:
            (begun,) = self._engine.begun([wanted.handle])
            if begun:
                self._began(wanted, None)
            else:
                time.sleep(0.001)

    def stop(self, batch: Batch, number: int, error: BaseException) -> bool:
        sent = self._books.sent_of(batch, number)
        if sent is None:
            return False
        self._give_up(sent, [number], lambda number: error)
        return True

    def _give_up(
        self, sent: Sent, numbers: list[int], make_error: Callable[[int], BaseException]
    ) -> None:
        """Stop a parcel; settle some of its items, and send the rest again."""
        if not sent.batch.may_repeat:  # nobody wants the rest
            numbers = list(sent.left)
        self._report(sent, numbers, make_error)
        self._put_back(sent)
        with self._books.lock:
            handle = sent.handle
        if handle is not None:  # else, who sends it sees to that
            self._engine.give_up(handle)
        self._inbox.put(None)

    def end_workers(self, number: int) -> None:
        for sent in self._books.under_way:
            self._give_up(sent, list(sent.left), partial(self._crash, sent, error=None))

    # -- what goes on -------------------------------------------------------------------------

    def running(self) -> list[Running]:
        silent = self._books.silent
        if silent:  # what has begun is heard of milliseconds later
            begun = self._engine.begun([sent.handle for sent in silent])
            for sent, has_begun in zip(silent, begun, strict=True):
                if has_begun and sent.number is None:
                    self._began(sent, None)
        return self._books.running()

    def statistics(self) -> Statistics:
        running = len(self.running())
        workers = min(self.max_workers, self._engine.slots)
        return Statistics(
            workers=workers,
            idle=max(0, workers - running),
            running=running,
            pending=max(0, self._books.count() - running),
        )

    def spin(self) -> None:
        time.sleep(0.001)  # what is waited for takes a cluster that long

    # -- the end ------------------------------------------------------------------------------

    def _is_broken(self) -> bool:
        return self._broken is not None

    def _error(self) -> PoolBrokenError:
        assert self._broken is not None
        error = PoolBrokenError(self.name, self._broken.reason)
        error.__cause__ = self._broken.__cause__
        return error

    def _break(self, reason: str, cause: BaseException) -> None:
        """Refuse all further work and fail what has not been sent."""
        if self._broken is None:
            broken = PoolBrokenError(self.name, reason)
            broken.__cause__ = cause
            self._broken = broken
        for batch in self._books.take_all():
            self._fail(batch)

    def _fail(self, batch: Batch) -> None:
        batch.report_failed(batch.claim_rest(), self._error())

    def shutdown(self, wait: bool) -> None:
        with self._books.lock:
            self._closing = True
        self._inbox.put(None)
        if wait and self._thread is not threading.current_thread():
            self._thread.join()
