"""`Outcome`: what became of one input of a verb."""

from typing import Any, Generic, TypeVar

import attrs

from ._public import public

T = TypeVar("T")


@public
@attrs.frozen
class Outcome(Generic[T]):
    """One input's result or failure, with where and how long it ran.

    Attributes:
        index: Position of the input, from 0.
        args: The arguments that the function was called with.
        value: What it returned; None if it failed.
        error: What it raised, or why it could not finish; None if it succeeded.
        worker: Name of the worker that ran it; "" if none did.
        queued_s: Seconds between being handed to the pool and starting to run.
        run_s: Seconds between start and end of the run, measured in the worker.
    """

    index: int
    args: tuple[Any, ...]
    value: T | None
    error: BaseException | None
    worker: str
    queued_s: float
    run_s: float

    @property
    def ok(self) -> bool:
        """Whether the task returned a value."""
        return self.error is None

    def unwrap(self) -> T:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # None only if T allows it
