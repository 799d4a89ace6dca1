"""What comes back from workers: results, farewells, deaths; and what becomes of their items."""

import math
import time
from array import array
from functools import partial
from typing import Any

from ..._backend import Batch, Successes
from ..._errors import PoolBrokenError, WorkerCrashedError
from ..._records import EvenTimes
from .books import HOLE, Assignment
from .endings import Delivery, Ending, Packed
from .feeding import MOST_FAILURES
from .handle import State, Worker
from .recalling import Recalling


class Settling(Recalling):
    """The third layer of a pool: see `poolkit.backends.process.feeding`.

    Who takes an item off the books settles it, once: by a result, or by an `Ending`.
    """

    def ready(self, worker: Worker) -> None:
        """Note that a worker can be sent work."""
        if worker.state is State.STARTING:
            worker.state = State.READY

    def results(self, worker: Worker, message: Any, deliveries: list[Delivery]) -> None:
        """Strike items off that a worker has reported; deliver them, still packed, by batch."""
        first, when, values, errors = message
        if worker.loans:
            values = [worker.claim(value) for value in values]
        times: Any = array("d", when)
        if len(times) <= len(values):
            times = EvenTimes(times[0], times[-1], len(values))
        books, assignments = worker.books, worker.books.assignments
        skipped: list[tuple[Any, int]] = []
        serial, end = first, first + len(values)
        self.failures = 0
        while serial < end and assignments:
            assignment = assignments[0]
            numbers, offset = assignment.numbers, assignment.first - first
            low, high = serial - assignment.first, len(numbers)
            if end - assignment.first < high:
                high = end - assignment.first
            else:
                books.pass_first()
            if not errors and (run := _run_of(assignment, low, high, first, values, times)):
                run.worker = worker.name
                deliveries.append((assignment.batch, worker.name, run))
                assignment.parcel.function.observe(run.seconds / len(run))
                serial = assignment.first + high
                continue
            packed: Packed = []
            spent = 0.0
            for index in range(low, high):
                number, numbers[index] = numbers[index], HOLE
                if number == HOLE:
                    continue
                at = index + offset
                start, error = times[at], None
                if errors and at + first in errors:
                    error = errors[at + first]
                    if error is None:  # its flag was set just too late for us, in time for it
                        skipped.append((assignment.batch, number))
                        continue
                duration = times[at + 1] - start
                spent += duration
                packed.append((number, values[at], error, start, duration))
            if packed:
                deliveries.append((assignment.batch, worker.name, packed))
                assignment.parcel.function.observe(spent / len(packed))
            serial = assignment.first + high
        if worker.flagged:
            self._unflag(worker, end)
        if skipped:
            self.send_elsewhere(skipped)

    def took_in(self, worker: Worker) -> None:
        """Judge anew how busy a worker is, now that all it has sent was taken in."""
        books = worker.books
        worker.seen_at = time.monotonic()
        if books:
            worker.load = books.outstanding * books.assignments[-1].parcel.function.mean
        else:
            worker.load = 0.0

    def leaving(self, worker: Worker, last: int) -> None:
        """Take back what a worker that ends by itself has not begun."""
        if worker.state is State.READY:
            worker.state = State.LEAVING
        books = worker.books
        self.send_elsewhere([(a.batch, books.take(a, s)) for a, s in list(books.live(last))])
        books.assignments.clear()

    def bury(self, worker: Worker) -> None:
        """Settle the books of a worker that has ended, and of which all has been read."""
        self.workers.remove(worker)
        was, worker.state = worker.state, State.DEAD
        worker.kill_at = math.inf
        books, begun, ended = worker.books, worker.board.serial, worker.board.ended
        again: list[tuple[Any, int]] = []
        charged = False
        for assignment, serial in list(books.live()):
            number = books.take(assignment, serial)
            batch, hold = assignment.batch, assignment.parcel.terms.hold
            finished = serial < begun or ended == serial
            if serial > begun or (hold and finished and batch.may_repeat):
                again.append((batch, number))
                continue
            charged = True
            crash = partial(_crashed, batch, number, worker.pid, worker.exit_code)
            start = worker.board.start
            duration = max(0.0, time.monotonic() - start)
            self.endings.append(Ending(batch, number, crash, start, duration, worker.name))
        if charged:
            self.failures = 0
        elif was is State.STARTING or again:
            self.failures += 1
        code = worker.exit_code
        if code != 0 or charged or again or was is State.CONDEMNED:
            worker.end_group()
        worker.release()
        self.send_elsewhere(again)
        if self.failures >= MOST_FAILURES and self.broken is None:
            how = "unknown" if code is None else str(code)
            self.break_down(
                f"{self.failures} workers in a row ended before they were ready (the last with "
                f"exit code {how}; its error output may tell why). A script that uses processes "
                "must do so below: if __name__ == '__main__':"
            )

    def break_down(self, reason: str, cause: BaseException | None = None) -> None:
        """Refuse all further work and fail what has not started."""
        if self.broken is None:
            self.broken = PoolBrokenError(self.name, reason)
            self.broken.__cause__ = cause
        for batch in list(self.pending):
            self.fail(batch, batch.claim_rest())
        self.pending.clear()
        for worker in list(self.workers):
            rest = [s for _, s in worker.books.live(worker.board.serial)]
            self.send_elsewhere(self.take_back(worker, rest))
            if not worker.books:
                self.dismiss(worker)

    @property
    def done(self) -> bool:
        """Whether the pool is closed, and nothing of it is left."""
        return self.closing and not self.workers and self.pending.peek() is None


def _run_of(
    assignment: Assignment,
    low: int,
    high: int,
    first_serial: int,
    values: list[Any],
    times: Any,
) -> Successes | None:
    """Strike following items off at once; None if they are not, or few."""
    count, numbers = high - low, assignment.numbers
    first = numbers[low]
    if count < 2 or not assignment.is_run(low, high):
        return None
    numbers[low:high] = [HOLE] * count
    at = low + assignment.first - first_serial
    return Successes(first, values[at : at + count], times[at : at + count + 1], "")


def _crashed(batch: Batch, number: int, pid: int, exit_code: int | None) -> BaseException:
    return WorkerCrashedError(batch.describe(number), pid, exit_code)
