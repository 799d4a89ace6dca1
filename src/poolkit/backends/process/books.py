"""The books of one worker: what it was sent and has not reported, by serial number.

Pure data, without locks; the pool's lock guards them.

Invariants:

* Assignments stand in the order of their serials, which have no gaps.
* An item is on the books from before its message is sent until it was reported, taken back or
  given up. Its place stays, as a hole, until the worker has passed it.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from ..._backend import Batch
from .parcel import Parcel

HOLE: Final = -1


class Assignment:
    """Items of one batch that travel together, in the order of their numbers."""

    __slots__ = ("batch", "first", "numbers", "parcel", "sent", "whole")

    def __init__(self, batch: Batch, parcel: Parcel, first: int) -> None:
        self.batch: Any = batch
        self.parcel = parcel
        self.first = first
        """The serial of its first item."""
        self.numbers: list[int] = []
        """The item of the batch for each serial; `HOLE` for what is settled or taken back."""
        self.sent = False
        self.whole = True
        """Whether none of its items was taken out of their turn."""

    @property
    def next(self) -> int:
        """The serial after its last."""
        return self.first + len(self.numbers)

    def is_run(self, low: int, high: int) -> bool:
        """Whether a part of its numbers, none of which is settled, follow one another."""
        first = self.numbers[low]
        return self.whole and first != HOLE and self.numbers[high - 1] - first < high - low


class Books:
    """What one worker has been sent, and how much of it is left."""

    def __init__(self) -> None:
        self.assignments: deque[Assignment] = deque()
        self._passed = 0

    def __bool__(self) -> bool:
        return bool(self.assignments)

    @property
    def next(self) -> int:
        """The serial of the next item to be sent.

        It follows from the assignments, lest an interrupt leave the two at odds.
        """
        return self.assignments[-1].next if self.assignments else self._passed + 1

    @property
    def outstanding(self) -> int:
        """How many serials the worker has not passed."""
        return self.next - self.assignments[0].first if self.assignments else 0

    def live(self, after: int = 0) -> Iterator[tuple[Assignment, int]]:
        """Iterate over items with a serial greater than `after`, and their serials."""
        for assignment in self.assignments:
            if assignment.next <= after + 1:
                continue
            for serial, number in enumerate(assignment.numbers, assignment.first):
                if serial > after and number != HOLE:
                    yield assignment, serial

    def find(self, serial: int) -> Assignment | None:
        """Return the assignment of an item that is not settled."""
        for assignment in self.assignments:
            if assignment.first <= serial < assignment.next:
                return assignment if assignment.numbers[serial - assignment.first] != HOLE else None
        return None

    def serial_of(self, batch: Batch, number: int) -> int | None:
        """Return the serial of an item that is not settled."""
        for assignment in self.assignments:
            if assignment.batch is batch and number in assignment.numbers:
                return assignment.first + assignment.numbers.index(number)
        return None

    def take(self, assignment: Assignment, serial: int) -> int:
        """Strike an item off; return its number. Whoever does so settles it or sends it again."""
        index = serial - assignment.first
        assignment.whole = False  # before it is true, as an interrupt may come in between
        number, assignment.numbers[index] = assignment.numbers[index], HOLE
        return number

    def pass_first(self) -> None:
        """Forget the first assignment, all of which the worker has reported."""
        self._passed = self.assignments[0].next - 1
        self.assignments.popleft()
