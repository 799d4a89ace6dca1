"""The ``"process"`` kind: poolkit's own pool of processes.

::

    dispatch (any thread): pack ──> pending ──> feed ──> a worker's books and its channel
    the loop's thread:     results, deaths, timers ──> records ──> batches

The promises, the messages and the reasons are in ``docs/explanation/process-pool.md``. This module
decides who gets what; `poolkit.backends.process.loop` waits and reads, `handle` knows one
process.

Invariants:

* ``_lock`` guards all state but `PendingQueue.plain`. No user code runs under it: no pickling, no
  unpickling, no callback. Re-entrant, as the collector may strike while it is held.
* An item is in its batch's ``todo``, or on the books of one worker, or settled. It moves from the
  first to the second by one call into C, as an interrupt may come between any two others.
* ``_room`` is true if a worker might take more: who adds to the queue looks at it afterwards, who
  makes room looks at the queue afterwards. One of them sees the other.
* Who takes an item off the books settles it, once: the loop by a result or an `Ending`, `stop` at
  once, or whoever is given it by `withdraw`.
"""

import contextlib
import marshal
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import islice
from multiprocessing.context import BaseContext
from typing import Any, Final

from ..._backend import Backend, Batch, Capabilities, Record, Running, Statistics
from ..._errors import (
    PoolBrokenError,
    TaskSerializationError,
    TaskTimeoutError,
    WorkerCrashedError,
)
from .._pending import PendingQueue
from .board import CONDEMNED, FLAGS, LOOK, barrier
from .books import HOLE, Assignment
from .channel import frame
from .handle import State, Worker
from .loop import Delivery, Ending, Loop, Packed
from .parcel import Packer, Parcel, pack_entries

# Work is sent ahead of a worker as far as this, in seconds: many times a round trip, and little
# enough that what waits behind it could not have started much sooner elsewhere.
AHEAD: Final = 0.0025
# The most tasks ahead, however short they are; a message of so many costs little more than of one.
MOST_AHEAD: Final = 128
# The most items of one chunk that are sent in one piece.
_MOST_ITEMS: Final = 1024
# What is behind an item that has run for so long, in seconds, is taken back.
STUCK: Final = 0.005
# The same while another worker has nothing to do.
_IMPATIENT: Final = 0.002
# So many workers in a row that end before they are of any use break the pool.
MOST_FAILURES: Final = 3

_EXIT: Final = frame(marshal.dumps(None))
_NO_ERROR: Final = b""


class ProcessBackend(Backend):
    """A pool of processes; see the module for its rules."""

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
        self.name = name
        self.max_workers = max_workers
        self.kill_grace = kill_grace
        self._packer = packer
        self._quota = max_tasks_per_child or math.inf
        self._lock = threading.RLock()
        self._pending = PendingQueue()
        self._room = True
        self.workers: list[Worker] = []
        self.closing = False
        self._broken: PoolBrokenError | None = None
        self._failures = 0
        self._made = 0
        self._least_limit = math.inf
        self.endings: deque[Ending] = deque()
        start = partial(
            Worker.start,
            context=context,
            initializer=initializer,
            initargs=initargs,
            most_memory=max_worker_memory,
        )
        self._loop = Loop(self, self._lock, start)

    # -- what the face calls ------------------------------------------------------------------

    def dispatch(self, batch: Batch) -> None:
        broken = self._broken
        if broken is not None:
            raise self._error()
        if not self._pack(batch):
            return
        if batch.options.priority:
            with self._lock:
                self._pending.push(batch)
        else:
            self._pending.plain.append(batch)
        limit = batch.options.task_timeout
        if limit is not None and limit < self._least_limit:
            self._least_limit = limit
        self._loop.start()
        if self._room:
            try:
                with self._lock:
                    self.feed()
            except BaseException:  # an interrupt: whatever it has left undone, the loop does
                self._loop.mend()
                raise
        if limit is not None:
            self._loop.look_within(limit)
        broken = self._broken
        if broken is not None:  # since we looked; `break_down` may have missed this batch
            self.fail(batch, batch.claim_rest())
            self._loop.wake()

    def _pack(self, batch: Batch) -> bool:
        """Pack a batch; report what can't be sent, and say whether anything is left."""
        packer = self._packer
        try:
            function, fn = packer.function(batch.fn)
            kwargs = packer.keywords(batch.kwargs)
            if len(batch.items) == 1:
                entries, refused = [packer.arguments(batch.items[0])], None
            else:
                entries, refused = pack_entries(packer, batch.items)
        except TaskSerializationError as error:
            _report(batch, batch.claim_rest(), error)
            return False
        options = batch.options
        hold = len(batch.items) > 1 and not options.at_most_once
        batch.parcel = Parcel(function, fn, kwargs, entries, options.task_timeout, hold)
        if refused:
            for number, refusal in refused.items():
                if batch.claim(number):
                    _report(batch, [number], refusal)
        return bool(batch.todo)

    def withdraw(self, batch: Batch) -> list[int]:
        with self._lock:
            numbers = batch.claim_rest()
            if len(numbers) < len(batch.items):
                for worker in self.workers:
                    if worker.books:
                        mine = [s for a, s in worker.books.live() if a.batch is batch]
                        numbers += [number for _, number in self._take_back(worker, mine)]
            return numbers

    def stop(self, batch: Batch, number: int, error: BaseException) -> bool:
        with self._lock:
            for worker in self.workers:
                serial = worker.books.serial_of(batch, number)
                if serial is not None:
                    break
            else:
                return False
            start = worker.board.start
            if not self.condemn(worker, serial):
                return False
        self._loop.wake()
        batch.report([Record(number, None, error, start, time.monotonic() - start, worker.name)])
        return True

    def running(self) -> list[Running]:
        found: list[Running] = []
        with self._lock:
            for worker in self.workers:
                serial = worker.board.serial if worker.books else 0
                assignment = worker.books.find(serial)
                if assignment is not None:
                    number = assignment.numbers[serial - assignment.first]
                    found.append(Running(assignment.batch, number, worker.board.start))
        return found

    def statistics(self) -> Statistics:
        running = len(self.running())
        with self._lock:
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
        with self._lock:
            for worker in self.workers:
                worker.signal(number)
                worker.kill_at = time.monotonic() + self.kill_grace
        self._loop.mend()

    def shutdown(self, wait: bool) -> None:
        with self._lock:
            self.closing = True
        self._loop.wake()
        if wait:
            self._loop.join()

    def abandon(self) -> None:
        """In a forked child: close what was inherited. Takes no lock: its holder is not here."""
        self.closing = True
        for worker in list(self.workers):
            worker.abandon()
        self._loop.abandon()

    # -- who gets what, under the lock ----------------------------------------------------------

    def feed(self) -> None:
        """Send pending items to workers with room, and have workers started if there are few."""
        pending = self._pending
        while pending.peek() is not None:
            worker = self._with_room()
            if worker is None or not self._assign(worker):
                break
        if self.closing and pending.peek() is None:
            self._loop.cancel_starts()
            for worker in self.workers:
                if worker.state is State.READY and not worker.books:
                    self._dismiss(worker)
        if pending.peek() is not None and self._broken is None:
            self._staff()
        self._room = pending.peek() is None or self._with_room() is not None

    def _with_room(self) -> Worker | None:
        """Return who should be sent more, if anybody.

        Of the idle the one that was busy last, so that the others may stay asleep; else the one
        with the least to do, if that is little.
        """
        best: Worker | None = None
        for worker in self.workers:
            if worker.state is not State.READY:
                continue
            books = worker.books
            if not books:
                if best is None or best.books or worker.idle_since > best.idle_since:
                    best = worker
            elif (
                (best is None or (best.books and worker.load < best.load))
                and worker.load < AHEAD / 2
                and books.outstanding < MOST_AHEAD // 2
            ):
                best = worker
        return best

    def _assign(self, worker: Worker) -> bool:
        """Send a worker its share of what is pending; False if that was nothing."""
        pending, books = self._pending, worker.books
        share = min(MOST_AHEAD, len(pending.plain) // self.max_workers + 1)
        made: list[Assignment] = []
        while len(made) < share and (worker.load < AHEAD or not books):
            batch: Any = pending.peek()
            if batch is None:
                break
            parcel: Parcel = batch.parcel
            mean = parcel.function.mean
            fitting = _MOST_ITEMS if mean == math.inf else max(1, AHEAD / max(mean, 1e-9))
            room = int(min(fitting, _MOST_ITEMS, worker.quota, FLAGS - 1 - books.outstanding))
            if room < 1:
                break
            assignment = Assignment(batch, parcel, books.next)
            books.assignments.append(assignment)
            _move(batch.todo, assignment.numbers, room)
            count = len(assignment.numbers)
            if not count:  # somebody else was quicker
                books.assignments.pop()
                continue
            worker.quota -= count
            worker.load += count * mean
            made.append(assignment)
        if made:
            self._send(worker, made)
            if books.outstanding > 1:
                self._loop.look_within(STUCK)
        return bool(made)

    def _send(self, worker: Worker, assignments: Sequence[Assignment]) -> None:
        message: list[Any] = []
        for assignment in assignments:
            parcel, numbers = assignment.parcel, assignment.numbers
            function, fn = parcel.function, parcel.fn
            name: Any = fn
            if fn is None:
                known = function.number in worker.known
                name = function.number, None if known else function.data
                worker.known.add(function.number)
            entries = parcel.entries
            if len(entries) != len(numbers) or HOLE in numbers:
                # What was taken back just now has its flag set, and is passed over.
                entries = [() if n == HOLE else parcel.entries[n] for n in numbers]
            message.append(
                (assignment.first, name, parcel.kwargs, parcel.limit, parcel.hold, entries)
            )
        worker.channel.queue(frame(marshal.dumps(message)))
        for assignment in assignments:
            assignment.sent = True
        if worker.quota < 1:
            self._dismiss(worker)
        elif not worker.channel.flush():
            self._loop.wake()

    def send_unsent(self) -> None:
        """Send what an interrupt has kept from being sent."""
        for worker in self.workers:
            unsent = [a for a in worker.books.assignments if not a.sent and a.numbers]
            if unsent:
                worker.known.clear()  # whatever of it is true
                self._send(worker, unsent)

    def _dismiss(self, worker: Worker) -> None:
        """Let a worker end when it has done what it has."""
        if worker.state is State.READY:
            worker.state = State.LEAVING
            worker.channel.queue(_EXIT)
            if not worker.channel.flush():
                self._loop.wake()

    def _staff(self) -> None:
        """Have workers started for what nobody has room for."""
        present = starting = 0
        for worker in self.workers:
            starting += worker.state is State.STARTING
            present += worker.state <= State.READY or (
                worker.state is State.LEAVING and bool(worker.books)
            )
        wanted = min(self.max_workers - present, len(self._pending) - starting)
        for _ in range(wanted):
            self._made += 1
            name = f"{self.name.replace(' ', '-')}-worker-{self._made}"
            try:
                worker = Worker(name, self._quota, self._loop.scratch)
            except OSError as error:  # no more descriptors
                self._failed_start(error)
                return
            self.workers.append(worker)
            self._loop.start_worker(worker)

    def start_failed(self, worker: Worker, failure: BaseException) -> None:
        """Do without a worker that could not be started."""
        self.workers.remove(worker)
        worker.release()
        self._failed_start(failure)

    def _failed_start(self, failure: BaseException) -> None:
        self._failures += 1
        if self._failures >= MOST_FAILURES or not self.workers:
            self.break_down(f"a worker could not be started: {failure}", failure)

    # -- taking back, under the lock ------------------------------------------------------------

    def _take_back(self, worker: Worker, serials: Collection[int]) -> list[tuple[Any, int]]:
        """Take items off a worker's books that it has not begun, and never will."""
        board, books = worker.board, worker.books
        serials = [serial for serial in serials if serial > board.serial]
        if not serials:
            return []
        for serial in serials:
            board.flag(serial)
            worker.flagged.add(serial)
        if worker.state is not State.CONDEMNED:
            board.call_attention(LOOK)
        barrier()
        begun = board.serial
        taken: list[tuple[Any, int]] = []
        for serial in serials:
            assignment = books.find(serial) if serial > begun else None
            if assignment is not None:
                taken.append((assignment.batch, books.take(assignment, serial)))
        return taken

    def _send_elsewhere(self, taken: Collection[tuple[Any, int]]) -> None:
        """Put items that were on some worker's books to the front of the queue."""
        batches: dict[Any, list[int]] = {}
        for batch, number in taken:
            batches.setdefault(batch, []).append(number)
        for batch, numbers in batches.items():
            if self._broken is not None:
                self.fail(batch, numbers)
            else:
                batch.todo.extend(sorted(numbers, reverse=True))
        if self._broken is None:
            self._pending.push_first(list(batches))

    def condemn(self, worker: Worker, serial: int) -> bool:
        """Stop a worker at the item it runs, if it still does; the caller settles that item."""
        board, books = worker.board, worker.books
        if board.serial != serial or worker.state >= State.CONDEMNED:
            return False
        board.call_attention(CONDEMNED)
        barrier()
        assignment = books.find(serial)
        if board.serial != serial or assignment is None:
            board.call_attention(LOOK if worker.flagged else 0)
            return False
        worker.state = State.CONDEMNED
        books.take(assignment, serial)
        rest = [s for _, s in books.live(serial)]
        self._send_elsewhere(self._take_back(worker, rest))
        if self.kill_grace > 0:
            worker.signal(signal.SIGTERM)
            worker.kill_at = time.monotonic() + self.kill_grace
        else:
            worker.signal(signal.SIGKILL)
        self.feed()
        return True

    def rebalance(self, now: float) -> float:
        """Take back what waits behind a slow item; return when to look again, in seconds."""
        if not any(len(w.books.assignments) > 1 or w.books.outstanding > 1 for w in self.workers):
            return math.inf
        idle = self._pending.peek() is None and (
            any(w.state is State.READY and not w.books for w in self.workers)
        )
        patience = _IMPATIENT if idle else STUCK
        look = math.inf
        for worker in self.workers:
            if not worker.books or worker.state >= State.CONDEMNED:
                continue
            begun = worker.board.serial
            if worker.books.next - 1 <= begun:  # nothing waits
                continue
            age = now - worker.board.start if worker.books.find(begun) else 0.0
            if age < patience:
                look = min(look, patience - age)
                continue
            waiting = [serial for _, serial in worker.books.live(begun)]
            if idle and age < STUCK:  # it will be quicker with some of it
                waiting = waiting[len(waiting) // 2 :]
            taken = self._take_back(worker, waiting)
            worker.quota += len(taken)
            worker.load = math.inf  # it gets nothing more before it has shown up again
            self._send_elsewhere(taken)
        return look

    # -- what comes back, under the lock; called by the loop ------------------------------------

    def ready(self, worker: Worker) -> None:
        """Note that a worker can be sent work."""
        if worker.state is State.STARTING:
            worker.state = State.READY
            worker.idle_since = time.monotonic()

    def results(
        self, worker: Worker, first: int, times: list[float], values: list[Any], errors: Any
    ) -> list[Delivery]:
        """Strike items off that a worker has reported; return them, still packed, by batch."""
        assignments = worker.books.assignments
        deliveries: list[Delivery] = []
        skipped: list[tuple[Any, int]] = []
        serial, end = first, first + len(values)
        self._failures = 0
        while serial < end and assignments:
            assignment = assignments[0]
            stop = min(end, assignment.next)
            packed: Packed = []
            for at in range(serial, stop):
                number = worker.books.take(assignment, at)
                if number == HOLE:
                    continue
                index = at - first
                error = errors.get(at, _NO_ERROR) if errors else _NO_ERROR
                if error is None:  # its flag was set just too late for us, and in time for it
                    skipped.append((assignment.batch, number))
                    continue
                start = times[index]
                duration = times[index + 1] - start
                packed.append((number, values[index], error or None, start, duration))
            if packed:
                deliveries.append((assignment.batch, worker.name, packed))
            if stop > serial:
                spent = (times[stop - first] - times[serial - first]) / (stop - serial)
                assignment.parcel.function.observe(spent)
            serial = max(serial, stop)
            worker.books.passed(serial - 1)
            if assignments and assignments[0] is assignment and serial < end:
                break  # can't be; but rather lose a number than turn for ever
        self._unflag(worker, end)
        if assignments:
            worker.load = worker.books.outstanding * assignments[-1].parcel.function.mean
        else:
            worker.load = 0.0
            worker.idle_since = time.monotonic()
        if skipped:
            self._send_elsewhere(skipped)
        return deliveries

    def _unflag(self, worker: Worker, end: int) -> None:
        """Free the flags of items that a worker has passed."""
        if worker.flagged:
            for serial in [serial for serial in worker.flagged if serial < end]:
                worker.flagged.discard(serial)
                worker.board.unflag(serial)
            if not worker.flagged and worker.state is not State.CONDEMNED:
                worker.board.call_attention(0)

    def leaving(self, worker: Worker, last: int) -> None:
        """Take back what a worker that ends by itself has not begun."""
        if worker.state is State.READY:
            worker.state = State.LEAVING
        books = worker.books
        self._send_elsewhere([(a.batch, books.take(a, s)) for a, s in list(books.live(last))])

    def late(self, now: float, read: Callable[[Worker], None]) -> float:
        """Stop what is past its limit; return in how many seconds to look again.

        Args:
            now: The monotonic clock's time.
            read: Called to take in what a worker has sent, before it is condemned.
        """
        least, self._least_limit = self._least_limit, math.inf
        if least == math.inf or not (self._pending.peek() or any(w.books for w in self.workers)):
            return math.inf
        # In this order: who dispatches queues its batch first, then lowers the limit.
        look = self._least_limit = min(least, self._least_limit)
        for worker in list(self.workers):
            begun = worker.board.serial
            assignment = worker.books.find(begun)
            if assignment is None or assignment.parcel.limit is None:
                continue
            limit, start = assignment.parcel.limit, worker.board.start
            left = start + limit - now
            if left > 0:
                look = min(look, left)
                continue
            read(worker)
            if worker.books.find(begun) is not assignment:
                look = 0.0
                continue
            number, batch = assignment.numbers[begun - assignment.first], assignment.batch
            if self.condemn(worker, begun):
                late = partial(_late, batch, number, limit)
                self.endings.append(Ending(batch, number, late, start, now - start, worker.name))
            else:
                look = 0.0
        return look

    def bury(self, worker: Worker) -> None:
        """Settle the books of a worker that has ended, and of which all has been read."""
        self.workers.remove(worker)
        was, worker.state = worker.state, State.DEAD
        books, begun, ended = worker.books, worker.board.serial, worker.board.ended
        again: list[tuple[Any, int]] = []
        charged = False
        for assignment, serial in list(books.live()):
            number = books.take(assignment, serial)
            batch, hold = assignment.batch, assignment.parcel.hold
            if serial > begun or (hold and (serial < begun or ended == serial)):
                again.append((batch, number))
                continue
            charged = True
            crash = partial(_crashed, batch, number, worker.pid, worker.exit_code)
            start = worker.board.start
            duration = max(0.0, time.monotonic() - start)
            self.endings.append(Ending(batch, number, crash, start, duration, worker.name))
        if charged:
            self._failures = 0
        elif was is State.STARTING or again:
            self._failures += 1
        code = worker.exit_code
        if code != 0 or charged or again or was is State.CONDEMNED:
            worker.end_group()
        worker.release()
        self._send_elsewhere(again)
        if self._failures >= MOST_FAILURES and self._broken is None:
            how = "unknown" if code is None else str(code)
            self.break_down(
                f"{self._failures} workers in a row ended before they were ready (the last with "
                f"exit code {how}; its error output may tell why). A script that uses processes "
                "must do so below: if __name__ == '__main__':"
            )

    def break_down(self, reason: str, cause: BaseException | None = None) -> None:
        """Refuse all further work and fail what has not started."""
        if self._broken is None:
            self._broken = PoolBrokenError(self.name, reason)
            self._broken.__cause__ = cause
        for batch in list(self._pending):
            self.fail(batch, batch.claim_rest())
        self._pending.clear()
        for worker in list(self.workers):
            rest = [s for _, s in worker.books.live(worker.board.serial)]
            self._send_elsewhere(self._take_back(worker, rest))
            if not worker.books:
                self._dismiss(worker)

    def fail(self, batch: Batch, numbers: Collection[int]) -> None:
        """Let items of a broken pool fail."""
        self.endings.extend(Ending(batch, number, self._error) for number in numbers)

    def _error(self) -> PoolBrokenError:
        assert self._broken is not None
        error = PoolBrokenError(self.name, self._broken.reason)
        error.__cause__ = self._broken.__cause__
        return error

    @property
    def done(self) -> bool:
        """Whether the pool is closed, and nothing of it is left."""
        return self.closing and not self.workers and self._pending.peek() is None


def _move(todo: list[int], numbers: list[int], count: int) -> None:
    """Move up to `count` items from a batch to an assignment: no interrupt can split one's move."""
    with contextlib.suppress(IndexError):  # somebody else has taken some meanwhile
        numbers.extend(islice(iter(todo.pop, None), min(count, len(todo))))


def _report(batch: Batch, numbers: Collection[int], error: BaseException) -> None:
    if numbers:
        batch.report([Record(number, None, error, 0.0, 0.0, "") for number in numbers])


def _late(batch: Batch, number: int, limit: float) -> BaseException:
    return TaskTimeoutError(batch.describe(number), limit)


def _crashed(batch: Batch, number: int, pid: int, exit_code: int | None) -> BaseException:
    return WorkerCrashedError(batch.describe(number), pid, exit_code)
