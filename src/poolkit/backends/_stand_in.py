"""`StandIn`: a batch as some workers know it, while everybody else knows the original."""

from collections.abc import Sequence

from .._backend import Batch, Record


class StandIn(Batch):
    """Shares the original's ``todo`` and ``running``, and so its life; what is called may differ.

    Args:
        inner: The original.
    """

    __slots__ = ("attempt", "inner", "item")

    def __init__(self, inner: Batch) -> None:
        # All fields at once: to copy the current context, as a new batch does, would be in vain.
        self.fn = inner.fn
        self.items = inner.items
        self.kwargs = inner.kwargs
        self.options = inner.options
        self.context = inner.context
        self.todo = inner.todo
        self.running = inner.running
        self.parcel = None
        self.attempt = inner.attempt
        self.item = inner.item
        self.inner = inner

    @property
    def unwanted(self) -> bool:  # type: ignore[override]
        return self.inner.unwanted

    @property
    def may_repeat(self) -> bool:  # type: ignore[override]
        return self.inner.may_repeat

    @property
    def origin(self) -> Batch:
        return self.inner.origin

    @property
    def unfinished_parts(self) -> Sequence[Batch]:
        return self.inner.unfinished_parts

    def describe(self, number: int) -> str:
        return self.inner.describe(number)

    def report(self, records: Sequence[Record]) -> None:
        self.inner.report(records)
