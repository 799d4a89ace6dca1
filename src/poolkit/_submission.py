"""Batches as the face makes them: on the books of its scopes, and, for `submit`, with a future."""

import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures._base import FINISHED
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from ._backend import Backend, Batch, Record
from ._bounds import Scope
from ._deadlines import STALL_LOOK, DeadlineKeeper
from ._describe import function_name
from ._errors import TaskAbortedError, UnsupportedError
from ._future import Aborted, TaskFuture
from ._notes import add_note
from ._options import TaskOptions
from ._retrying import Owner, Retrial, Retries, room_of
from ._task import threads, waiting_for

if TYPE_CHECKING:
    from ._events import EventStream

_log = logging.getLogger("poolkit")

# What tasks have for context variables that can't see the submitter's.
_NO_CONTEXT = Context()

# Guards `FaceBatch._unsettled` of all batches that are reported in parts.
_counts = threading.RLock()  # re-entrant for the collector's sake


class Link:
    """The way from one face to its workers: the backend and the books on the way.

    Attributes:
        backend: What runs the batches; shared by a pool and all its views.
        scopes: The pool's books first, then those of the view and the views it was made from.
        keeper: Who keeps deadlines, if the backend leaves that to the face.
        events: Who is told of what becomes of tasks; None if nobody listens.
        limited: Whether any of the scopes has a bound.
        copies_context: Whether tasks see the submitter's context variables.
    """

    __slots__ = (
        "__weakref__",
        "backend",
        "copies_context",
        "events",
        "keeper",
        "limited",
        "scopes",
    )

    def __init__(
        self,
        backend: Backend,
        scopes: tuple[Scope, ...],
        keeper: DeadlineKeeper,
        events: "EventStream | None" = None,
    ) -> None:
        self.backend = backend
        self.scopes = scopes
        self.keeper = keeper
        self.events = events
        self.limited = any(scope.max_pending is not None for scope in scopes)
        self.copies_context = not backend.capabilities.serializes

    @property
    def most(self) -> int | None:
        """The tightest of the scopes' bounds, if any has one."""
        bounds = [scope.max_pending for scope in self.scopes if scope.max_pending is not None]
        return min(bounds, default=None)

    def dispatch(self, batch: "FaceBatch", *, bounded: bool) -> None:
        """Enter `batch` in the books and hand it to the backend.

        Args:
            batch: A new batch, made for this link.
            bounded: Whether its items count under ``max_pending``; the verbs keep a bound of
                their own.

        Raises:
            PoolShutdownError: One of the scopes is closed.
            QueueFullError: One of the scopes is full.
            PoolBrokenError: The backend can run nothing more.
        """
        if bounded and self.limited:
            batch.places = 1
        places = batch.places * len(batch.items)
        limited: list[Scope] = []
        told = sent = False
        try:
            if places:
                may_block = not self._inside()
                for scope in self.scopes:
                    if may_block and threads.hosted:
                        self._make_room(scope, places)
                    scope.take_places(places, may_block=may_block)
                    limited.append(scope)
            if self.events is not None:
                self.events.submitted(batch)
                told = True
            for scope in self.scopes:
                scope.enter(batch)
            sent = True
            self.backend.dispatch(batch)
        except BaseException:
            # An interrupt may come when the backend has the batch already, and who closes a
            # scope may have taken it back. What can still be claimed is ours to strike off;
            # whoever claimed the rest settles it.
            unclaimed = batch.claim_rest()
            if told and self.events is not None:
                self.events.cancelled(batch, unclaimed)
            unsent = len(unclaimed)
            for scope in limited:
                scope.release(batch.places * unsent)
            if not sent or unsent == len(batch.items):
                for scope in self.scopes:
                    scope.forget(batch)
            raise
        if batch.retries is not None and self.backend.capabilities.runs_in_caller:
            try:
                batch.retries.run_in_caller()
            except BaseException:  # an interrupt
                batch.take_back()
                raise
        if self.backend.capabilities.deadlines == "soft":
            self._watch(batch, queued=bounded and self.scopes[0].size > self.backend.max_workers)

    def _make_room(self, scope: Scope, places: int) -> None:
        """Have the backend run tasks if `Scope.take_places` would wait for some to end."""
        if scope.has_room(places):
            return
        batches = scope.unsettled()
        with waiting_for(batches, any_of=True, untimed=True, come=lambda: scope.has_room(places)):
            pass

    def dispatch_again(self, retrial: Retrial) -> None:
        """Hand a further attempt to the backend."""
        retrial.dispatched = True
        try:
            self.backend.dispatch(retrial)
        except Exception as error:  # it is broken
            if retrial.claim(0):
                retrial.report_failed([0], error)
        if self.backend.capabilities.deadlines == "soft":
            self._watch(retrial, queued=False)

    def _watch(self, batch: Batch, *, queued: bool) -> None:
        """Have the keeper of deadlines look at the backend.

        Args:
            batch: What was dispatched.
            queued: Whether the queue grows, which may be the sign of a pool that stands still.
        """
        limit = batch.options.task_timeout
        scope, keeper = self.scopes[0], self.keeper
        if limit is None:
            if not queued or keeper.watches(self.backend):
                return
            limit = STALL_LOOK
        keeper.watch(self.backend, scope, limit)

    def cancel_and_stop(self, scope: Scope) -> None:
        """Cancel a scope's pending tasks, and stop those that run, by the means of the kind."""
        unsettled: list[Any] = scope.unsettled()
        for mine in unsettled:
            mine.let_go()
        for mine in unsettled:
            mine.take_back()
        self.stop(unsettled)

    def stop(self, batches: Collection[Batch]) -> None:
        """Stop what runs of some batches."""
        mine = set(batches)
        for batch, number, _ in self.backend.running():
            if batch.origin in mine:
                self.backend.stop(batch, number, TaskAbortedError(batch.describe(number)))

    def release(self) -> None:
        """Have the backend release its workers when all is done, without waiting for that."""
        scope, backend = self.scopes[0], self.backend
        if any(batch.may_come_back for batch in scope.unsettled()):
            # It must take what is tried again, and so can't be told yet.
            with contextlib.suppress(RuntimeError):  # the interpreter is about to end
                name, args = "poolkit-release", (scope, backend)
                threading.Thread(target=_release_later, args=args, name=name, daemon=True).start()
                return
        backend.shutdown(wait=False)

    def _inside(self) -> bool:
        """Whether the caller is a task of the same pool."""
        if threads.slot is not None and threads.slot.backend is self.backend:
            return True
        return bool(self.current_batches())

    def current_batches(self) -> "list[FaceBatch]":
        """Return the pool's batches that this thread runs, or whose callbacks it runs."""
        batches: list[Any] = list(threads.settling)
        batches += [run.batch.origin for run in threads.runs()]
        return [b for b in batches if isinstance(b, FaceBatch) and b.backend is self.backend]


def _release_later(scope: Scope, backend: Backend) -> None:
    scope.drain()
    backend.shutdown(wait=False)


def forget_parent() -> None:
    """In a forked child: renew a lock that a thread of the parent may have held."""
    global _counts  # noqa: PLW0603
    _counts = threading.RLock()


class FaceBatch(Owner):
    """A batch that is on the books of a link's scopes."""

    __slots__ = ("_unsettled", "link", "places", "tasks")
    tasks: list[int]
    """The numbers of its items, in events; set only if somebody listens."""

    def __init__(
        self,
        link: Link,
        fn: Callable[..., Any],
        items: Sequence[tuple[Any, ...]],
        kwargs: Mapping[str, Any],
        options: TaskOptions,
    ) -> None:
        super().__init__(fn, items, kwargs, options)
        self.link = link
        self.places = 0
        self.retries = None if options.retry is None else Retries(options.retry)
        self._unsettled = len(items)

    @property
    def backend(self) -> Backend:
        """What runs it."""
        return self.link.backend

    def dispatch_again(self, retrial: Retrial) -> None:
        self.link.dispatch_again(retrial)

    @property
    def unfinished_parts(self) -> Sequence[Batch]:
        return (self,) if self.retries is None else (self, *list(self.retries.parts))

    @property
    def may_come_back(self) -> bool:
        """Whether its items may be tried again."""
        return self.retries is not None

    @property
    def may_repeat(self) -> bool:  # type: ignore[override]
        return not self._cancels()

    @property
    def unwanted(self) -> bool:  # type: ignore[override]
        return any(scope.unwanted for scope in self.link.scopes)

    @property
    def unstarted(self) -> int:
        """How many of its items wait for a worker, or for another attempt."""
        return sum(len(part.todo) for part in self.unfinished_parts)

    def report(self, records: Sequence[Record]) -> None:
        """Free the items' places, let them take effect, and only then leave the books."""
        if self.retries is not None:
            records = self._without_retried(self.retries, records)
            if not records:
                return
        if self.link.events is not None:
            threads.settling.append(self)  # an observer that shuts down must not wait for this
            self.link.events.ended(self, records)
            threads.settling.pop()
        if self.places:
            self._release(len(records))
        try:
            self.settle(records)
        except BaseException:  # a future that somebody else has settled must not cost a worker
            _log.exception("settling %s failed", function_name(self.fn))
        self._forget(len(records))

    def take_back(self) -> bool:
        """Cancel what has not started; say whether that was anything. Never waits."""
        indices = self.link.backend.withdraw(self)
        if self.retries is not None:
            indices += self.retries.take_back()
        if not indices:
            return False
        if self.link.events is not None:
            self.link.events.cancelled(self, indices)
        if self.places:
            self._release(len(indices))
        self.settle_withdrawn(indices)
        self._forget(len(indices))
        return True

    def let_go(self) -> None:
        """Release what an interrupt made this thread leave locked."""

    def attempt_at(self, number: int) -> int:
        """Return which attempt an item is at, from 1."""
        return 1 if self.retries is None else self.retries.attempt(number)

    def _without_retried(self, retries: Retries, records: Sequence[Record]) -> list[Record]:
        """Send what is to be tried again to wait for that; return the rest."""
        return [record for record in records if not self._tries_again(retries, record)]

    def _tries_again(self, retries: Retries, record: Record) -> bool:
        if record.error is None or self._cancels():
            return False
        retrial = retries.next_attempt(self, record, self.backend.clock.monotonic())
        if retrial is None:
            return False
        # Who cancels says so first, and then takes back what has not started.
        if self._cancels() and retrial.claim(0):
            retries.parts.pop(retrial, None)
            return False
        if self.link.events is not None:
            self.link.events.retried(self, record, retrial.attempt - 1)
        if self.backend.capabilities.runs_in_caller or room_of(self.backend).enter(retrial):
            return True
        retries.parts.pop(retrial, None)
        return not retrial.claim(0)

    def _cancels(self) -> bool:
        return any(scope.cancels for scope in self.link.scopes)

    def settle(self, records: Sequence[Record]) -> None:
        """Let these results take effect. Never raises."""
        raise NotImplementedError

    def settle_withdrawn(self, indices: Collection[int]) -> None:
        """Take note that these items will not run. Never raises."""
        raise NotImplementedError

    def _release(self, count: int) -> None:
        for scope in self.link.scopes:
            scope.release(count * self.places)

    def _forget(self, count: int) -> None:
        if count != len(self.items):
            with _counts:
                self._unsettled -= count
                if self._unsettled:
                    return
        self.parcel = None  # which may be large, while results wait to be read
        for scope in self.link.scopes:
            scope.forget(self)


class Submission(FaceBatch):
    """The batch of one behind a `TaskFuture`; also that future's `TaskControl`."""

    __slots__ = ("future",)

    def __init__(
        self,
        link: Link,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: TaskOptions,
    ) -> None:
        # All fields at once: the constructors above cost a tenth of a whole task on threads.
        self.fn = fn
        self.items = (args,)
        self.kwargs = kwargs
        self.options = options
        self.context = copy_context() if link.copies_context else _NO_CONTEXT
        self.todo = [0]
        self.running = {}
        self.parcel = None
        self.link = link
        self.places = 0
        self.retries = None if options.retry is None else Retries(options.retry)
        self._unsettled = 1
        self.future: TaskFuture[Any] = TaskFuture(self)

    def is_running(self) -> bool:
        """Whether a worker runs the task now."""
        if any(part.running for part in self.unfinished_parts):  # in this process
            return True
        return any(item.batch.origin is self for item in self.link.backend.running())

    def cancel(self) -> bool:
        """Take the task back if it has not started; say whether it is cancelled, by whomever."""
        if self.take_back():
            return True
        # Whoever has claimed it is about to run it or, having finished or cancelled it, to
        # settle it: which of the two shows within a few instructions of theirs.
        while not self.future.done():
            if self.is_running():
                return False
            self.link.backend.spin()
        return self.future.cancelled()

    def run_here(self) -> None:
        """Run the task inside the task of this thread that waits for it, if that is sound.

        Both must be of the same pool, or the waiter's slot is not the task's to use; and neither
        may have a deadline: on one stack, giving up one of them would give up the other.
        """
        slot = threads.slot
        if slot is None or slot.backend is not self.link.backend:
            return
        limits = {run.batch.options.task_timeout for run in threads.runs()}
        if limits == {None} and self.options.task_timeout is None and self.todo:
            slot.run_here(self)

    def abort(self) -> Aborted:
        """Cancel the task, or give it up if it runs."""
        backend = self.link.backend
        stops = backend.capabilities.stops
        while not self.future.done():
            if self.cancel():
                return "cancelled"
            if stops is None:
                raise UnsupportedError(
                    "this kind of executor",
                    "abort() of a running task",
                    "cancel() what has not started, or use a kind such as 'thread'",
                )
            for part in self.unfinished_parts:
                if backend.stop(part, 0, TaskAbortedError(self.describe(0))):
                    return stops
            backend.spin()  # between its claim and its start, or its end and its settling
        return "finished"

    def let_go(self) -> None:
        self.future._let_go()

    def settle(self, records: Sequence[Record]) -> None:
        (record,) = records
        if record.error is not None:
            add_note(self, record, None, self.attempt_at(0))
            self.future._refused = not record.worker
        self.future._settle(FINISHED, record.value, record.error)

    def settle_withdrawn(self, indices: Collection[int]) -> None:
        # The batch may stand in the backend's queue for long; nothing else may stay with it.
        self.fn = _withdrawn
        self.items = ((),)
        self.kwargs = {}
        self.parcel = None
        self.future._settle_cancelled()


def _withdrawn() -> None:
    """Stand in for the function of a task that was cancelled."""
