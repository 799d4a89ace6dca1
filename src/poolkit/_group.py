"""`TaskGroup`: a scope that owns its tasks. All of them end before its block does.

A group is a view of its executor, with the rule that the first failure ends the rest::

    open ──a task or the body fails, Ctrl-C──> cancelled ──┐
      └──────────────── the body ends ─────────────────────┴──> waiting ──> closed

Invariants:

* Every failure that is nobody's wish is in ``_errors`` before the task leaves the view's books, so
  that whoever has waited for the books to be empty has them all.
* A group whose block is left inside a task is known to that task, and cancelled with it.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Executor, Future
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from ._errors import PoolShutdownError, TaskAbortedError, TaskCancelled
from ._executor import PoolExecutor
from ._factory import pool_for
from ._future import TaskFuture
from ._public import public
from ._task import CurrentTask, current_task, threads

P = ParamSpec("P")
T = TypeVar("T")

# How tasks end that were told to: the consequence of a failure, or somebody's wish, but no failure.
_ENDED = (CancelledError, TaskAbortedError, TaskCancelled)


@public
class TaskGroup:
    """Tasks that belong together: all succeed, or the rest is cancelled and the failures raised.

    ::

        with make_executor("process") as pool, TaskGroup(pool) as group:
            orders = group.submit(load, "orders")
            prices = group.submit(load, "prices")
        print(join(orders.result(), prices.result()))

    Leaving the block waits for all tasks, those that tasks of the group have added meanwhile
    included. When a task or the body fails, the rest is cancelled. Those that run are stopped if
    the kind can kill them (processes); elsewhere `current_task` tells them to stop, and the group
    waits until they have. Then an `ExceptionGroup` of all failures is raised, the body's own among
    them. Tasks that were cancelled or aborted, by this or by `TaskFuture.abort`, are no failures.

    Ctrl-C (or whatever is no `Exception`) in the block cancels the rest likewise, and is raised as
    itself; a second one abandons threads that don't stop.

    Groups may be nested, and used inside tasks: a group in a task that is cancelled is cancelled
    too, and one that waits in a task of the same pool lends it the slot. `submit` and `map` are
    thread-safe.

    Args:
        executor: Where the tasks run: an executor, poolkit's or any other; or the name of a kind,
            for a pool of its own.
    """

    def __init__(self, executor: str | Executor, /) -> None:
        if not isinstance(executor, (str, Executor)):
            raise TypeError(f"TaskGroup takes an executor or a kind's name, not {executor!r:.80}")
        self._executor = executor
        self._view: PoolExecutor | None = None
        self._owned: PoolExecutor | None = None
        self._task: CurrentTask | None = None
        # All change by single, atomic operations.
        self._submitting: list[None] = []
        """One for each call that has submitted a task, and may not be told yet how it ends."""
        self._errors: list[BaseException] = []
        self._cancelled = False

    def __enter__(self) -> Self:
        if self._view is not None:
            raise RuntimeError("a TaskGroup can be entered once; make another one")
        pool, owned = pool_for(self._executor)
        self._owned = pool if owned else None
        self._view = pool._view(f"a TaskGroup on {pool._name}")
        if threads.run is not None:
            self._task = current_task()
            self._task._groups.append(self)
            if self._task.cancelled:  # perhaps since before it knew of us
                self._cancel()
        return self

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Have ``fn(*args, **kwargs)`` called as a task of the group.

        Returns:
            The task's future. Its outcome need not be asked for: the group takes note of failures.

        Raises:
            PoolShutdownError: The group has ended, or was cancelled.
        """
        view = self._entered()
        self._submitting.append(None)
        try:
            future = view.submit(fn, *args, **kwargs)
            future.add_done_callback(self._look_at)
        finally:
            self._submitting.pop()
        return future

    def map(
        self, fn: Callable[..., T], /, *iterables: Iterable[Any], strict: bool = False
    ) -> Generator[T]:
        """Submit ``fn`` for each item, at once; for long inputs, `map_ordered` needs less memory.

        Args:
            fn: The function.
            *iterables: One iterable for each positional argument.
            strict: Whether iterables of different lengths are a `ValueError`.

        Returns:
            The results, in the order of the input; they need not be asked for.

        Raises:
            PoolShutdownError: The group has ended, or was cancelled.
        """
        if not iterables:
            raise TypeError("map needs at least one iterable of arguments")
        futures = deque(self.submit(fn, *args) for args in zip(*iterables, strict=strict))
        return _results(futures)

    def _entered(self) -> PoolExecutor:
        if self._view is None:
            raise RuntimeError("a TaskGroup has to be entered first: with TaskGroup(pool) as group")
        return self._view

    def _look_at(self, future: Future[Any]) -> None:
        """Take note of how a task has ended; in the thread that settles it."""
        if future.cancelled():
            return
        error = future.exception()
        if error is not None and not self._is_consequence(error):
            self._errors.append(error)
            self._cancel()

    def _is_consequence(self, error: BaseException) -> bool:
        """Whether somebody wanted this, or it follows from another failure."""
        refused = isinstance(error, PoolShutdownError) and error.pool == self._entered()._name
        return isinstance(error, _ENDED) or (refused and self._cancelled)

    def _cancel(self) -> None:
        """End what is not done, without waiting; any thread may, and again."""
        view = self._entered()
        if not self._cancelled:
            self._cancelled = True
            view._cancel()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        view, task, owned = self._entered(), self._task, self._owned
        try:
            if exc is not None:
                self._cancel()
            if exc is not None and not isinstance(exc, Exception):
                view._interrupt()
                return
            # First with the books still open: tasks may add tasks.
            with view:
                try:
                    view._drain(view._link.scopes[-1], view._link.current_batches())
                except Exception:  # a deadlock
                    self._cancel()
                    raise
            while self._submitting:  # a thread is about to learn of a task that has ended
                time.sleep(0)
        finally:
            if task is not None:
                task._groups.remove(self)
            if owned is not None:
                owned.shutdown(wait=True)
        errors, self._errors = self._errors, []
        try:
            known = any(error is exc for error in errors)
            if exc is not None and not known and not (errors and self._is_consequence(exc)):
                errors.insert(0, exc)
            if errors:
                raise BaseExceptionGroup(f"{len(errors)} failures in a TaskGroup", errors) from None
        finally:
            del exc, errors  # a traceback that holds its own error would be a cycle
        if self._cancelled and task is not None:
            task.check()


def _results(futures: "deque[TaskFuture[T]]") -> Generator[T]:
    while futures:
        yield futures.popleft().result()
