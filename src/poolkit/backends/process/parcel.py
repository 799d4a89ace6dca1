"""What a task is on its way to a worker, and a result on its way back.

Messages are marshalled: both ends run the same Python, and marshal is by far the quickest for
plain values. Whatever is not plain is pickled, each piece by itself, so that a bad one
fails alone: an entry of a message is a plain value, or pickled bytes in disguise (see `Entry`).
"""

import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final, NamedTuple

from ..._backend import Batch, Lone
from ..._errors import TaskSerializationError
from .._plain import LARGE, all_plain, plain_values
from .._serialization import dump_task
from .freight import Aside, Cargo, Layout, Packed, check_size, pack, weigh
from .lending import Shipment, Store

Entry = Any
"""Of arguments: a tuple of plain values, or the pickled tuple. Of results: a plain value, or a
tuple that holds the pickled value. What is pickled is bytes, or a list if it is large (see
`freight`)."""

# A function that is a global of a module is sent once to each worker, and named by number then.
# A program that makes modules without end must not fill the workers' memory.
_MOST_FUNCTIONS: Final = 2000
_MOST_PARCELS: Final = 64


# Whose arguments can't be sent, most of the time.
_NOBODY: Final[Mapping[int, TaskSerializationError]] = {}


class Terms(NamedTuple):
    """How a worker is to run the items of a batch."""

    limit: float | None
    hold: bool
    """Whether results may be held back, and so lost and repeated."""
    attempt: int
    timed: bool
    """Whether it matters when each item ran."""
    lone: bool
    """Whether entries are the only arguments of their calls, instead of tuples of arguments."""


class Function:
    """What is known of a function: its pickled name, its number, and how long calls take."""

    __slots__ = ("data", "mean", "number", "parcels")

    def __init__(self, number: int, data: bytes) -> None:
        self.number = number
        self.data = data
        self.mean = math.inf
        """Seconds that a call takes; infinite while nobody knows."""
        self.parcels: dict[Terms | float | None, Parcel] = {}
        """The parcels of batches that need none of their own, by their terms; those of single tasks
        by their limit."""

    def observe(self, seconds: float) -> None:
        """Learn from a call, or from the mean of several."""
        self.mean = seconds if self.mean == math.inf else (3 * self.mean + seconds) / 4


class Parcel:
    """A batch, packed: what is sent of it, besides the numbers of its items.

    Batches that differ only in plain arguments share one: of the objects that wait for a worker,
    each costs the collector time.
    """

    __slots__ = ("entries", "fn", "function", "kwargs", "large", "shipment", "terms", "wire")

    def __init__(
        self,
        function: Function,
        fn: bytes | None,
        kwargs: Packed | None,
        entries: list[Entry] | None,
        terms: Terms,
        shipment: Shipment | None = None,
    ) -> None:
        self.function = function
        self.fn = fn
        """The pickled function, where it has to be sent each time."""
        self.kwargs = kwargs
        self.entries = entries
        """One for each of the batch's items; None if the items are plain, and their own entries."""
        self.shipment = shipment
        """The segment that holds what is large of it, if anything is."""
        self.large = entries is not None and sum(map(weigh, entries)) > LARGE
        """Whether its message is. What is in a segment is not."""
        self.terms = terms
        self.wire: tuple[Any, ...] = (*terms, None)
        """The same as a message has it, with no segment to follow: marshal wants a plain tuple."""

    @property
    def weight(self) -> int:
        """How many bytes its arguments take, roughly."""
        if self.entries is None:
            return 0
        inline = sum(map(weigh, self.entries))
        return inline if self.shipment is None else inline + self.shipment.size

    def part(self, number: int, attempt: int) -> "Parcel":
        """Return the parcel of one item, for another attempt at it."""
        entries = None if self.entries is None else [self.entries[number]]
        terms = Terms(self.terms.limit, hold=False, attempt=attempt, timed=True, lone=False)
        return Parcel(self.function, self.fn, self.kwargs, entries, terms, self.shipment)


class Packer:
    """Packs tasks, in the threads that submit them; thread-safe.

    Args:
        main_is_shared: Whether workers find what is defined in ``__main__``.
        store: Where large buffers are copied to; None if they travel in the message.
    """

    def __init__(self, main_is_shared: bool, store: Store | None) -> None:
        self._main_is_shared = main_is_shared
        self.store = store
        # Both change by single, atomic operations; a number may be left out, but never given twice.
        self._functions: dict[Any, Function] = {}
        self._numbers = itertools.count(1)
        self._by_value = Function(0, b"")

    def _function(self, fn: Callable[..., Any]) -> tuple[Function, bytes | None]:
        """Return what is known of `fn`, and its bytes if they have to be sent each time.

        Raises:
            TaskSerializationError: It can't be sent.
        """
        named = type(fn) in (FunctionType, BuiltinFunctionType, type)
        known = self._functions.get(fn) if named else None
        # Asked each time: a worker that has yet to load it finds what its module has by then.
        if known is not None and _is_global(fn):
            return known, None
        hidden = not self._main_is_shared and getattr(fn, "__module__", None) == "__main__"
        data = dump_task("the function", fn, by_value=hidden)
        if hidden or not named or not _is_global(fn) or len(self._functions) >= _MOST_FUNCTIONS:
            return self._by_value, data
        known = self._functions.setdefault(fn, Function(next(self._numbers), data))
        return known, None

    def pack(self, batch: Batch) -> tuple[Parcel, Mapping[int, TaskSerializationError]]:
        """Pack a batch; return it with the errors of items that can't be sent.

        Raises:
            TaskSerializationError: The function, the keywords or the only item can't be sent.
        """
        function, fn = self._function(batch.fn)
        items = batch.items
        plain = all_plain(items) if type(items) is not Lone else plain_values(items.arguments)
        lone = plain and type(items) is Lone
        if plain and fn is None and not batch.kwargs:
            key: Any = batch.options.task_timeout  # for most submitted tasks, that is all
            if len(items) > 1 or lone or batch.attempt > 1:
                key = _terms(batch, lone=lone)
            shared = function.parcels.get(key)
            if shared is None:
                if len(function.parcels) >= _MOST_PARCELS:  # limits that are never the same
                    function.parcels.clear()
                shared = Parcel(function, None, None, None, _terms(batch, lone=lone))
                function.parcels[key] = shared
            return shared, _NOBODY
        refused: dict[int, TaskSerializationError] = {}
        entries: list[Entry] | None = None if plain else []
        packed: Packed | None = None
        shipment = None
        try:
            if entries is not None:
                self._add_entries(items, entries, refused)
            if batch.kwargs:
                packed = self._dump(dict(batch.kwargs))
            if Cargo in map(type, (packed, *(entries or ()))):
                shipment, packed, entries = self._ship(packed, entries, refused)
        except BaseException:  # its traceback keeps what we have: see `Layout`
            for cargo in (packed, *(entries or ())):
                if type(cargo) is Cargo:
                    cargo.buffers.clear()
            raise
        return Parcel(function, fn, packed, entries, _terms(batch, lone=lone), shipment), refused

    def _add_entries(
        self,
        items: Sequence[tuple[Any, ...]],
        entries: list[Entry],
        refused: dict[int, TaskSerializationError],
    ) -> None:
        """Pack the arguments of each item; those that can't be sent go to `refused`."""
        if len(items) == 1:
            entries.append(self._dump(items[0]))
            return
        for number, args in enumerate(items):
            try:
                entries.append(args if all_plain((args,)) else self._dump(args))
            except TaskSerializationError as error:
                refused[number] = error.with_traceback(None)  # which would be a cycle
                entries.append(b"")

    def _dump(self, arguments: object) -> bytes | Cargo:
        by_reference = self._main_is_shared

        def dump(aside: Aside | None) -> bytes:
            return dump_task("the arguments", arguments, prefer_value=not by_reference, aside=aside)

        if self.store is None:
            data: bytes = check_size("the arguments", dump(None))
            return data
        return pack(arguments, dump, by_reference=by_reference)

    def _ship(
        self,
        kwargs: bytes | Cargo | None,
        entries: list[Any] | None,
        refused: dict[int, TaskSerializationError],
    ) -> tuple[Shipment | None, Packed | None, list[Entry] | None]:
        """Copy what is large to a segment: from now on, nobody can change it.

        Where there can't be one, the message has it all.
        """
        assert self.store is not None
        with Layout() as layout:
            packed = layout.add(kwargs) if type(kwargs) is Cargo else kwargs
            stowed = None
            if entries is not None:
                stowed = [layout.add(e) if type(e) is Cargo else e for e in entries]
            try:
                segment = self.store.fill(layout.placed, layout.size)
            except OSError:
                if type(kwargs) is Cargo:
                    kwargs = check_size("the arguments", kwargs.inline())
                if entries is not None:
                    _inline(entries, refused)
                return None, kwargs, entries
            return Shipment(self.store, segment, layout.size), packed, stowed


def _terms(batch: Batch, *, lone: bool) -> Terms:
    options, single = batch.options, len(batch.items) == 1
    hold = not single and not options.at_most_once
    timed = not hold or batch.timed or options.task_timeout is not None
    return Terms(options.task_timeout, hold, batch.attempt, timed, lone)


def _inline(entries: list[Entry], refused: dict[int, TaskSerializationError]) -> None:
    """Have a message take all that was to go to a segment; what it can't goes to `refused`."""
    for number, entry in enumerate(entries):
        if type(entry) is Cargo:
            try:
                entries[number] = check_size("the arguments", entry.inline())
            except TaskSerializationError as error:
                refused[number], entries[number] = error, b""


def _is_global(fn: Any) -> bool:
    """Whether `fn` is what its module has under its name."""
    if getattr(sys.modules.get(fn.__module__), fn.__qualname__, None) is fn:  # as most are
        return True
    if type(fn) is BuiltinFunctionType and not isinstance(fn.__self__, ModuleType):
        return False  # a method, which takes its object along
    found: Any = sys.modules.get(fn.__module__)
    for name in fn.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is fn


def main_can_be_imported() -> bool:
    """Whether a new process can import what runs here as ``__main__``."""
    main = sys.modules.get("__main__")
    if getattr(getattr(main, "__spec__", None), "name", None):
        return True
    path = getattr(main, "__file__", None)
    return path is not None and not path.startswith("<")
