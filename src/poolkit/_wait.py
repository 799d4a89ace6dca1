"""`wait` and `as_completed`: the standard library's contracts, safe inside a task of the same pool.

Outside of tasks they are the standard library's own functions. Inside, the task's worker lends
its slot while it waits, which the standard library's functions can't know to do.
"""

import concurrent.futures
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, Future
from concurrent.futures._base import DoneAndNotDoneFutures
from typing import Any, Final, TypeVar

from ._clock import SYSTEM_CLOCK, Clock, nap
from ._future import TaskControl, TaskFuture
from ._public import public
from ._task import threads, waiting_for

T = TypeVar("T")

# To take many futures' locks, and to give them back, takes time; so much longer is a nap for each.
_PER_FUTURE: Final = 1e-4


@public
def wait(
    fs: Iterable[Future[T]], timeout: float | None = None, return_when: str = ALL_COMPLETED
) -> DoneAndNotDoneFutures[T]:
    """Wait for futures of any executors; inside a task too, on futures of its own pool.

    Args:
        fs: The futures; duplicates count once.
        timeout: Seconds to wait at most; None for no limit.
        return_when: ``"FIRST_COMPLETED"``, ``"FIRST_EXCEPTION"`` or ``"ALL_COMPLETED"``.

    Returns:
        A named pair of sets, ``done`` and ``not_done``. Running out of time is no error.

    Raises:
        DeadlockError: In a task: the futures' tasks wait for this one.
    """
    fs = set(fs)
    try:
        return _wait(fs, timeout, return_when)
    except BaseException:
        _let_go(fs)
        raise


def _wait(fs: set[Future[T]], timeout: float | None, return_when: str) -> DoneAndNotDoneFutures[T]:
    missing = [future for future in fs if not future.done()]
    if not missing or not threads.in_pool:
        return _wait_in_naps(fs, timeout, return_when, len(missing))
    if len(missing) == 1 and timeout is None and (controls := _controls(missing)):
        controls[0].run_here()
    any_of = return_when != ALL_COMPLETED

    def come() -> bool:
        done = {future for future in fs if future.done()}
        return _enough(DoneAndNotDoneFutures(done, fs - done), return_when)

    with _waiting_for(missing, any_of=any_of, timeout=timeout, come=come) as late:
        return concurrent.futures.wait(fs, 0 if late else timeout, return_when)


def _wait_in_naps(
    fs: set[Future[T]], timeout: float | None, return_when: str, missing: int
) -> DoneAndNotDoneFutures[T]:
    """Do what the standard library's `wait` does, and lose no Ctrl-C."""
    end = math.inf if timeout is None else time.monotonic() + timeout
    while True:
        left = nap(end - time.monotonic())
        if left is not None and left > 0:  # to begin anew takes time, too
            left = min(left + missing * _PER_FUTURE, end - time.monotonic())
        found = concurrent.futures.wait(fs, left, return_when)
        if _enough(found, return_when) or time.monotonic() >= end:
            return found


def _enough(found: DoneAndNotDoneFutures[T], return_when: str) -> bool:
    if not found.not_done or return_when == FIRST_COMPLETED:
        return not found.not_done or bool(found.done)
    return return_when == FIRST_EXCEPTION and any(
        not future.cancelled() and future.exception() is not None for future in found.done
    )


@public
def as_completed(fs: Iterable[Future[T]], timeout: float | None = None) -> Iterator[Future[T]]:
    """Yield futures of any executors as they complete; inside a task too, of its own pool.

    Args:
        fs: The futures; duplicates are yielded once.
        timeout: Seconds from the first ``next`` until the last one must have been yielded; None
            for no limit.

    Raises:
        TimeoutError: From the iterator: not all were done in time; the tasks go on.
        DeadlockError: From the iterator, in a task: the futures' tasks all wait for this one.
    """
    missing = dict.fromkeys(fs)
    clock = _clock_of(missing)
    end = None if timeout is None else clock.monotonic() + timeout
    try:
        # The standard library's would yield these in the order of their addresses.
        for future in [future for future in missing if future.done()]:
            del missing[future]
            handover = [future]
            del future
            yield handover.pop()
        completed = concurrent.futures.as_completed(list(missing), _left(clock, end))
        while missing:
            done = [_next(completed, missing, _left(clock, end))]
            missing.pop(done[0], None)
            yield done.pop()  # and keep no future that was yielded: its result may be large
    except BaseException:
        _let_go(missing)
        raise


def _left(clock: Clock, end: float | None) -> float | None:
    return None if end is None else max(0.0, end - clock.monotonic())


def _clock_of(futures: Collection[Future[Any]]) -> Clock:
    """Return the clock by which a wait for these is limited."""
    backends = [control.backend for control in _controls(futures)] if threads.hosted else []
    return next((backend.clock for backend in backends if backend.hosted), SYSTEM_CLOCK)


def _next(
    completed: Iterator[Future[T]], missing: Collection[Future[T]], timeout: float | None
) -> Future[T]:
    def come() -> bool:
        return any(future.done() for future in missing)

    if not threads.in_pool or come():
        return next(completed)
    with _waiting_for(missing, any_of=True, timeout=timeout, come=come) as late:
        if late:
            raise TimeoutError(f"{len(missing)} futures unfinished")
        return next(completed)


def _let_go(futures: Iterable[Future[Any]]) -> None:
    for future in futures:
        if isinstance(future, TaskFuture):
            future._let_go()


def _controls(futures: Collection[Future[Any]]) -> list[Any]:
    controls: list[TaskControl | None] = [
        future._control for future in futures if isinstance(future, TaskFuture)
    ]
    return [control for control in controls if control is not None]


def _waiting_for(
    futures: Collection[Future[Any]],
    *,
    any_of: bool,
    timeout: float | None,
    come: Callable[[], bool],
) -> Any:
    controls = _controls(futures)
    # Of somebody else's futures, nobody knows what they wait for; they may end at any time. If
    # all are needed, one that can't end is enough.
    known = not any_of or len(controls) == len(futures)
    untimed = timeout is None and known
    return waiting_for(controls, any_of=any_of, untimed=untimed, come=come, timeout=timeout)
