"""`Retry`: whether, how often and after what pause a failed task is tried again."""

import logging
import random
from collections.abc import Callable
from typing import Any, Final

import attrs

from ._checks import check_positive_int, check_seconds
from ._describe import short_repr
from ._errors import (
    PoolBrokenError,
    PoolShutdownError,
    TaskAbortedError,
    TaskCancelled,
    TaskSerializationError,
    TaskTimeoutError,
    WorkerCrashedError,
)
from ._public import public

_log = logging.getLogger("poolkit")

# Somebody wanted these to end, or they would end the same way again; whatever `on` says.
_FINAL: Final = (
    TaskAbortedError,
    TaskCancelled,
    PoolBrokenError,
    PoolShutdownError,
    TaskSerializationError,
)

Errors = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]


def _check_attempts(_retry: Any, _field: Any, value: Any) -> None:
    check_positive_int("attempts", value)


def _is_error_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _check_on(_retry: Any, _field: Any, value: Any) -> None:
    good: bool
    if isinstance(value, tuple):
        good = all(map(_is_error_class, value))  # pyright: ignore[reportUnknownArgumentType]
    else:
        good = _is_error_class(value) if isinstance(value, type) else callable(value)
    if not good:
        raise TypeError(
            "on must be an exception class, a tuple of them, or a function of the error that "
            f"says whether to try again; not {value!r:.80}"
        )


def _to_seconds(value: Any) -> float:
    return 0.0 if value is None else check_seconds("wait and max_wait", value, allow_zero=True) or 0


@public
@attrs.frozen
class Retry:
    """How failed tasks are tried again: ``make_executor(..., retry=Retry(attempts=5))``.

    A task that waits for its next attempt holds no worker and no thread. Unlike a decorator on
    the function, this covers what kills or outlives a function: crashed workers and time-outs.
    Each attempt has the whole ``task_timeout``. The pauses grow as ``wait``, 2 · ``wait``,
    4 · ``wait``..., up to ``max_wait``, and each is a random part of that: "full jitter", after
    Marc Brooker's "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), so that tasks
    that failed together don't come back together.

    Never tried again, whatever ``on`` says: what was aborted or cancelled, what can't be pickled,
    and all tasks of a pool that is broken, or was told to cancel its tasks.

    Attributes:
        attempts: How often a task is tried, the first time included.
        on: Which errors are worth another attempt: a class, a tuple of classes, or a function of
            the error. It is called by pool threads and must not block.
        wait: Seconds before the second attempt, at most.
        max_wait: Seconds before any attempt, at most.
        jitter: Whether to wait a random part of that, or all of it.
    """

    attempts: int = attrs.field(default=3, validator=_check_attempts)
    on: Errors = attrs.field(
        default=(OSError, WorkerCrashedError, TaskTimeoutError), validator=_check_on
    )
    wait: float = attrs.field(default=0.1, converter=_to_seconds)
    max_wait: float = attrs.field(default=30.0, converter=_to_seconds)
    jitter: bool = True

    def wants(self, error: BaseException, attempt: int) -> bool:
        """Whether to try again after this error of attempt number ``attempt``; never raises."""
        if attempt >= self.attempts or isinstance(error, _FINAL):
            return False
        if isinstance(self.on, (type, tuple)):
            return isinstance(error, self.on)
        try:
            return bool(self.on(error))
        except BaseException:  # it must not stop the thread that settles others
            _log.exception("the predicate of a Retry failed for %s", short_repr(error))
            return False

    def pause(self, attempt: int, draw: Callable[[], float] = random.random) -> float:
        """Return how many seconds to wait after attempt number ``attempt``.

        Args:
            attempt: Which attempt has failed, from 1.
            draw: Returns a random number from 0 to 1.
        """
        longest = min(self.max_wait, self.wait * 2.0 ** min(attempt - 1, 1000))
        return longest * draw() if self.jitter else longest
