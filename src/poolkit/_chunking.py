"""How many items of a verb's input travel together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, Protocol

from ._checks import check_positive_int
from ._records import seconds_of

if TYPE_CHECKING:
    from ._records import Record

# More would make the first result of a chunk late without making the rest cheaper.
MOST: Final = 4096
# A chunk's arguments should take no more bytes: some of them are in memory at once for each worker.
MOST_BYTES: Final = 8 * 2**20
# What is kept of the weight of earlier items with each report.
MEMORY: Final = 0.75

Chunksize = int | Literal["auto"]


class Chunking(Protocol):
    """Decides the size of the next chunk."""

    size: int

    def observe(self, records: "Sequence[Record]") -> None:
        """Learn from results as they come in."""
        ...

    def weigh(self, size: float) -> None:
        """Learn how many bytes an item of the last chunk took on its way; 0 for few."""
        ...


class FixedChunks:
    """The size the caller asked for."""

    def __init__(self, size: int) -> None:
        self.size = size

    def observe(self, records: "Sequence[Record]") -> None:
        """A fixed size learns nothing."""

    def weigh(self, size: float) -> None:
        """Whoever asks for a size gets it."""


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
        self._limit = self._most = most
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
        self.size = max(1, min(round(fitting), 2 * self.size))

    def weigh(self, size: float) -> None:
        """Make no chunk of more than `MOST_BYTES`, but one of a single item."""
        most = self._limit
        if size * most > MOST_BYTES:
            most = max(1, int(MOST_BYTES / size))
        self._most = most
        self.size = min(self.size, most)


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
