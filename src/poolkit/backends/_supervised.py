"""Running a parcel in a cluster's worker whose thread must not hang with a task that does.

The cluster's thread starts another one, from a stock of our own, that makes the calls, and listens.
A call that runs past its ``task_timeout``, or is given up from afar, is *abandoned*: the cluster's
thread returns without it, and so is free for other work, while the hung one goes on by itself.

Invariants:

* A parcel is in ``_revoked`` if it was taken back before it began; else, from then on, in
  ``_listening`` until its thread returns, and in ``_over`` after that. All change under ``_lock``.
  So a parcel that was taken back never begins, and of one that has begun that is always known.
* The caller's thread says what it does under the parcel's lock, and only if it was not abandoned;
  who abandons it holds that lock, too, and has heard everything. So no call is made that is also
  sent elsewhere as not begun.
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
from ._remote_worker import Ending, Message, Parcel, run_parcel

# So many parcels that were taken back are remembered, should the cluster still send them here; and
# so many that have ended, for those who ask before they have heard of it.
_MOST_REMEMBERED: Final = 16_384

_STOP: Final = ("stop",)
_ASK: Final = ("ask",)

_lock = threading.Lock()  # guards the three below
_listening: "dict[str, _Supervision]" = {}
_revoked: dict[str, None] = {}
_over: dict[str, None] = {}

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
    supervision = _Supervision(parcel)
    with _lock:
        if name in _revoked:
            del _revoked[name]
            return []
        _listening[name] = supervision
    try:
        return supervision.listen(tell)
    finally:
        with _lock:
            _listening.pop(name, None)
            _remember(_over, [name])


class _Supervision:
    """A parcel under way: the calls in one thread, this one in another."""

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel
        self._run = Run(None)
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards `_abandoned`, and what the caller says
        self._abandoned = False

    def listen(self, tell: Callable[[Message], object]) -> list[Message]:
        """Have the calls made, and return what is heard of them."""
        _begin(self._make_calls)
        limit = self._parcel.limit
        heard: list[Message] = []
        endings: list[Ending] = []
        number: int | None = None
        start: float | None = None
        while True:
            left = None
            if limit is not None and start is not None:
                left = max(0.0, start + limit - time.monotonic())
            try:
                message = self.inbox.get(timeout=left)
            except queue.Empty:
                if not self._abandon(even_if_heard=False):
                    continue  # it has just ended
                assert start is not None
                late = ("late", number, time.monotonic() - start)
                return [*heard, *_bundled(endings), late]
            if isinstance(message, BaseException):  # of ours, not a call's
                raise RuntimeError(f"the worker failed: {message!r:.500}")
            if message is None:
                return [*heard, *_bundled(endings)]
            if message is _STOP:
                self._abandon(even_if_heard=True)
                return []
            if message is _ASK:
                self._run.ask_to_stop()
            elif message[0] == "began":
                if number is None:
                    tell(message)
                    heard.append(message)  # what was told may come late, or never
                number, start = message[1], time.monotonic()
            elif message[0] == "ended":
                endings += message[1]
            else:
                heard.append(message)

    def _abandon(self, *, even_if_heard: bool) -> bool:
        """Leave the call to itself, and ask it to stop; False if it has said more."""
        with self._lock:
            if not even_if_heard and not self.inbox.empty():
                return False
            self._abandoned = True
        self._run.ask_to_stop()
        return True

    def _make_calls(self) -> None:
        # With a limit, what has ended must be here when the next call is late.
        hold = None if self._parcel.limit is None else 0.0
        try:
            for message in run_parcel(self._parcel, self._run, hold, self._goes_on):
                if not self._say(message):
                    return
        except BaseException as failure:
            self._say(failure)
        else:
            self._say(None)

    def _say(self, message: Any) -> bool:
        with self._lock:
            if not self._abandoned:
                self.inbox.put(message)
            return not self._abandoned

    def _goes_on(self) -> bool:
        return not self._abandoned


def _bundled(endings: list[Ending]) -> list[Message]:
    """Return one message of all endings; its time is that of the sending."""
    return [("ended", endings, time.monotonic())] if endings else []


def have_begun(names: list[str]) -> list[bool]:
    """Say which parcels have begun here."""
    with _lock:
        return [name in _listening or name in _over for name in names]


def end_parcels(names: list[str], *, by_force: bool = False) -> list[bool]:
    """Take parcels back that have not begun here; they never will.

    Args:
        names: The parcels.
        by_force: Whether to give up those that have.

    Returns:
        Of each, whether it had not begun.
    """
    with _lock:
        supervisions = [_listening.get(name) for name in names]
        fresh = [name not in _listening and name not in _over for name in names]
        _remember(_revoked, [name for name, is_fresh in zip(names, fresh, strict=True) if is_fresh])
    for supervision in supervisions:
        if by_force and supervision is not None:
            supervision.inbox.put(_STOP)
    return fresh


def ask_parcels(names: list[str]) -> None:
    """Set the tokens of tasks, so that they may stop by themselves."""
    for name in names:
        supervision = _listening.get(name)
        if supervision is not None:
            supervision.inbox.put(_ASK)


def _remember(names: dict[str, None], more: list[str]) -> None:
    """Add to the names that are remembered. Call with the lock held."""
    names.update(dict.fromkeys(more))
    while len(names) > _MOST_REMEMBERED:
        del names[next(iter(names))]


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
