"""`wait` and `as_completed`: the standard library's contracts, for any futures."""

import concurrent.futures
from collections.abc import Iterable, Iterator
from concurrent.futures import ALL_COMPLETED, Future
from typing import TypeVar

T = TypeVar("T")


def wait(
    fs: Iterable[Future[T]], timeout: float | None = None, return_when: str = ALL_COMPLETED
) -> "concurrent.futures._base.DoneAndNotDoneFutures[T]":
    """Wait for futures of any executors.

    Args:
        fs: The futures; duplicates count once.
        timeout: Seconds to wait at most; None for no limit.
        return_when: ``"FIRST_COMPLETED"``, ``"FIRST_EXCEPTION"`` or ``"ALL_COMPLETED"``.

    Returns:
        A named pair of sets, ``done`` and ``not_done``. Running out of time is no error.
    """
    return concurrent.futures.wait(fs, timeout, return_when)


def as_completed(fs: Iterable[Future[T]], timeout: float | None = None) -> Iterator[Future[T]]:
    """Yield futures of any executors as they complete.

    Args:
        fs: The futures; duplicates are yielded once.
        timeout: Seconds from this call until the last one must have been yielded; None for no
            limit.

    Raises:
        TimeoutError: Not all were done in time; the tasks go on.
    """
    return concurrent.futures.as_completed(fs, timeout)
