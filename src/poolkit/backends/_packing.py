"""Packing a batch for workers that may be on another machine, and unpacking what they send."""

import pickle
from collections.abc import Sequence
from typing import cast

from .._backend import Batch, Record, make_record
from .._errors import TaskSerializationError
from ._plain import all_plain
from ._remote_worker import Ending, Entry
from ._serialization import dump_task, load_error, load_result


class Packed:
    """A batch's function and arguments, pickled: each piece by itself."""

    __slots__ = ("call", "entries")

    def __init__(self, call: bytes, entries: Sequence[Entry]) -> None:
        self.call = call
        self.entries = entries

    def part(self, number: int) -> "Packed":
        """Return what another attempt at one item needs."""
        return Packed(self.call, [self.entries[number]])


def pack_for(batch: Batch) -> bool:
    """Make a batch's parcel; report what can't be sent, and say whether anything is left."""
    packed: Packed | None = batch.origin.parcel
    if packed is not None:  # another attempt, at what was pickled when it was submitted
        batch.parcel = packed.part(batch.item)
        return bool(batch.todo)
    try:
        batch.parcel, refused = _pack(batch)
    except TaskSerializationError as error:
        batch.report_failed(batch.claim_rest(), error)
        return False
    for number, refusal in refused.items():
        if batch.claim(number):
            batch.report_failed([number], refusal)
    return bool(batch.todo)


def _pack(batch: Batch) -> tuple[Packed, dict[int, TaskSerializationError]]:
    """Pack a batch; return it with the errors of items that can't be sent.

    Raises:
        TaskSerializationError: The function or its keywords can't be sent.
    """
    call = dump_afar("the task", (batch.fn, dict(batch.kwargs)))
    if all_plain(batch.items):
        return Packed(call, batch.items), {}
    entries: list[Entry] = []
    refused: dict[int, TaskSerializationError] = {}
    for number, args in enumerate(batch.items):
        try:
            entries.append(args if all_plain((args,)) else dump_afar("the arguments", args))
        except TaskSerializationError as error:
            refused[number] = error
            entries.append(())
    return Packed(call, entries), refused


def dump_afar(what: str, value: object) -> bytes:
    """Pickle something for a worker that can't import this program's ``__main__``.

    Raises:
        TaskSerializationError: It can't be pickled.
    """
    try:
        data = pickle.dumps(value, 5)
    except Exception:
        return dump_task(what, value)
    return data if b"__main__" not in data else dump_task(what, value, prefer_value=True)


def unpack(ending: Ending, worker: str, ahead: float = 0.0) -> Record:
    """Return how an item ended; whatever goes wrong in unpacking is its own failure.

    Args:
        ending: As it came.
        worker: Who ran it.
        ahead: How much our clock is ahead of the worker's, in seconds.
    """
    number, value, error, start, duration = ending
    failure: BaseException | None = None
    try:
        if error is not None:
            failure = load_error(error)
        elif type(value) is tuple:
            value = load_result(cast(tuple[bytes], value)[0])
    except BaseException as refusal:  # it runs code of the user's
        value, failure = None, refusal
    return make_record((number, value, failure, start + ahead, duration, worker))
