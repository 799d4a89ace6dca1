"""`FaultyBatch`: a batch on its way to the pool behind, with what befalls its items."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from .._backend import Batch, Record
from ..backends._stand_in import StandIn
from ._fault_calls import Fault, FaultyCall
from ._fault_slot import InFront

if TYPE_CHECKING:
    from ._fault_backend import FaultyBackend


class FaultyBatch(StandIn):
    """A batch as the pool behind knows it, which shares the original's life.

    Args:
        inner: The original.
        front: The pool that it was given to.
        faults: What befalls which of its items.
    """

    __slots__ = ("front", "noted")

    def __init__(
        self, inner: Batch, front: "FaultyBackend", faults: Mapping[int, Iterable[Fault]]
    ) -> None:
        super().__init__(inner)
        self.front = front
        self.noted: dict[int, Sequence[int]] = {}
        """Where each item that is struck stands in the plan's record."""
        if faults:
            self.items = [
                (*args, tuple(faults.get(number, ()))) for number, args in enumerate(inner.items)
            ]
        if faults or front.shares_threads:
            self.fn = FaultyCall(inner.fn, bool(faults), front if front.shares_threads else None)

    @property
    def unfinished_parts(self) -> Sequence[Batch]:
        return [self.front.sent(part) for part in self.inner.unfinished_parts]

    def report(self, records: Sequence[Record]) -> None:
        with InFront(self.front):
            super().report(records)

    def empty(self) -> None:
        """Keep nothing of what was taken back: it may stand in a queue for long."""
        self.fn, self.items, self.kwargs, self.parcel = _taken_back, ((),), {}, None


def _taken_back() -> None:
    """Stand in for the function of a task that was taken back."""
