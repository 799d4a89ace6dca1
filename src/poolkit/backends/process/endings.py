"""How items end: with a result that has come, or without one."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from ..._backend import Batch, Record, Successes, make_record
from .._plain import FIXED
from .._serialization import load_error, load_result
from .freight import arrived

Packed = list[tuple[int, Any, bytes | None, float, float]]
"""Results as they came: number, value, error, start and duration of each."""
Run = Packed | Successes
"""The same of any items, or of following ones that all succeeded: their values still packed."""
Delivery = tuple[Batch, str, Run]
"""The results of a batch's items, and the worker that sent them."""


class Ending:
    """How an item ended of which its worker brought no result."""

    __slots__ = ("batch", "duration", "make_error", "number", "start", "worker")

    def __init__(
        self,
        batch: Batch,
        number: int,
        make_error: Callable[[], BaseException],
        start: float = 0.0,
        duration: float = 0.0,
        worker: str = "",
    ) -> None:
        self.batch = batch
        self.number = number
        # Called without the lock, as it may show arguments, which runs their code.
        self.make_error = make_error
        self.start = start
        self.duration = duration
        self.worker = worker

    def report(self) -> None:
        """Settle the item."""
        try:
            error = self.make_error()
        except BaseException as failure:  # it runs the arguments' code
            error = failure
        record = Record(self.number, None, error, self.start, self.duration, self.worker)
        self.batch.report([record])


def unpack_run(worker: str, run: Run) -> Sequence[Record]:
    """Unpickle results; whatever goes wrong there is that item's own failure."""
    if type(run) is not Successes:  # `isinstance` would ask its abstract base, at great cost
        return [unpack(worker, *each) for each in cast(Packed, run)]
    types = set(map(type, run.values))
    if tuple not in types:  # all plain
        run.small = types <= FIXED
        return run
    return [unpack(worker, r.number, r.value, None, r.start, r.duration) for r in run]


def unpack(
    worker: str, number: int, entry: Any, error: bytes | None, start: float, duration: float
) -> Record:
    """Unpickle a result or an error; whatever goes wrong there is the item's own failure."""
    value: Any = entry
    failure: BaseException | None = None
    try:
        if error is not None:
            failure = load_error(error)
        elif type(entry) is tuple:
            (packed,) = cast(tuple[Any], entry)
            value = load_result(arrived(packed))
    except BaseException as refusal:  # it runs code of the user's
        value, failure = None, refusal
    return make_record((number, value, failure, start, duration, worker))
