"""Running a parcel in a cluster's worker whose thread must not hang with a task that does.

The cluster's thread starts another one, from a stock of our own, that makes the calls, and listens.
A call that runs past its ``task_timeout``, or is given up from afar, is *abandoned*: the cluster's
thread returns without it, and so is free for other work, while the hung one goes on by itself.

Invariants:

* A parcel is in ``_listening`` from when it begins until its thread returns; in ``_revoked`` if it
  was taken back before. Both change under ``_lock``, so that one of the two comes first.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Final

from .._task import Run
from ._remote_worker import Message, Parcel, run_parcel

# So many parcels that were taken back are remembered, should the cluster still send them here.
_MOST_REVOKED: Final = 4096

_STOP: Final = "stop"

_lock = threading.Lock()  # guards the two below
_listening: "dict[str, queue.SimpleQueue[Any]]" = {}
_revoked: dict[str, None] = {}

# Changed by single, atomic operations.
_idle: "deque[queue.SimpleQueue[Callable[[], None]]]" = deque()


def supervise(name: str, parcel: Parcel, tell: Callable[[Message], object]) -> list[Message]:
    """Run a parcel's calls.

    Args:
        name: The parcel, for `end_parcels`.
        parcel: The calls.
        tell: Is told at once when the parcel has begun.

    Returns:
        What was heard of it, but only the first time that a call began.
        ``("late", number, duration)`` stands for a call that ran past its limit, and was the last.
    """
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with _lock:
        if name in _revoked:
            del _revoked[name]
            return []
        _listening[name] = inbox
    try:
        return _listen(inbox, parcel, tell)
    finally:
        with _lock:
            del _listening[name]


def _listen(
    inbox: "queue.SimpleQueue[Any]", parcel: Parcel, tell: Callable[[Message], object]
) -> list[Message]:
    run = Run(None)
    _begin(lambda: _run(parcel, run, inbox))
    heard: list[Message] = []
    number: int | None = None
    start: float | None = None
    while True:
        left = None
        if parcel.limit is not None and start is not None:
            left = max(0.0, start + parcel.limit - time.monotonic())
        try:
            message = inbox.get(timeout=left)
        except queue.Empty:
            assert start is not None
            run.ask_to_stop()
            heard.append(("late", number, time.monotonic() - start))
            return heard
        if message is None:
            return heard
        if message is _STOP:
            run.ask_to_stop()
            return []
        if message[0] == "began":
            if number is None:
                tell(message)
                heard.append(message)  # what was told may come late, or never
            number, start = message[1], time.monotonic()
        else:
            heard.append(message)


def _run(parcel: Parcel, run: Run, inbox: "queue.SimpleQueue[Any]") -> None:
    # With a limit, what has ended must be here when the next call is late.
    hold = None if parcel.limit is None else 0.0
    try:
        for message in run_parcel(parcel, run, hold):
            inbox.put(message)
    finally:
        inbox.put(None)


def have_begun(names: list[str]) -> list[bool]:
    """Say which parcels are under way here."""
    return [name in _listening for name in names]


def end_parcels(names: list[str], *, by_force: bool = False) -> list[bool]:
    """Take parcels back that have not begun here; they never will.

    Args:
        names: The parcels.
        by_force: Whether to give up those that have.

    Returns:
        Of each, whether it had not begun.
    """
    answers: list[bool] = []
    with _lock:
        for name in names:
            inbox = _listening.get(name)
            answers.append(inbox is None)
            if inbox is None:
                _revoked[name] = None
            elif by_force:
                inbox.put(_STOP)
        while len(_revoked) > _MOST_REVOKED:
            del _revoked[next(iter(_revoked))]
    return answers


def _begin(job: Callable[[], None]) -> None:
    """Have a thread of the stock do a job, in the context of this one."""
    jobs: queue.SimpleQueue[Callable[[], None]]
    try:
        jobs = _idle.pop()
    except IndexError:
        jobs = queue.SimpleQueue()
        threading.Thread(target=_serve, args=(jobs,), name="poolkit-task", daemon=True).start()
    jobs.put(partial(copy_context().run, job))


def _serve(jobs: "queue.SimpleQueue[Callable[[], None]]") -> None:
    while True:
        job = jobs.get()
        job()
        del job  # keep nothing alive while idle
        _idle.append(jobs)
