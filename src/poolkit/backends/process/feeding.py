"""Who gets what: pending tasks go to workers, and workers are started for them.

This is the lowest of three layers of one object: `Feeding`, `Recalling` (items taken back, workers
stopped) and `Settling` (results, deaths), on which `poolkit.backends.process.pool` stands. They
share the pool's lock, and all their methods are called with it held.
"""

import marshal
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Final, cast

from ..._backend import Batch, Lone
from ..._errors import PoolBrokenError
from .._pending import PendingQueue
from . import steps
from .board import FLAGS
from .books import HOLE, Assignment
from .channel import frame
from .endings import Ending
from .freight import taken_out
from .handle import Births, State, Worker
from .lending import Shipment, Store
from .loop import Loop
from .parcel import Parcel
from .segments import Announcement

# Work is sent ahead of a worker as far as this, in seconds: many times a round trip, and little
# enough that what waits behind it could not have started much sooner elsewhere.
AHEAD: Final = 0.0025
# One is sent ahead of a worker in any case, unless it takes longer than this, in seconds: a round
# trip would be a few percent of it.
LONG: Final = 0.01
# The most tasks ahead, however short they are; a message of so many costs little more than of one.
MOST_AHEAD: Final = 128
# Single tasks that take less than this, in seconds, wait until there are so many or a result comes,
# if no worker is idle: to send one costs as much as to run it.
QUICK: Final = 50e-6
TOGETHER: Final = 16
# The most items of one chunk that are sent in one piece.
_MOST_ITEMS: Final = 4096
# What is behind an item that has run for so long, in seconds, is taken back.
STUCK: Final = 0.02
# A worker that was sent work and has not begun it after so long, in seconds, gets it taken away.
MUTE: Final = 0.5
# So many workers in a row that end before they are of any use break the pool.
MOST_FAILURES: Final = 3

_EXIT: Final = frame(marshal.dumps(None))


class Feeding:
    """Pending tasks, workers, and how the ones come to the others.

    Invariants:

    * An item is in its batch's ``todo``, or on the books of one worker, or settled. It moves from
      the first to the second by one call into C, as an interrupt may come between any two others.
    * ``room`` is true if a worker might take more, ``idle`` if one might have nothing to do: who
      adds to the queue looks at them afterwards, who changes them looks at the queue afterwards.
      One of them sees the other.
    * While nobody is idle, each worker has something to report, upon which the loop calls `feed`.
      So what is added to the queue then may wait for that.
    * Who holds the lock may be interrupted by the collector, and by what that finalizes, at nearly
      any point. Such code, which finds that its thread has the lock already (`is_under_way`), may
      add to the queue, take from ``todo`` and ring the loop's bell; it leaves the rest alone.
    """

    def __init__(
        self,
        name: str,
        max_workers: int,
        quota: float,
        kill_grace: float,
        start: Callable[[Worker], None],
        store: Store | None,
    ) -> None:
        self.name = name
        self.max_workers = max_workers
        self.kill_grace = kill_grace
        self.store = store
        self._quota = quota
        # Guards all that follows, but for `PendingQueue.plain`. No user code runs under it: no
        # pickling, no unpickling, no callback. Re-entrant, as the collector may strike while it
        # is held.
        self.lock = threading.RLock()
        if store is not None:
            store.lock = self.lock
        self.pending = PendingQueue()
        self.room = self.idle = True
        self.workers: list[Worker] = []
        self.closing = False
        self.broken: PoolBrokenError | None = None
        self.failures = 0
        self.least_limit = math.inf
        self.rebalance_at = -math.inf
        self.endings: deque[Ending] = deque()
        self.unfinished = False
        """Whether books are being changed: if nobody is at it, an interrupt has struck there."""
        self.feeding = False
        self._made = 0
        self.step = steps.counter("PARENT")
        self.loop = Loop(cast(Any, self), start)  # the layers above complete it

    def is_under_way(self) -> bool:
        """Whether this thread is changing the books, further down its stack: see the invariants."""
        lock: Any = self.lock
        owned: bool = lock._is_owned()
        return owned

    def feed(self) -> None:
        """Send pending items to workers with room, and have workers started if there are few."""
        if self.feeding:  # by this thread, further down its stack: a finalizer has stopped a task
            self.loop.wake()
            return
        self.feeding = True
        try:
            self._feed()
        finally:
            self.feeding = False

    def _feed(self) -> None:
        while True:
            if self.unfinished:
                self.repair()
            self.room = self._feed_once()
            self.idle = self._present() < self.max_workers or any(
                worker.state is State.READY and not worker.books for worker in self.workers
            )
            # Somebody may have added to the queue, and looked at these, just before that.
            if not self.room or self.pending.peek() is None:
                return

    def _feed_once(self) -> bool:
        """Return whether there is room for more."""
        pending, room = self.pending, True
        self.unfinished = True
        while (head := pending.peek()) is not None:
            worker = self._with_room(head)
            room = worker is not None
            if worker is None or not self._assign(worker):
                break
        if self.closing and pending.peek() is None:
            self.loop.starter.cancel()
            for worker in self.workers:
                if worker.state is State.READY and not worker.books:
                    self.dismiss(worker)
        if pending.peek() is not None and self.broken is None:
            self._staff()
        self.unfinished = False
        return room

    def _with_room(self, head: Batch) -> Worker | None:
        """Return who should be sent `head`, the next batch, if anybody.

        Of the idle the one that was busy last, so that the others may stay asleep; else the one
        with the least to do, if that is little. What is large waits for an idle one. Whoever has
        room can take at least one item, or `_feed` would look for ever.
        """
        best: Worker | None = None
        parcel = head.parcel
        large = parcel is not None and parcel.large  # None if it was withdrawn just now
        for worker in self.workers:
            if worker.state is not State.READY:
                continue
            books = worker.books
            if not books:
                if best is None or best.books or worker.seen_at > best.seen_at:
                    best = worker
            elif (
                not large
                and (best is None or (best.books and worker.load < best.load))
                and (worker.load < AHEAD / 2 or (books.outstanding == 1 and worker.load < LONG))
                and not worker.channel.unsent
                and len(books.assignments) < MOST_AHEAD // 2
                and books.outstanding < FLAGS // 2
            ):
                best = worker
        return best

    def _assign(self, worker: Worker) -> bool:
        """Send a worker its share of what is pending; False if that was nothing."""
        pending, books = self.pending, worker.books
        share = min(MOST_AHEAD, len(pending.plain) // self.max_workers + 1)
        first = books.next
        left = FLAGS - 1 - books.outstanding
        made: list[Assignment] = []
        if not books:
            worker.seen_at = time.monotonic()
        while len(made) < share and (
            worker.load < AHEAD or not books or (books.outstanding == 1 and worker.load < LONG)
        ):
            batch: Any = pending.peek()
            if batch is None:
                break
            parcel: Parcel | None = batch.parcel
            if parcel is None:  # withdrawn just now, by a finalizer
                continue
            if parcel.large and books:
                break
            mean = parcel.function.mean
            count = len(batch.todo)
            if count > 1 and 0.0 < mean < math.inf:
                count = min(count, max(1, int(AHEAD / mean)))
            count = int(min(count, _MOST_ITEMS, worker.quota, left))
            if count < 1:
                break
            assignment = Assignment(batch, parcel, first)
            books.assignments.append(assignment)
            _move(batch.todo, assignment.numbers, count)
            count = len(assignment.numbers)
            if not count:  # somebody else was quicker
                books.assignments.pop()
                continue
            first += count
            left -= count
            worker.quota -= count
            worker.load += count * mean
            made.append(assignment)
            if parcel.large:
                break
        if made:
            if self.step is not None:
                self.step()
            self._send(worker, made)
            ahead = first - books.assignments[0].first > 1
            self.loop.look_within(STUCK if ahead else MUTE)
        return bool(made)

    def _send(self, worker: Worker, assignments: Sequence[Assignment]) -> None:
        message: list[Any] = []
        shared: Parcel | None = None  # that of the last entry, if single tasks may be added to it
        for assignment in assignments:
            parcel, numbers = assignment.parcel, assignment.numbers
            alone = len(numbers) == len(assignment.batch.items) == 1 and not parcel.terms.lone
            if alone and parcel is shared:  # a single task like the one before: together with it
                message[-1][-1].append(assignment.batch.items[0])
                continue
            shared = None
            function, fn = parcel.function, parcel.fn
            name: Any = fn
            if fn is None:
                known = function.number in worker.known
                name = function.number, None if known else function.data
                worker.known.add(function.number)
            entries: Any = parcel.entries
            if entries is None:
                entries = assignment.batch.items
                if type(entries) is Lone:
                    entries = entries.arguments
            if len(entries) > 1 or len(numbers) > 1:
                if not assignment.is_run(0, len(numbers)):
                    # What was taken back just now has its flag set, and is passed over.
                    entries = [() if n == HOLE else entries[n] for n in numbers]
                elif len(numbers) != len(entries):
                    entries = entries[numbers[0] : numbers[-1] + 1]
            kwargs, wire = parcel.kwargs, parcel.wire
            if parcel.shipment is not None:
                kwargs, entries, loan = self._lend(worker, parcel.shipment, kwargs, entries)
                wire = *parcel.terms, loan
            elif alone and parcel.entries is None:
                shared, entries = parcel, [*entries]
            message.append((assignment.first, name, kwargs, wire, entries))
        worker.channel.queue(frame(marshal.dumps(message)))
        if self.step is not None:
            self.step()
        for assignment in assignments:
            assignment.sent = True
        if worker.quota < 1:
            self.dismiss(worker)
        elif not worker.channel.flush():
            self.loop.wake()

    def _lend(
        self, worker: Worker, shipment: Shipment, kwargs: Any, entries: Sequence[Any]
    ) -> tuple[Any, Sequence[Any], Announcement | None]:
        """Lend a worker a segment; return what the message has to say then."""
        assert worker.sender is not None
        if self.step is not None:
            self.step()
        try:
            return kwargs, entries, worker.sender.send(shipment.segment, shipment.size)
        except OSError:  # as if there had been no segment
            read = shipment.segment.read
            return taken_out(kwargs, read), [taken_out(entry, read) for entry in entries], None

    def repair(self) -> None:
        """Finish what an interrupt has left half done, in the order in which it was begun."""
        for worker in self.workers:
            assignments = worker.books.assignments
            while assignments and not assignments[-1].numbers:
                assignments.pop()
            unsent = [assignment for assignment in assignments if not assignment.sent]
            if unsent:
                worker.known.clear()  # whatever of it is true
                self._send(worker, unsent)
            elif worker.quota < 1:
                self.dismiss(worker)
        self.loop.starter.mend()
        self.unfinished = False

    def dismiss(self, worker: Worker) -> None:
        """Let a worker end when it has done what it has."""
        if worker.state is State.READY:
            worker.channel.queue(_EXIT)  # first: an interrupt in between has it told twice
            worker.state = State.LEAVING
            if not worker.channel.flush():
                self.loop.wake()

    def _present(self) -> int:
        """Count the workers in whose place no other is to be started yet."""
        return sum(
            worker.state <= State.READY or (worker.state is State.LEAVING and bool(worker.books))
            for worker in self.workers
        )

    def _staff(self) -> None:
        """Have workers started for what nobody has room for."""
        starting = sum(worker.state is State.STARTING for worker in self.workers)
        wanted = min(self.max_workers - self._present(), len(self.pending) - starting)
        for _ in range(wanted):
            self._made += 1
            name = f"{self.name.replace(' ', '-')}-worker-{self._made}"
            try:
                with Births.lock:
                    worker = Worker(name, self._quota, self.loop.scratch, self.store)
                    self.workers.append(worker)
            except OSError as error:  # no more descriptors
                self._failed_start(error)
                return
            self.loop.starter.add(worker)

    def start_failed(self, worker: Worker, failure: BaseException) -> None:
        """Do without a worker that could not be started."""
        self.workers.remove(worker)
        worker.release()
        self._failed_start(failure)

    def _failed_start(self, failure: BaseException) -> None:
        if not self.workers:  # else, those that are there go on, and it is tried again
            self.break_down(f"a worker could not be started: {failure}", failure)

    def break_down(self, reason: str, cause: BaseException | None = None) -> None:
        """Refuse all further work; `Settling` says how."""
        raise NotImplementedError


def _move(todo: list[int], numbers: list[int], count: int) -> None:
    """Move up to `count` items from a batch to an assignment: no interrupt can split one's move."""
    try:  # noqa: SIM105 - this is called for each task, and costs half as much so
        numbers.extend(map(todo.pop, repeat(-1, count)))
    except IndexError:  # somebody else has taken some meanwhile
        pass
