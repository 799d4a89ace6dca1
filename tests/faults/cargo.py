"""What travels badly, and the tasks that take it or return it."""

import mmap
import os
import pickle
import threading
from pathlib import Path
from typing import Any, NoReturn

import poolkit

from ..tasks import square
from .tasks import hang, tell


def exit_elsewhere(home: int, code: int) -> None:
    if os.getpid() != home:
        os._exit(code)


class DeadlyArgument:
    """Ends the process that unpickles it, unless it is the one that made it."""

    def __init__(self, code: int) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return exit_elsewhere, (os.getpid(), self.code)


class DeadlyResult:
    """Ends the process that pickles it."""

    def __init__(self, code: int) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        os._exit(self.code)


def hang_elsewhere(home: int) -> None:
    if os.getpid() != home:
        hang()


class EndlessArgument:
    """Takes for ever to unpickle, except where it was made."""

    def __reduce__(self) -> Any:
        return hang_elsewhere, (os.getpid(),)


class EndlessResult:
    """Takes for ever to pickle."""

    def __reduce__(self) -> Any:
        hang()


def endless_result() -> EndlessResult:
    return EndlessResult()


def deadly_result(code: int) -> DeadlyResult:
    return DeadlyResult(code)


def echo(value: Any) -> Any:
    return value


def echo_or_lock(value: Any) -> Any:
    return threading.Lock() if value == "lock" else value


def zeros(size: int) -> bytes:
    return bytes(size)


class Block:
    """Pickles its bytes as a buffer, which may travel out of band."""

    def __init__(self, data: Any) -> None:
        self.data = bytearray(data)

    def __reduce__(self) -> Any:
        return Block, (pickle.PickleBuffer(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and self.data == other.data

    def __hash__(self) -> int:
        return hash(bytes(self.data))


class Sheet:
    """Keeps the buffer with which it arrives, as arrays do."""

    def __init__(self, data: Any) -> None:
        self.data = memoryview(data)

    def __reduce__(self) -> Any:
        return Sheet, (pickle.PickleBuffer(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sheet) and (
            bytes(self.data) == bytes(other.data) and self.data.readonly == other.data.readonly
        )

    def __hash__(self) -> int:
        return hash(bytes(self.data))

    @property
    def is_mapped(self) -> bool:
        """Whether its bytes are where the sender has put them."""
        return isinstance(self.data.obj, mmap.mmap)


def number(sheet: Sheet) -> int:
    """Return what all bytes of a sheet are; they must not differ."""
    (number,) = set(bytes(sheet.data))
    return number


def is_mapped(sheet: Sheet) -> bool:
    return sheet.is_mapped


def overwrite(sheet: Sheet) -> Sheet:
    sheet.data[:] = bytes(len(sheet.data))
    return sheet


def spoil_and_die(sheet: Sheet, marker: Path) -> int:
    """Overwrite a sheet and die, the first time."""
    if marker.exists():
        return number(sheet)
    marker.touch()
    overwrite(sheet)
    os._exit(1)


kept: list[Sheet] = []


def keep(sheet: Sheet) -> int:
    """Keep an argument in the worker."""
    kept.append(sheet)
    return number(sheet)


def numbers_kept(_: object = None) -> list[int]:
    return [number(sheet) for sheet in kept]


def make_sheet(number: int, size: int) -> Sheet:
    return Sheet(bytearray([number]) * size)


class Lost(Exception):
    """An error with attributes of its own."""

    colour: str

    def __init__(self, key: str, place: int) -> None:
        super().__init__(key, place)
        self.place = place


def lose(key: str) -> NoReturn:
    try:
        raise LookupError("no such shelf")
    except LookupError as cause:
        error = Lost(key, 7)
        error.add_note("look under the sofa")
        error.colour = "blue"
        raise error from cause


class Abrupt(BaseException):
    """No `Exception`."""


def stop_abruptly(kind: str) -> NoReturn:
    raise {
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt("x"),
        "GeneratorExit": GeneratorExit("x"),
        "StopIteration": StopIteration("x"),
        "Abrupt": Abrupt("x"),
    }[kind]


class BadAt:
    """Raises an error of a given kind where it is unpickled, unless that is where it was made."""

    def __init__(self, kind: str, home: int | None = None) -> None:
        self.kind = kind
        self.home = os.getpid() if home is None else home

    def __reduce__(self) -> Any:
        return _raise_elsewhere, (self.kind, self.home)


def _raise_elsewhere(kind: str, home: int) -> "BadAt":
    if os.getpid() != home:
        stop_abruptly(kind)
    return BadAt(kind, home)


def bad_result(kind: str) -> BadAt:
    return BadAt(kind)


class BadError(Exception):
    """An error that can be unpickled only where it was raised."""

    def __reduce__(self) -> Any:
        return _bad_error, (os.getpid(),)


def _bad_error(home: int) -> BadError:
    if os.getpid() != home:
        raise RuntimeError("not here")
    return BadError()


def raise_bad_error() -> NoReturn:
    raise BadError("a shy one")


class Traced:
    """Tells when the worker's copy of it is deleted."""

    def __init__(self, mailbox: str) -> None:
        self.mailbox = mailbox
        self.home = os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.home:
            tell(self.mailbox, os.getpid())


class Value:
    """A result that can be watched."""


def make_value() -> Value:
    return Value()


def future_of_its_own() -> Any:
    with poolkit.make_executor("thread", 1) as pool:
        return pool.submit(square, 1)
