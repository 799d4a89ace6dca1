"""How many items of a verb's input travel together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, Protocol

from ._checks import check_positive_int
from ._records import seconds_of

if TYPE_CHECKING:
    from ._records import Record

# More would make the first result of a chunk late without making the rest cheaper.
MOST: Final = 4096
# What is kept of the weight of earlier items with each report.
MEMORY: Final = 0.75

Chunksize = int | Literal["auto"]


class Chunking(Protocol):
    """Decides the size of the next chunk."""

    size: int

    def observe(self, records: "Sequence[Record]") -> None:
        """Learn from results as they come in."""
        ...


class FixedChunks:
    """The size the caller asked for."""

    def __init__(self, size: int) -> None:
        self.size = size

    def observe(self, records: "Sequence[Record]") -> None:
        """A fixed size learns nothing."""


class TimedChunks:
    """Chunks that run for about a given time, judged by what the items so far took.

    It starts at one and at most doubles at each observation, so that a few quick items can't
    lead to a chunk of many slow ones.

    Args:
        target: Seconds that a chunk should run.
        most: The most items of a chunk.
    """

    def __init__(self, target: float, most: int = MOST) -> None:
        self.size = 1
        self._target = target
        self._most = most
        # Of what came back, less and less of it as it gets older.
        self._seconds = 0.0
        self._items = 0.0

    def observe(self, records: "Sequence[Record]") -> None:
        """Take the mean over these items and, with less and less weight, those before them.

        Over items, not over reports: one slow item that comes alone would outweigh many quick ones.
        """
        self._seconds = MEMORY * self._seconds + seconds_of(records)
        self._items = MEMORY * self._items + len(records)
        mean = self._seconds / self._items
        target, most = self._target, self._most
        fitting = target / mean if mean > target / most else most
        self.size = max(1, min(int(fitting), 2 * self.size))


def check_chunksize(chunksize: Chunksize) -> None:
    """Check the ``chunksize`` argument of a verb."""
    if chunksize != "auto":
        check_positive_int('chunksize (if not "auto")', chunksize)


def make_chunking(chunksize: Chunksize, target: float, most: int | None = None) -> Chunking:
    """Return what the ``chunksize`` argument of a verb asks for.

    Args:
        chunksize: The argument.
        target: Seconds that a chunk should run, if its size is ours to find.
        most: The most items of a chunk; None for no limit but ours.
    """
    check_chunksize(chunksize)
    if chunksize == "auto":
        return TimedChunks(target, MOST if most is None else min(MOST, most))
    return FixedChunks(chunksize if most is None else min(chunksize, most))
