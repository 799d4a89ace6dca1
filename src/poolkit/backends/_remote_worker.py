"""What runs in a cluster's worker: a parcel of calls in, messages about them out.

Clusters differ in how a parcel gets here and how messages get back; see `_remote` for the other
side. The messages, in order:

* ``("began", number, worker, pid)``: before the first item; before each, if they have a limit.
* ``("ended", [ending, ...], now)``: how items ended, now and then and at the end. Times are
  those of this machine's monotonic clock, which says nothing elsewhere; so it comes along.
* ``("broken", error)``: the initializer failed, here, for good.

An *ending* is a number, the value, the pickled error or None, the start and the duration. A value
that is no plain one is a tuple of one: its pickled bytes.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from .._errors import RemoteTaskError
from .._task import Run, threads
from ._call import RemoteCall, judge
from ._plain import is_plain
from ._serialization import dump_error, dump_result, load_task
from ._tracebacks import without_our_frame

# Results are handed over at this pace, in seconds of work: each message costs a cluster about a
# millisecond.
HOLD: Final = 0.02

Entry = Any
"""The arguments of a call: a tuple of plain values, or the bytes of the pickled tuple."""
Message = tuple[Any, ...]
Ending = tuple[int, Any, bytes | None, float, float]


class Parcel(NamedTuple):
    """Some calls of one function, on their way to a worker; plain data."""

    pool: str
    """Which pool they are of: unique, for all machines."""
    initializer: bytes | None
    """What each worker has to call first, with its arguments, pickled."""
    call: bytes
    """The function and its keyword arguments, pickled."""
    items: list[tuple[int, Entry]]
    limit: float | None
    """The ``task_timeout``, in seconds."""
    attempt: int


class _Initialization:
    """That of one pool in this process; one thread makes it, and others wait for that."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards the fields below
        self.made = False
        self.failure: bytes | None = None


_initializations: dict[str, _Initialization] = {}
"""By pool. Changed by single, atomic operations."""


def _initialize(parcel: Parcel) -> bytes | None:
    """Call the initializer, once in this process; return its error, pickled, if it fails."""
    if parcel.initializer is None:
        return None
    mine = _initializations.setdefault(parcel.pool, _Initialization())
    with mine.lock:
        if not mine.made:
            mine.made = True
            try:
                initializer, initargs = load_task("the initializer", parcel.initializer)
                initializer(*initargs)
            except BaseException as error:
                mine.failure = _dump(without_our_frame(error))
        return mine.failure


def run_parcel(
    parcel: Parcel,
    run: Run | None = None,
    hold: float | None = None,
    goes_on: Callable[[], bool] = lambda: True,
) -> Iterator[Message]:
    """Run a parcel's calls, one after the other; see the module for what is yielded.

    Args:
        parcel: The calls.
        run: What `current_task` is to find; whoever gives it can ask it to stop.
        hold: At which pace results are handed over, in seconds; None for ours.
        goes_on: Asked before each call whether to make it and the rest.
    """
    failure = _initialize(parcel)
    if failure is not None:
        yield "broken", failure
        return
    if run is None:
        run = Run(None)
    run.batch = RemoteCall(parcel.limit, parcel.attempt)
    pid = os.getpid()
    worker = f"process {pid} on {socket.gethostname()}"
    if parcel.limit is not None:
        # What a new worker has to import must not count, or after the first late call none would
        # ever be in time. Should this fail, it will again, where that is reported.
        with contextlib.suppress(BaseException):
            load_task("the function", parcel.call)
    endings: list[Ending] = []
    told = False
    handed_over = time.monotonic()
    for number, entry in parcel.items:
        if not goes_on():
            return
        if parcel.limit is not None or not told:
            told = True
            yield "began", number, worker, pid
        endings.append(call_one(parcel.call, number, entry, run))
        now = time.monotonic()
        if now - handed_over >= (HOLD if hold is None else hold):
            yield "ended", endings, now
            endings = []
            handed_over = now
    if endings:
        yield "ended", endings, time.monotonic()


def call_one(call: bytes, number: int, entry: Entry, run: Run) -> Ending:
    """Make one call, and pack how it ended."""
    value: Any = None
    error: bytes | None = None
    fn: Any = None
    args: Any = ()
    run.number, run.token = number, None
    run.start = time.monotonic()
    outer, threads.run = threads.run, run
    try:
        fn, kwargs = load_task("the function", call)
        args = load_task("the arguments", entry) if type(entry) is bytes else entry
        run.start = time.monotonic()
        value = fn(*args, **kwargs)
        duration = time.monotonic() - run.start
        if not is_plain(value):
            value = (dump_result(value),)
    except BaseException as caught:
        duration = time.monotonic() - run.start
        value = None
        error = _dump(judge(without_our_frame(caught), run, duration, fn, args))
    finally:
        threads.run = outer
    return number, value, error, run.start, duration


def _dump(error: BaseException) -> bytes:
    """Pickle an error, whatever its own methods do."""
    try:
        return dump_error(error)
    except BaseException as failure:
        kind = type(error)
        name = f"{kind.__module__}.{kind.__qualname__}"
        reason = f"it can't be described, as that raises {type(failure).__name__}"
        return dump_error(RemoteTaskError(name, reason, ""))
