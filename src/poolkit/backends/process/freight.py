"""Values that are too large for a message: their large parts go to a segment, side by side.

What is pickled comes in two forms. If it is small, as bytes. Else as a list: the stream of the
pickle, and the buffers that it refers to, each of them as bytes, or as where it begins and ends in
a segment.
"""

import pickle
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, Literal, Self

from ..._errors import TaskSerializationError
from .._plain import PLAIN
from .mapping import Landed

LIMIT: Final = 256 * 1024
"""Bytes from which on a buffer, or a stream, travels in a segment. What is smaller goes through the
socket in less time than a segment takes."""

Packed = Any
"""A pickled value: bytes, or a list of a stream and buffers, each of them bytes or a pair."""

# What one part of a message may measure; marshal can't do more.
_MOST_INLINE: Final = 2**31 - 1024
# Parts begin at multiples of this: what computes with them wants that.
_ALIGNMENT: Final = 64
_BULKY: Final = frozenset({bytes, bytearray, str})
# So many parts of a tuple or a list are looked at, lest looking cost more than it saves.
_MOST_LOOKS: Final = 16


class Aside(list[pickle.PickleBuffer]):
    """Takes the large buffers of a value that is being pickled; small ones stay in the stream."""

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        """Keep a buffer, or say that pickle is to copy it."""
        with memoryview(buffer) as view:
            if view.nbytes < LIMIT:
                return True
        self.append(buffer)
        return False


class Cargo:
    """A value that was pickled and is not copied yet: who changes its parts changes it."""

    __slots__ = ("buffers", "stream")

    def __init__(self, stream: list[Any], buffers: Aside) -> None:
        self.stream = stream
        """The pickle, in pieces."""
        self.buffers = buffers

    def inline(self) -> list[Any]:
        """Return a copy that needs no segment."""
        return [b"".join(self.stream), *map(bytes, self.buffers)]


def pack(
    value: object, dump: Callable[[Aside], bytes], *, by_reference: bool = True
) -> bytes | Cargo:
    """Pickle a value.

    Args:
        value: The value.
        dump: Pickles it, with its large buffers aside.
        by_reference: Whether plain pickle will do.

    Raises:
        TaskSerializationError: As `dump` does.
    """
    aside = Aside()
    try:
        if _is_bulky(value) and (by_reference or _is_built_in(value)):
            pieces = _dump_in_pieces(value, aside)
            if pieces is not None:
                return Cargo(pieces, aside)
        data = dump(aside)
    except BaseException:
        aside.clear()  # see `Layout.__exit__`
        raise
    return Cargo([data], aside) if aside or len(data) >= LIMIT else data


def _is_bulky(value: Any) -> bool:
    """Whether a value has large parts that pickle would copy into its stream."""
    if type(value) in _BULKY:
        return len(value) >= LIMIT
    parts: Any = value
    if type(value) is dict:
        parts = parts.values()
    elif type(value) is not tuple and type(value) is not list:
        return False
    for part in islice(parts, _MOST_LOOKS):  # noqa: SIM110 - at half the cost
        if type(part) in _BULKY and len(part) >= LIMIT:
            return True
    return False


def _is_built_in(value: Any) -> bool:
    """Whether nothing of it has a class that the other side might not find."""
    parts: Any = value
    return type(value) is tuple and set(map(type, parts)) <= PLAIN | {bytearray}


class _Pieces:
    """A file that keeps what is written to it. Pickle writes what is large by itself, uncopied."""

    __slots__ = ("write",)

    def __init__(self, pieces: list[Any]) -> None:
        self.write = pieces.append


def _dump_in_pieces(value: object, aside: Aside) -> list[Any] | None:
    """Return a pickle in pieces; None if it has to be tried otherwise."""
    pieces: list[Any] = []
    try:
        pickle.Pickler(_Pieces(pieces), 5, buffer_callback=aside).dump(value)
    except Exception:
        aside.clear()
        return None
    return pieces


class Layout:
    """Where everything goes in a segment. At its end, nothing of what was added can be used."""

    def __init__(self) -> None:
        self.size = 0
        self.placed: list[tuple[int, Any]] = []
        self._cargos: list[Cargo] = []

    def add(self, cargo: Cargo) -> list[Any]:
        """Find a place for a value; return its packed form."""
        self._cargos.append(cargo)
        length = sum(map(len, cargo.stream))
        stream: Any = b"".join(cargo.stream) if length < LIMIT else self._place(cargo.stream)
        return [stream, *(self._place([buffer.raw()]) for buffer in cargo.buffers)]

    def _place(self, pieces: Sequence[Any]) -> tuple[int, int]:
        start = at = -(-self.size // _ALIGNMENT) * _ALIGNMENT
        for piece in pieces:
            self.placed.append((at, piece))
            at += len(piece)
        self.size = at
        return start, at

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of what was to be placed.

        At once: an error keeps the frames that it was raised in, and all that called them. What is
        left there is the collector's, and it may clear a view before the `PickleBuffer` on it:
        CPython 3.11 and 3.12 crash at that.
        """
        while self.placed:
            _, piece = self.placed.pop()
            if type(piece) is memoryview:
                piece.release()
        for cargo in self._cargos:
            cargo.buffers.clear()


class Arrived:
    """A packed value, where it is to be unpickled."""

    __slots__ = ("_packed", "_segment")

    def __init__(self, packed: Packed, segment: "Landed | Exception | None" = None) -> None:
        """Take in a packed value, and its segment, or why that is lost."""
        self._packed = packed
        self._segment = segment

    def load(self) -> Any:
        """Unpickle it, once. Whatever it has of the segment keeps the segment."""
        packed, segment = self._packed, self._segment
        stream, *parts = packed
        self._segment = None  # an error's traceback may keep this, and must not keep the segment
        if isinstance(segment, Exception):
            raise segment
        content = None if segment is None else segment.view()
        del segment
        # As with what is in a segment, what has come in the message can be written to.
        buffers = [bytearray(p) if type(p) is bytes else _part(content, p) for p in parts]
        stream = stream if type(stream) is bytes else _part(content, stream)
        del content
        try:
            return pickle.loads(stream, buffers=buffers)
        finally:
            del stream, buffers


def arrived(packed: Packed, segment: "Landed | Exception | None" = None) -> Any:
    """Return a packed value as it can be loaded: bytes as they are, else an `Arrived`.

    Args:
        packed: The packed value; anything else is returned as it is.
        segment: As for `Arrived`.
    """
    return Arrived(packed, segment) if type(packed) is list else packed


def _part(content: memoryview | None, place: tuple[int, int]) -> memoryview:
    assert content is not None
    start, stop = place
    return content[start:stop]


def taken_out(entry: Any, read: Callable[[int, int], bytes]) -> Any:
    """Return what needs no segment: the same, if it is no list.

    Args:
        entry: Perhaps a packed value.
        read: Reads a part of its segment.
    """
    parts: list[Any] = entry
    if type(entry) is not list:
        return entry
    return [part if type(part) is bytes else read(*part) for part in parts]


def weigh(entry: Any) -> int:
    """Return how many bytes a message has of a packed value; of others, how many parts."""
    parts: list[Any] = entry
    if type(entry) is not list:
        return len(entry)
    return sum(len(part) for part in parts if type(part) is bytes)


def check_size(what: Literal["the arguments", "the result"], packed: Packed) -> Packed:
    """Return a packed value that is to go in a message.

    Raises:
        TaskSerializationError: It is too large for that.
    """
    most = len(packed) if isinstance(packed, bytes) else max(map(len, packed))
    if most <= _MOST_INLINE:
        return packed
    does = "Pass" if what == "the arguments" else "Return"
    raise TaskSerializationError(
        what, f"{most:,} bytes are too many", f"{does} the path of a file instead"
    )
