"""`Outcome`: what became of one input of a verb."""

from collections.abc import Iterable
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
        attempts: How often it was tried; more than once only with a `Retry`.
        worker: Name of the worker that ran it; "" if none did. Of several attempts, the last.
        queued_s: Seconds between being handed to the pool and starting to run; of the last
            attempt, not counting the pause before it.
        run_s: Seconds between start and end of the run, measured in the worker; of the last
            attempt.
    """

    index: int
    args: tuple[Any, ...]
    value: T | None
    error: BaseException | None
    attempts: int
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


@public
def collect(outcomes: Iterable[Outcome[T]]) -> list[T]:
    """Return the values of all outcomes, in the order of the input; or raise all failures.

    All or nothing, but never "the first failure and silence about the others"::

        digests = collect(map_outcomes(pool, digest, paths))

    Args:
        outcomes: Outcomes of one verb, in any order. They are all waited for.

    Raises:
        ExceptionGroup: Some failed; it holds their errors, in the order of the input, each with a
            note that names its call. (A `BaseExceptionGroup` if any is no `Exception`.)
    """
    ended = sorted(outcomes, key=lambda outcome: outcome.index)
    errors = [outcome.error for outcome in ended if outcome.error is not None]
    if errors:
        try:
            raise BaseExceptionGroup(f"{len(errors)} of {len(ended)} tasks failed", errors)
        finally:
            del ended, errors  # a traceback that holds its own error would be a cycle
    return [outcome.unwrap() for outcome in ended]
