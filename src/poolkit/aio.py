"""The verbs for asyncio: pools that work for an event loop, and never hold it up.

::

    async with aio.executor("process") as pool:
        digest = await aio.run(pool, sha256_of, path)
        async for page in aio.map_unordered(pool, render, pages):
            ...

Cancelling what awaits here cancels the task in the pool: if it has not started, it never will; if
it runs on processes, its worker is killed and replaced; elsewhere ``current_task`` tells it to
stop.

One engine: the windows are those of the other verbs, but where they would wait for results, the
event loop does.
"""

import asyncio
import contextlib
import math
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypedDict, TypeVar

from typing_extensions import Unpack

from . import _map
from ._chunking import Chunksize
from ._errors import UnsupportedError
from ._executor import PoolExecutor
from ._factory import make_executor, pool_for
from ._future import TaskFuture
from ._hand import PushedHand
from ._inherit import INHERIT, Inherit, Seconds
from ._submission import Submission
from ._wait import wait
from ._window import REPORT_EVERY, Window
from .progress import Progress

if TYPE_CHECKING:
    from ._outcome import Outcome
    from ._retry import Retry

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

__all__ = ("TaskGroup", "executor", "map_ordered", "map_outcomes", "map_unordered", "run")


async def run(pool: Executor, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Have ``fn(*args, **kwargs)`` called by a pool, and await what it returns.

    If the awaiting task is cancelled, so is the call: see the module. While the pool's
    ``max_pending`` tasks are unresolved, this waits for room, without blocking the loop.

    Args:
        pool: An executor, poolkit's or any other.
        fn: The function.
        *args: Its arguments.
        **kwargs: Its keyword arguments.

    Raises:
        Exception: Whatever the task raised, or why it could not finish.
        QueueFullError: There is no room, and the pool was made with ``when_full="raise"``.
    """
    owner, _ = pool_for(pool)
    await _room(owner)
    future = owner.submit(fn, *args, **kwargs)
    if owner._link.backend.hosted:  # it runs only while somebody waits for it, which must be here
        wait([future])
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        if not future.done():
            _in_background(lambda: _abort(future))
        raise


async def _room(pool: PoolExecutor) -> None:
    """Wait until `submit` would not block."""
    scopes = pool._link.scopes
    while full := [scope for scope in scopes if not scope.has_room(1)]:
        changed = asyncio.Event()
        full[0].ring_when_changed(partial(_ring, asyncio.get_running_loop(), changed))
        if not full[0].has_room(1):  # else, it was freed before that
            await changed.wait()


def _ring(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """Set an event of a loop, from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(event.set)


def _abort(future: TaskFuture[Any]) -> None:
    """End a task, by the means of its kind."""
    try:
        future.abort()
    except UnsupportedError:
        control = future._control
        if isinstance(control, Submission):
            control.ask_to_stop()


def _in_background(action: Callable[[], object]) -> None:
    """Do something that may have to wait for a worker, and not in the event loop."""
    threading.Thread(target=action, name="poolkit-abort", daemon=True).start()


class TaskGroup(asyncio.TaskGroup):
    """An `asyncio.TaskGroup` whose tasks run on a pool.

    As there, the first failure cancels the others, and all failures are raised as one; what runs
    in the pool is ended by the means of its kind. Coroutines may be added by ``create_task``.

    Args:
        pool: An executor, poolkit's or any other.
    """

    def __init__(self, pool: Executor, /) -> None:
        super().__init__()
        if not isinstance(pool, Executor):
            raise TypeError(f"TaskGroup takes an executor, not {pool!r:.80}")
        self._pool = pool

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Task[T]:
        """Have ``fn(*args, **kwargs)`` called by the pool, as a task of the group.

        Returns:
            The asyncio task that awaits it.
        """
        return self.create_task(run(self._pool, fn, *args, **kwargs))


@asynccontextmanager
async def executor(
    kind: str | Executor, max_workers: int | None = None, **options: Any
) -> AsyncIterator[PoolExecutor]:
    """Make an executor for an ``async with`` block, which ends without blocking the loop.

    Args:
        kind: As for `make_executor`, like all arguments.
        max_workers: How many tasks run at once.
        **options: Any other of its arguments.
    """
    pool = make_executor(kind, max_workers, **options)
    try:
        yield pool
    except BaseException as error:
        if not isinstance(error, Exception):
            pool._cancel()
        raise
    finally:
        await asyncio.shield(asyncio.to_thread(pool.shutdown))


# -- verbs ---------------------------------------------------------------------------------


def map_ordered(
    executor: str | Executor,
    fn: Callable[..., R],
    /,
    *iterables: "Input",
    on_error: _map.OnError = "raise",
    **options: "Unpack[Options]",
) -> "AsyncResults[R]":
    """Call ``fn`` on each item on a pool; yield the results in the order of the input.

    As `poolkit.map_ordered`, with the same arguments, but for ``async for``: the event loop goes on
    while results are made, iterables may be asynchronous, and work begins with the first step. If
    the task that iterates is cancelled, what runs is ended, too. To leave the loop early, use
    ``async with`` around it, or close the iterator.
    """
    return AsyncResults(executor, fn, iterables, _map.values(on_error), True, options)


def map_unordered(
    executor: str | Executor,
    fn: Callable[..., R],
    /,
    *iterables: "Input",
    on_error: _map.OnError = "raise",
    **options: "Unpack[Options]",
) -> "AsyncResults[R]":
    """Call ``fn`` on each item on a pool; yield the results as they are completed.

    As `map_ordered` in everything but the order.
    """
    return AsyncResults(executor, fn, iterables, _map.values(on_error), False, options)


def map_outcomes(
    executor: str | Executor,
    fn: Callable[..., R],
    /,
    *iterables: "Input",
    ordered: bool = False,
    **options: "Unpack[Options]",
) -> "AsyncResults[Outcome[R]]":
    """Call ``fn`` on each item on a pool; yield an `Outcome` for each, failures included.

    As `poolkit.map_outcomes`, for ``async for``; see `map_ordered`.
    """
    return AsyncResults(executor, fn, iterables, _map.outcomes, ordered, options)


Input = Iterable[Any] | AsyncIterable[Any]


class Options(TypedDict, total=False):
    """The options of the verbs, as those of `poolkit.map_ordered`."""

    chunksize: Chunksize
    max_pending: int | None
    task_timeout: Seconds
    timeout: float | None
    retry: "Retry | Inherit | None"
    at_most_once: bool
    strict: bool
    progress: Progress


_DEFAULTS: Final[Options] = {
    "chunksize": "auto",
    "max_pending": None,
    "task_timeout": INHERIT,
    "timeout": None,
    "retry": INHERIT,
    "at_most_once": False,
    "strict": False,
    "progress": None,
}


class AsyncResults(AsyncIterator[R]):
    """What the verbs return: an asynchronous iterator that can be closed.

    Used by one task at a time, in one event loop.
    """

    def __init__(
        self,
        executor: str | Executor,
        fn: Callable[..., Any],
        iterables: tuple[Input, ...],
        convert: Callable[[Window], Generator[Iterator[R]]],
        ordered: bool,
        options: Options,
    ) -> None:
        """Check the arguments; nothing is pulled before the first step."""
        given: dict[str, Any] = {**_DEFAULTS, **options}
        unknown = given.keys() - _DEFAULTS.keys()
        if unknown:
            raise TypeError(
                f"a verb of poolkit.aio does not know {', '.join(sorted(unknown))}; its options: "
                f"on_error, {', '.join(_DEFAULTS)}"
            )
        strict = bool(given.pop("strict"))
        asynchronous = any(isinstance(each, AsyncIterable) for each in iterables)
        # Checks what is not asynchronous.
        plain: Any = [each for each in iterables if not isinstance(each, AsyncIterable)]
        inputs: Any = ()
        length: int | None = None
        if plain or not iterables:
            inputs, length = _map.zipped("a verb", plain, strict)
        pool, self._owned = pool_for(executor)
        self._pool = pool
        self._source: AsyncIterator[tuple[Any, ...]] | None = None
        self._hand: PushedHand | None = None
        if asynchronous:
            self._source, length = _zipped(iterables, strict), None
            inputs = self._hand = PushedHand(pool._link.backend.clock)
        timed = convert is _map.outcomes
        self._window = _map.open_window(
            pool, fn, inputs, length, ordered=ordered, timed=timed, begin=False, **given
        )
        # A pool that runs only while somebody waits for it can't be awaited.
        self._window.waits = pool._link.backend.hosted
        self._window.attended = True
        self._runs = convert(self._window)
        self._steps = self._iterate()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        return await self._steps.__anext__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Take back what has not started; wait for what runs only if the pool is our own."""
        await self._steps.aclose()
        self._window.close()

    async def _iterate(self) -> AsyncGenerator[R]:
        loop, changed, consumed = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        self._window.inbox.ring = partial(_ring, loop, changed)
        feeder = None if self._source is None else loop.create_task(self._feed(changed, consumed))
        try:
            pause = REPORT_EVERY
            for run in self._runs:
                for value in run:
                    pause = REPORT_EVERY
                    yield value
                consumed.set()
                if self._window.starved:
                    pause = await self._more(changed, pause)
        except asyncio.CancelledError:
            _in_background(self._window.abort)
            raise
        finally:
            if feeder is not None:
                feeder.cancel()
            self._runs.close()
            self._window.close()
            if self._owned:
                await asyncio.shield(asyncio.to_thread(self._pool.shutdown))

    async def _more(self, changed: asyncio.Event, pause: float) -> float:
        """Wait for results or input; return how long to wait at most the next time."""
        window = self._window
        limit = min(pause if window.has_chunks else math.inf, max(0.0, window.left))
        try:
            async with asyncio.timeout(None if limit == math.inf else limit):
                await changed.wait()
        except TimeoutError:
            window.check_deadline()
            window.fetch()
        changed.clear()
        return min(2 * pause, 0.25)

    async def _feed(self, changed: asyncio.Event, consumed: asyncio.Event) -> None:
        """Pull an asynchronous input, as far as there is room."""
        hand, source = self._hand, self._source
        assert hand is not None
        assert source is not None
        error: Exception | None = None
        try:
            while True:
                while self._window.room <= len(hand.buffer):
                    consumed.clear()
                    await consumed.wait()
                hand.push(await anext(source))
                changed.set()
        except StopAsyncIteration:
            pass
        except Exception as caught:
            error = caught
        hand.end(error)
        changed.set()


async def _zipped(iterables: tuple[Input, ...], strict: bool) -> AsyncGenerator[tuple[Any, ...]]:
    """Do what `zip` does, where some iterables are asynchronous."""
    iterators = [
        aiter(each) if isinstance(each, AsyncIterable) else _asynchronous(each)
        for each in iterables
    ]
    while True:
        values = [await anext(iterator, _MISSING) for iterator in iterators]
        missing = sum(value is _MISSING for value in values)
        if missing:
            if strict and missing < len(values):
                raise ValueError("with strict=True, the iterables must have the same length")
            return
        yield tuple(values)


async def _asynchronous(iterable: Iterable[T]) -> AsyncGenerator[T]:
    for item in iterable:
        yield item


_MISSING: Final = object()
