"""`PoolExecutor`: the face of every kind of pool, and of every view of one."""

import math
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from . import _submission, _task
from ._backend import Backend, Capabilities, Statistics
from ._bounds import Scope
from ._checks import check_callable, check_choice, check_positive_int, check_seconds
from ._deadlines import KEEPER
from ._errors import TaskSerializationError, UnsupportedError
from ._future import TaskFuture
from ._inherit import INHERIT, Inherit, Seconds, WhenFull
from ._options import TaskOptions, check_retry
from ._public import public
from ._retrying import ROOM
from ._submission import FaceBatch, Link, Submission
from ._task import threads, waiting_for

if TYPE_CHECKING:
    from ._chunking import Chunking, Chunksize
    from ._events import EventStream
    from ._retry import Retry
    from ._window import Ending, Progress, Window

P = ParamSpec("P")
T = TypeVar("T")

# The links of all pools; a link lives as long as its executor or any of its unfinished tasks.
_links: "weakref.WeakSet[Link]" = weakref.WeakSet()


def _finish_all() -> None:
    """At the interpreter's exit: let pending work end, as the standard library does."""
    links = list(_links)
    for link in links:
        link.scopes[0].close()
    # What an uncaught Ctrl-C has ended must not be held up by tasks that can be ended, too.
    interrupted = isinstance(getattr(sys, "last_value", None), KeyboardInterrupt)
    for link in links:
        killed = interrupted and link.backend.capabilities.stops == "killed"
        if killed or link.backend.hosted:  # nobody will run what is left there
            link.cancel_and_stop(link.scopes[0])
    for link in links:
        if not link.backend.hosted:
            link.scopes[0].drain()
        link.backend.shutdown(wait=True)


# Runs before daemon threads are left behind; the public `atexit` would run after that.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]


def _forget_parent() -> None:
    """In a forked child: the pools' threads are not here, so nothing of theirs will ever end."""
    for link in list(_links):
        for scope in link.scopes:
            scope.abandon()
    _links.clear()
    KEEPER.abandon()
    ROOM.abandon()
    _submission.forget_parent()
    _task.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


@public
class PoolExecutor(Executor):
    """An executor of any kind, made by `make_executor`; thread-safe.

    A ``concurrent.futures.Executor`` in every respect: `submit`, `map`, `shutdown` and the
    ``with`` block do what the standard library's do. `with_options` gives *views*: executors on
    the same workers, with other options for tasks.

    Attributes:
        kind: The name it was made by.
        max_workers: How many tasks run at once, at most.
        capabilities: What its kind can do.
    """

    def __init__(
        self,
        kind: str,
        backend: Backend,
        options: TaskOptions,
        max_pending: int | None,
        when_full: WhenFull,
        parent: "PoolExecutor | None" = None,
        *,
        events: "EventStream | None" = None,
        name: str | None = None,
    ) -> None:
        """Not to be called: use `make_executor`, or `with_options` for a view of `parent`."""
        options = _check_options(kind, backend.capabilities, options)
        check_choice("when_full", when_full, ("block", "raise"))
        if max_pending is not None:
            max_pending = check_positive_int("max_pending", max_pending)
        self.kind = kind
        self._options = options
        self._when_full: WhenFull = when_full
        self._parent = parent  # which must not be collected before this view
        self._owns_parent = False
        """Whether the pool ends with this view."""
        self._name = name or (f"a view of {backend.name}" if parent else backend.name)
        inherited: tuple[Scope, ...] = parent._link.scopes if parent else ()
        scope = Scope(self._name, max_pending, when_full)
        scopes = (*inherited, scope)
        if parent is not None:
            events = parent._link.events
        elif events is not None:
            events.clock = backend.clock
        self._link: Link = Link(backend, scopes, KEEPER, events)
        self._max_pending = max_pending
        _links.add(self._link)
        if parent is None:
            # An executor that is dropped lets its workers finish what they have, and go.
            weakref.finalize(self, self._link.release).atexit = False
        elif max_pending is None:
            self._max_pending = parent._max_pending

    def __reduce__(self) -> Any:
        raise TypeError("a pool belongs to this process, and can't be pickled; make one there")

    @property
    def max_workers(self) -> int:
        return self._link.backend.max_workers

    @property
    def capabilities(self) -> Capabilities:
        return self._link.backend.capabilities

    def __repr__(self) -> str:
        state = ", shut down" if self._closed else ""
        return f"<{self._name}: {self.kind}, max_workers={self.max_workers}{state}>"

    @property
    def _closed(self) -> bool:
        return any(scope.closed for scope in self._link.scopes)

    def with_options(
        self,
        *,
        task_timeout: Seconds = INHERIT,
        max_pending: int | Inherit | None = INHERIT,
        when_full: WhenFull | Inherit = INHERIT,
        priority: int | Inherit = INHERIT,
        retry: "Retry | Inherit | None" = INHERIT,
    ) -> "PoolExecutor":
        """Return a view: an executor on the same workers, with other options for tasks.

        Shutting down a view closes it and waits for its own tasks; the pool lives on. A bound
        given here holds for this view's tasks, besides the pool's own.

        Args:
            task_timeout: Seconds that a task may run, from its start in the worker; None for no
                limit.
            max_pending: The most tasks of this view that may be unresolved at once.
            when_full: ``"block"`` or ``"raise"`` (`QueueFullError`), for this view's bound.
            priority: Smaller goes first, among work that no worker has; 0 if never given.
            retry: Whether and how failed tasks are tried again; None for not at all.

        Raises:
            UnsupportedError: The kind can't do that.
        """
        options = self._options
        if not isinstance(task_timeout, Inherit):
            options = options._replace(task_timeout=task_timeout)
        if not isinstance(priority, Inherit):
            options = options._replace(priority=priority)
        if not isinstance(retry, Inherit):
            options = options._replace(retry=check_retry(retry))
        bound = None if isinstance(max_pending, Inherit) else max_pending
        policy: WhenFull = self._when_full if isinstance(when_full, Inherit) else when_full
        return PoolExecutor(self.kind, self._link.backend, options, bound, policy, parent=self)

    def _view(self, name: str) -> "PoolExecutor":
        """Return a view with the same options and a name of its own; for groups."""
        backend, policy = self._link.backend, self._when_full
        return PoolExecutor(self.kind, backend, self._options, None, policy, self, name=name)

    def statistics(self) -> Statistics:
        """Return what the pool is doing at this moment.

        For a view, ``pending`` counts the view's own tasks, and all that were sent to workers
        ahead of their turn.
        """
        statistics = self._link.backend.statistics()
        waiting = sum(batch.unstarted for batch in self._link.scopes[-1].unsettled())
        return statistics._replace(pending=statistics.pending + waiting)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Have ``fn(*args, **kwargs)`` called by a worker; every keyword is the function's own.

        Returns:
            The task's future.

        Raises:
            PoolShutdownError: The executor has been shut down.
            QueueFullError: ``max_pending`` tasks are unresolved, and ``when_full="raise"``; with
                ``"block"``, the call waits instead (but not in a task of the same pool).
            PoolBrokenError: The pool can run nothing more.
            TaskSerializationError: The task can't be sent to another process.
        """
        check_callable("fn", fn)
        batch = Submission(self._link, fn, args, kwargs, self._options)
        future = batch.future
        self._link.dispatch(batch, bounded=True)
        if future._refused:
            error = future._exception
            if isinstance(error, TaskSerializationError):
                future._mark_retrieved()
                raise error
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: "Chunksize" = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call ``fn`` on each item, as ``concurrent.futures.Executor.map`` of Python 3.14 does.

        All items are submitted at once, unless ``buffersize`` is given; see `map_ordered` for a
        map that is always lazy and bounded. An iterator that is never iterated cancels nothing.

        Args:
            fn: The function.
            *iterables: One iterable for each positional argument.
            timeout: Seconds from this call until the last result must have been yielded.
            chunksize: Items that travel together, or ``"auto"``.
            buffersize: The most items pulled from the iterables and not yet yielded.

        Returns:
            An iterator of the results, in the order of the input.
        """
        bound: float = math.inf
        if buffersize is not None:
            if not isinstance(buffersize, int):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError(f"buffersize must be None or > 0, not {buffersize}")
            bound = buffersize
        from ._chunking import make_chunking
        from ._records import argument_tuples

        window = self._window(
            fn,
            argument_tuples(*iterables),
            chunking=make_chunking(
                chunksize, self._link.backend.chunk_seconds, most=self._link.most
            ),
            ordered=True,
            bound=bound,
            as_submits=True,
            timeout=check_seconds("timeout", timeout, allow_zero=True),
        )
        window.start()
        return window.values()

    def _window(
        self,
        fn: Callable[..., Any],
        inputs: Iterable[tuple[Any, ...]],
        *,
        chunking: "Chunking",
        ordered: bool,
        bound: float | None,
        task_timeout: Seconds = INHERIT,
        retry: "Retry | Inherit | None" = INHERIT,
        at_most_once: bool = False,
        as_submits: bool = False,
        timed: bool = False,
        length: int | None = None,
        timeout: float | None = None,
        progress: "Progress | None" = None,
        release: "Callable[[Ending], None] | None" = None,
    ) -> "Window":
        """Open a window of this executor's; for the verbs."""
        from ._window import Window  # who only submits needs none

        check_callable("fn", fn)
        options = self._options._replace(at_most_once=at_most_once)
        if not isinstance(task_timeout, Inherit):
            options = _check_options(
                self.kind, self.capabilities, options._replace(task_timeout=task_timeout)
            )
        if not isinstance(retry, Inherit):
            options = options._replace(retry=check_retry(retry))
        if at_most_once and options.retry is not None:
            raise ValueError("at_most_once=True and a retry contradict each other; retry=None?")
        return Window(
            self._link,
            fn,
            inputs,
            options=options,
            chunking=chunking,
            ordered=ordered,
            bound=self._max_pending if bound is None else bound,
            as_submits=as_submits,
            timed=timed,
            length=length,
            timeout=timeout,
            progress=progress,
            release=release,
            keep=self,
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks, and release the workers when the last one is done.

        A view only closes itself and waits for its own tasks.

        Args:
            wait: Whether to return only when all tasks are done and the workers have ended.
            cancel_futures: Whether to cancel the tasks that have not started.
        """
        scope = self._link.scopes[-1]
        scope.close()
        if cancel_futures:
            scope.cancels = True
            for batch in scope.unsettled():
                batch.take_back()
        inside = self._link.current_batches() if wait else []
        in_callback = threads.serving is self._link.backend  # which would wait for itself
        if wait and not in_callback:
            self._drain(scope, inside)
        if self._parent is None:
            # A worker can't wait for its own end, and who is part of a task must not.
            if wait and not inside and not in_callback:
                self._link.backend.shutdown(wait=True)
            else:
                self._link.release()
            if wait and not scope.busy:
                KEEPER.forget(self._link.backend)
                ROOM.rest()
                if "poolkit._hand" in sys.modules:  # else, there has been no window
                    from ._hand import WATCH

                    WATCH.rest()
        elif self._owns_parent:
            self._parent.shutdown(wait, cancel_futures=cancel_futures)

    def _drain(self, scope: Scope, inside: list[FaceBatch]) -> None:
        """Wait for the scope's tasks, but for those that the caller is in."""
        if not threads.in_pool:
            scope.drain(inside)
            return
        others = [batch for batch in scope.unsettled() if batch not in inside]
        with waiting_for(
            others,
            any_of=False,
            untimed=bool(others),
            come=lambda: scope.is_drained(inside),
        ):
            scope.drain(inside)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None and not isinstance(exc, Exception):
            self._interrupt()
            return
        try:
            self.shutdown(wait=True)
        except Exception:
            raise
        except BaseException:  # Ctrl-C while waiting for the rest
            self._interrupt()
            raise

    def _interrupt(self) -> None:
        """Cancel what is pending and end what runs; a second interrupt abandons what can't end."""
        self._cancel()
        try:
            self.shutdown(wait=True)
        except KeyboardInterrupt:
            self._link.cancel_and_stop(self._link.scopes[-1])
            raise

    def _cancel(self) -> None:
        """Cancel what is pending, kill what can be killed and ask the rest to stop; don't wait."""
        link, scope = self._link, self._link.scopes[-1]
        scope.unwanted = True  # before looking who runs; `current_task` does the reverse
        self.shutdown(wait=False, cancel_futures=True)
        for mine in scope.unsettled():
            mine.ask_to_stop()
        if self.capabilities.stops == "killed":
            link.cancel_and_stop(scope)

    def terminate_workers(self) -> None:
        """Shut down without waiting: cancel what is pending, and ask the workers to end (SIGTERM).

        Tasks that were running fail with `WorkerCrashedError`. What is still there after the
        kind's ``kill_grace`` is killed. As Python 3.14's method of that name.

        Raises:
            UnsupportedError: The kind's workers can't be ended from outside.
        """
        self._end_workers("terminate_workers()", signal.SIGTERM)

    def kill_workers(self) -> None:
        """Shut down without waiting: cancel what is pending, and kill the workers (SIGKILL).

        Tasks that were running fail with `WorkerCrashedError`. As Python 3.14's method of that
        name.

        Raises:
            UnsupportedError: The kind's workers can't be ended from outside.
        """
        self._end_workers("kill_workers()", getattr(signal, "SIGKILL", signal.SIGTERM))

    def _end_workers(self, what: str, number: int) -> None:
        if self.capabilities.stops != "killed":
            raise UnsupportedError(
                self.kind, what, "cancel what is pending with shutdown(cancel_futures=True)"
            )
        if self._parent is not None:
            raise UnsupportedError(self.kind, f"{what} of a view", "call it on the pool itself")
        self.shutdown(wait=False, cancel_futures=True)
        self._link.backend.end_workers(number)

    def __enter__(self) -> Self:
        return self


def _check_options(kind: str, capabilities: Capabilities, options: TaskOptions) -> TaskOptions:
    limit = check_seconds("task_timeout", options.task_timeout)
    if limit is not None and capabilities.deadlines == "none":
        raise UnsupportedError(
            kind,
            f"task_timeout={limit:g}",
            "leave it out, or use a kind that can stop tasks or give them up, such as 'thread'",
        )
    if isinstance(options.priority, bool) or not isinstance(options.priority, int):
        raise TypeError(f"priority must be an int, not {options.priority!r:.80}")
    if options.priority and not capabilities.priorities:
        raise UnsupportedError(
            kind, f"priority={options.priority}", "use a kind that has a queue, such as 'thread'"
        )
    return options._replace(task_timeout=limit)
