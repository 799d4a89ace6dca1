"""Items in bulk, without an object for each: what they are called with, and how they ended."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, cast, overload


class Lone(Sequence[tuple[Any]]):
    """Argument tuples of calls with one argument each; a tuple is made when somebody asks for it.

    Who calls millions of times takes the arguments as they are: making tuples, and having the
    collector look through them, costs as much as calling a function that does nothing.

    Attributes:
        arguments: The arguments; of an input that is yet to be pulled, any iterable of them.
    """

    __slots__ = ("arguments",)

    def __init__(self, arguments: Iterable[Any]) -> None:
        self.arguments = cast(Sequence[Any], arguments)

    def __len__(self) -> int:
        return len(self.arguments)

    @overload
    def __getitem__(self, index: int) -> tuple[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> "Lone": ...
    def __getitem__(self, index: int | slice) -> "tuple[Any] | Lone":
        found = self.arguments[index]
        return Lone(found) if isinstance(index, slice) else (found,)

    def __iter__(self) -> Iterator[tuple[Any]]:
        return zip(self.arguments, strict=True)


def argument_tuples(*iterables: Iterable[Any], strict: bool = False) -> Iterable[tuple[Any, ...]]:
    """Return the arguments of calls with one item of each iterable, for a `Hand` to pull.

    Args:
        iterables: One or more; each is asked for its iterator now.
        strict: Whether they have to be equally long.
    """
    if len(iterables) == 1:
        return Lone(iter(iterables[0]))
    return zip(*iterables, strict=strict)


class Record(NamedTuple):
    """How one item ended."""

    number: int
    """Which item: an index of `Batch.items`."""
    value: Any
    error: BaseException | None
    start: float
    """When it started, on the machine's monotonic clock (`time.monotonic`), in seconds."""
    duration: float
    """How long it ran, in seconds."""
    worker: str


make_record: Final = partial(tuple.__new__, Record)
"""Make a `Record` of a tuple of its fields: at half the cost, where one is made for each task."""


class Successes(Sequence[Record]):
    """Records of items with following numbers, all of which succeeded, one right after the other.

    Attributes:
        first: Number of the first item.
        values: What they returned. Belongs to whoever got this: it may be used up.
        times: When each began, and, last, when the last one ended.
        worker: Who ran them.
        small: Whether none of the values takes memory to speak of, as far as is known.
    """

    __slots__ = ("first", "small", "times", "values", "worker")

    def __init__(self, first: int, values: list[Any], times: Sequence[float], worker: str) -> None:
        self.first = first
        self.values = values
        self.times = times
        self.worker = worker
        self.small = False

    def __len__(self) -> int:
        return len(self.times) - 1

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> "Successes": ...
    def __getitem__(self, index: int | slice) -> "Record | Successes":
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            assert step == 1, "every other record is no run"
            times = self.times[start : max(start, stop) + 1]
            return Successes(self.first + start, self.values[start:stop], times, self.worker)
        if not 0 <= index < len(self):
            raise IndexError(index)
        start_time = self.times[index]
        duration = self.times[index + 1] - start_time
        return make_record(
            (self.first + index, self.values[index], None, start_time, duration, self.worker)
        )

    def __iter__(self) -> Iterator[Record]:
        return map(self.__getitem__, range(len(self)))

    @property
    def seconds(self) -> float:
        """How long they ran, all together."""
        return self.times[-1] - self.times[0]


class EvenTimes(Sequence[float]):
    """When items began, and the last one ended, as if all had taken equally long.

    Args:
        first: When the first one began.
        last: When the last one ended.
        count: How many items.
    """

    __slots__ = ("_count", "_first", "_step")

    def __init__(self, first: float, last: float, count: int) -> None:
        self._first = first
        self._step = (last - first) / count
        self._count = count

    def __len__(self) -> int:
        return self._count + 1

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> "EvenTimes": ...
    def __getitem__(self, index: int | slice) -> "float | EvenTimes":
        count = self._count + 1
        if type(index) is int:
            if -count <= index < count:
                return self._first + self._step * (index % count)
            raise IndexError(index)
        assert isinstance(index, slice)
        start, stop, step = index.indices(count)
        assert step == 1, "every other time would be that of no item"
        return EvenTimes(self[start], self[stop - 1], stop - 1 - start)


def seconds_of(records: Sequence[Record]) -> float:
    """Return how long items ran, all together."""
    if type(records) is Successes:  # a question to its abstract base would cost more than all else
        return records.seconds
    return sum(record.duration for record in records)
