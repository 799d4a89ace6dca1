"""Taking items back from workers, and stopping workers at one item and no other.

The order of writing, barrier and reading is argued for in ``docs/explanation/process-pool.md``.
"""

import math
import signal
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final

from ..._backend import Batch
from ..._errors import PoolBrokenError, TaskTimeoutError
from .board import CONDEMNED, LOOK, barrier
from .endings import Ending
from .feeding import MUTE, STUCK, Feeding
from .handle import State, Worker

# What waits behind an item that has run for so long, in seconds, is shared with an idle worker.
_IMPATIENT: Final = 0.002
# A worker that begins nothing for so long, in seconds, while it should, is replaced.
_DEAF: Final = 5.0


class Recalling(Feeding):
    """The second layer of a pool: see `poolkit.backends.process.feeding`."""

    def take_back(self, worker: Worker, serials: Collection[int]) -> list[tuple[Any, int]]:
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

    def send_elsewhere(self, taken: Collection[tuple[Any, int]]) -> None:
        """Put items that were on some worker's books to the front of the queue."""
        batches: dict[Any, list[int]] = {}
        for batch, number in taken:
            batches.setdefault(batch, []).append(number)
        for batch, numbers in batches.items():
            if self.broken is not None:
                self.fail(batch, numbers)
            else:
                batch.todo.extend(numbers)
                batch.todo.sort(reverse=True)
        if self.broken is None:
            self.pending.push_first(list(batches))

    def condemn(self, worker: Worker, serial: int) -> bool:
        """Stop a worker at the item it runs, if it still does; the caller settles that item."""
        board, books = worker.board, worker.books
        if board.serial != serial or worker.state >= State.CONDEMNED:
            return False
        board.call_attention(CONDEMNED)
        if self.step is not None:
            self.step()
        barrier()
        assignment = books.find(serial)
        if board.serial != serial or assignment is None:
            board.call_attention(LOOK if worker.flagged else 0)
            return False
        if self.step is not None:
            self.step()
        books.take(assignment, serial)
        self._end(worker, serial)
        return True

    def _end(self, worker: Worker, serial: int) -> None:
        """Make a worker end that has its attention word set, and begins nothing after `serial`."""
        worker.state = State.CONDEMNED
        # It may have said that it is at the next item, before it saw that it must not begin it. So
        # the board has no say in this.
        books = worker.books
        rest = [(a.batch, books.take(a, s)) for a, s in list(books.live(serial))]
        self.send_elsewhere(rest)
        grace = self.kill_grace
        worker.kill_at = time.monotonic() + grace
        worker.signal(signal.SIGTERM if grace > 0 else signal.SIGKILL)
        self.feed()

    def rebalance(self, now: float) -> float:
        """Take back what waits behind a slow item; return when to look again, in seconds."""
        idle = busy = False
        for worker in self.workers:
            if worker.books:
                busy = True
            elif worker.state is State.READY:
                idle = True
        if not busy:
            return math.inf
        idle = idle and self.pending.peek() is None
        if not idle and now < self.rebalance_at:
            return self.rebalance_at - now
        self.rebalance_at = now + STUCK / 2
        patience = _IMPATIENT if idle else STUCK
        look = math.inf
        for worker in list(self.workers):
            if not worker.books or worker.state >= State.CONDEMNED:
                continue
            begun = worker.board.serial
            if worker.books.next - 1 <= begun:  # nothing waits
                continue
            if worker.books.find(begun) is None or worker.board.ended >= begun:
                look = min(look, self._look_at_mute(worker, begun, now))
                continue
            age = now - worker.board.start
            if age < patience and not (idle and _expected(worker, begun) > STUCK):
                look = min(look, patience - age)
                continue
            waiting = [serial for _, serial in worker.books.live(begun)]
            if idle and age < STUCK:  # it will be quicker with some of it
                waiting = waiting[len(waiting) // 2 :]
                look = min(look, STUCK - age)
            taken = self.take_back(worker, waiting)
            worker.quota += len(taken)
            worker.load = math.inf  # it gets nothing more before it has shown up again
            self.send_elsewhere(taken)
        return look

    def _look_at_mute(self, worker: Worker, begun: int, now: float) -> float:
        """Take back what a worker has not begun though nothing keeps it; return as `rebalance`.

        It may be stopped, or a thread that a task has left there may hold its interpreter. If it
        does nothing for long, it is ended. A large message may take its time, and so may a result.
        """
        age = now - max(worker.seen_at, worker.board.start)
        if worker.channel.unsent or worker.board.serial != begun:
            return MUTE
        if age < MUTE:
            return MUTE - age
        waiting = [serial for _, serial in worker.books.live(begun)]
        if waiting:
            self.send_elsewhere(self.take_back(worker, waiting))
            worker.load = math.inf
        elif age > _DEAF and worker.books.find(begun) is None:
            worker.board.call_attention(CONDEMNED)
            self._end(worker, worker.books.next)
            return 0.0
        return max(MUTE, _DEAF - age)

    def _unflag(self, worker: Worker, end: int) -> None:
        """Free the flags of items that a worker has passed."""
        if worker.flagged:
            for serial in [serial for serial in worker.flagged if serial < end]:
                worker.flagged.discard(serial)
                worker.board.unflag(serial)
            if not worker.flagged and worker.state is not State.CONDEMNED:
                worker.board.call_attention(0)

    def late(self, now: float, read: Callable[[Worker], None]) -> float:
        """Stop what is past its limit; return in how many seconds to look again.

        Args:
            now: The monotonic clock's time.
            read: Called to take in what a worker has sent, before it is condemned.
        """
        least, self.least_limit = self.least_limit, math.inf
        if least == math.inf or not (self.pending.peek() or any(w.books for w in self.workers)):
            return math.inf
        # In this order: who dispatches queues its batch first, then lowers the limit.
        look = self.least_limit = min(least, self.least_limit)
        for worker in list(self.workers):
            begun = worker.board.serial
            assignment = worker.books.find(begun)
            if assignment is None or assignment.parcel.terms.limit is None:
                continue
            limit, start = assignment.parcel.terms.limit, worker.board.start
            left = start + limit - now
            if worker.board.ended >= begun:  # in time, or nearly so; its result is on its way
                left = max(left, MUTE)
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

    def fail(self, batch: Batch, numbers: Collection[int]) -> None:
        """Let items of a broken pool fail."""
        self.endings.extend(Ending(batch, number, self.error) for number in numbers)

    def error(self) -> PoolBrokenError:
        """Return a new error that says why the pool is broken."""
        assert self.broken is not None
        error = PoolBrokenError(self.name, self.broken.reason)
        error.__cause__ = self.broken.__cause__
        return error


def _expected(worker: Worker, begun: int) -> float:
    """Return how long what waits at a worker should take, in seconds, as far as is known.

    Items may take longer than those by which the size of their chunk was chosen.
    """
    books = worker.books
    mean = books.assignments[-1].parcel.function.mean
    return (books.next - 1 - begun) * mean if mean < math.inf else 0.0


def _late(batch: Batch, number: int, limit: float) -> BaseException:
    return TaskTimeoutError(batch.describe(number), limit)
