"""The verbs: `map_ordered`, `map_unordered`, `map_outcomes` and `map_batches`.

Each is a thin face of `poolkit._window.Window`: it checks its arguments at the call, opens a
window, and turns what comes back into what its caller wants to see.
"""

import math
import operator
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import chain, islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

from ._checks import check_callable, check_positive_int, check_seconds
from ._chunking import Chunksize, check_chunksize, make_chunking
from ._describe import function_name
from ._factory import pool_for
from ._inherit import INHERIT, Inherit, Seconds
from ._public import public
from .progress import Progress, open_progress

# As in `_factory`: worker processes import this module, and seldom use it.
if TYPE_CHECKING:
    from ._executor import PoolExecutor
    from ._outcome import Outcome
    from ._records import Record
    from ._retry import Retry
    from ._window import Ending, Window, WindowBatch

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")

OnError = int | Literal["raise", "skip"]


class ResultIterator(chain[R]):
    """What the verbs return: an iterator that can be closed, and is a context manager.

    Leaving it early, in whichever way (`close`, the end of a ``with`` block, garbage collection
    after a ``break``), takes back what has not started. Not to be iterated by two threads at
    once (`ValueError`).
    """

    # A subclass of the standard library's, as each step of an iterator in Python would cost as
    # much as everything else that is done for an item.
    _name: str
    _window: "Window" = cast("Window", None)  # until an iterator is complete
    _runs: "Generator[Iterator[R]]"

    @classmethod
    def over(cls, name: str, window: "Window", runs: "Generator[Iterator[R]]") -> Self:
        """Return an iterator over the items of iterators, which are those of a window."""
        self = cast(Self, cls.from_iterable(runs))
        self._name = name
        self._window = window
        self._runs = runs
        return self

    def __reduce__(self) -> Any:
        raise TypeError("a result iterator is work under way; it can't be copied or pickled")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take back what has not started; wait for what runs only if the pool is our own.

        Raises:
            ValueError: Another thread is waiting for the next result, or this is called by the
                input or the progress function. Nothing was closed.
        """
        runs: Any = self._runs
        if runs.gi_running:
            raise ValueError("a result iterator can't be closed while it looks for the next result")
        self._window.attended = True
        self._window.close("done")
        self._runs.close()

    def __del__(self) -> None:
        window: Window | None = self._window
        if window is None:  # an interrupt has struck as it was made
            return
        if not window.attended and (missing := window.missing):
            warnings.warn(
                f"{self._name} was never iterated; at least {missing} inputs did not run to "
                "their end. Loop over what it returns",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )
        window.close()


def values(on_error: Any) -> "Callable[[Window], Generator[Iterator[Any]]]":
    """Return what makes values, and of failures what ``on_error`` says, of what comes back."""
    if on_error == "raise":
        return lambda window: window.value_runs()
    if on_error == "skip":
        return partial(_tolerant, most=math.inf)
    if isinstance(on_error, str):
        raise ValueError(f'on_error must be "raise", "skip" or a number, not {on_error!r:.80}')
    try:
        most: int = on_error.__index__()
    except AttributeError:
        most = -1
    if isinstance(on_error, bool) or most < 0:
        raise TypeError(
            'on_error must be "raise", "skip", or how many failures to tolerate, '
            f"not {on_error!r:.80}"
        )
    return partial(_tolerant, most=most)


def _tolerant(window: "Window", most: float) -> Generator[Iterator[Any]]:
    """Yield what the function returned; pass over up to so many failures."""
    errors: list[BaseException] = []
    for piece in window.pieces():
        handover = [window.serve(_sort_out(piece[1], errors, most))]
        del piece
        yield handover.pop()
        if len(errors) > most:
            window.close()
            try:
                raise BaseExceptionGroup(
                    f"{len(errors)} tasks failed, more than on_error={most} tolerates", errors
                )
            finally:
                del errors  # a traceback that holds its own error would be a cycle


def _sort_out(records: "Sequence[Record]", errors: list[BaseException], most: float) -> list[Any]:
    """Return the values of records, and remember errors until there are more than ``most``."""
    good: list[Any] = []
    for record in records:
        if record.error is None:
            good.append(record.value)
        elif most != math.inf:
            errors.append(record.error)
            if len(errors) > most:
                break
    return good


def outcomes(window: "Window") -> "Generator[Iterator[Outcome[Any]]]":
    from ._outcome import Outcome

    for piece in window.pieces():
        make = partial(_outcome, Outcome, piece[0])
        handover = [map(make, window.serve([*piece[1]]))]
        del piece, make
        yield handover.pop()


def _outcome(kind: "type[Outcome[Any]]", batch: "WindowBatch", record: "Record") -> "Outcome[Any]":
    retries = batch.retries
    latest = None if retries is None else retries.latest.get(record.number)
    attempts, handed_over = latest or (1, batch.dispatched)
    return kind(
        index=batch.base + record.number,
        args=batch.items[record.number],
        value=record.value,
        error=record.error,
        attempts=attempts,
        worker=record.worker,
        queued_s=max(0.0, record.start - handed_over),
        run_s=record.duration,
    )


def _open(
    verb: str,
    convert: "Callable[[Window], Generator[Iterator[R]]]",
    executor: str | Executor,
    fn: Callable[..., Any],
    inputs: Iterable[tuple[Any, ...]],
    length: int | None,
    **options: Any,
) -> ResultIterator[R]:
    """Open a window, and return an iterator over what comes out of it."""
    window = open_window(executor, fn, inputs, length, **options)
    name = f"{verb}({function_name(fn)})"
    return ResultIterator[R].over(name, window, convert(window))


def open_window(
    executor: str | Executor,
    fn: Callable[..., Any],
    inputs: Iterable[tuple[Any, ...]],
    length: int | None,
    *,
    ordered: bool,
    chunksize: Chunksize,
    max_pending: int | None,
    task_timeout: Seconds,
    timeout: float | None,
    retry: "Retry | Inherit | None",
    progress: Progress,
    at_most_once: bool = False,
    timed: bool = False,
    begin: bool = True,
) -> "Window":
    """Check the options that all verbs share, and open a window.

    Args:
        executor: As for the verbs, like what follows.
        fn: The function.
        inputs: Argument tuples; or a `poolkit._hand.Hand` that somebody else fills.
        length: How many, if known.
        ordered: Whether results come in the order of the input.
        chunksize: How many items travel together.
        max_pending: The most items pulled and not yet yielded.
        task_timeout: Seconds that one item may run.
        timeout: Seconds until the last result must have been yielded.
        retry: Whether and how failed items are tried again.
        progress: What shows the progress.
        at_most_once: Whether nothing may be run twice.
        timed: Whether it matters when each item ran.
        begin: Whether to set the workers to work at once.
    """
    check_callable("fn", fn)
    check_chunksize(chunksize)
    bound = None if max_pending is None else check_positive_int("max_pending", max_pending)
    timeout = check_seconds("timeout", timeout, allow_zero=True)
    bar = open_progress(progress, function_name(fn), length)
    pool, owned = pool_for(executor)
    try:
        window = pool._window(
            fn,
            inputs,
            task_timeout=task_timeout,
            retry=retry,
            at_most_once=at_most_once,
            timed=timed,
            chunking=make_chunking(chunksize, pool._link.backend.chunk_seconds),
            ordered=ordered,
            bound=bound,
            length=length,
            timeout=timeout,
            progress=bar,
            release=partial(_shut_down, pool) if owned else None,
        )
        if begin and not pool.capabilities.runs_in_caller:
            window.start()
    except BaseException:
        if owned:
            _shut_down(pool, "left")
        raise
    return window


def _shut_down(pool: "PoolExecutor", ending: "Ending") -> None:
    pool.shutdown(wait=ending == "done", cancel_futures=True)
    if ending == "interrupted":
        pool._interrupt()


def zipped(
    verb: str, iterables: tuple[Iterable[Any], ...], strict: bool
) -> tuple[Iterable[tuple[Any, ...]], int | None]:
    """Return the argument tuples, and how many there are if all lengths are known."""
    from ._records import argument_tuples

    if not iterables:
        raise TypeError(f"{verb} needs at least one iterable of arguments")
    for iterable in iterables:
        if not hasattr(iterable, "__iter__") and not hasattr(iterable, "__getitem__"):
            raise TypeError(f"{verb} takes iterables of arguments, not {iterable!r:.80}")
    lengths = [operator.length_hint(iterable, -1) for iterable in iterables]
    inputs = argument_tuples(*iterables, strict=strict)
    return inputs, None if min(lengths) < 0 else min(lengths)


@public
def map_ordered(
    executor: str | Executor,
    fn: Callable[..., R],
    /,
    *iterables: Iterable[Any],
    chunksize: Chunksize = "auto",
    max_pending: int | None = None,
    task_timeout: Seconds = INHERIT,
    timeout: float | None = None,
    retry: "Retry | Inherit | None" = INHERIT,
    on_error: OnError = "raise",
    at_most_once: bool = False,
    strict: bool = False,
    progress: Progress = None,
) -> ResultIterator[R]:
    """Call ``fn`` on each item on a pool; yield the results in the order of the input.

    The input is pulled as results are consumed, so that infinite inputs work and memory stays
    bounded. Work begins at the call, not at the first ``next`` (on ``"inline"``, which works in
    the consumer, at the first ``next``). Dropping the iterator cancels what has not started.

    Args:
        executor: An executor, poolkit's or any other; or the name of a kind, for a pool of its
            own, which ends with the iteration.
        fn: The function. On processes it has to be importable from its module.
        *iterables: One iterable for each positional argument; the shortest ends the iteration.
        chunksize: Items that travel together; ``"auto"`` aims at about 2 ms of work, and at
            single items when they are slower. Errors and time-outs stay those of single items.
        max_pending: The most items pulled from the input and not yet yielded. By default the
            executor's own ``max_pending``, else enough to keep its workers busy.
        task_timeout: Seconds that one item may run, from its start in the worker; None for no
            limit; by default the executor's own.
        timeout: Seconds from this call until the last result must have been yielded.
        retry: Whether and how failed items are tried again, see `Retry`; None for not at all; by
            default as the executor has it.
        on_error: What a failure means (once it is not tried again): ``"raise"`` it, and cancel
            the rest; ``"skip"`` it; or a number of failures to tolerate, of which one more
            cancels the rest and raises an `ExceptionGroup` of all.
        at_most_once: Whether no item may run twice. If an item kills the worker process that
            it shares with others of its chunk, those that had finished, and whose results were
            not sent yet (about 2 ms of work), are otherwise run again. Costs a message per
            item; not together with a retry.
        strict: Whether iterables of different lengths are a `ValueError`.
        progress: True for a progress bar by tqdm, ``"rich"`` for one by rich, another text for
            a label (these need the extra ``progress``), or a function that is called with the
            number of items done, and of all, if known.

    Returns:
        An iterator of results. It can be closed, and used as a context manager.

    Raises:
        TaskTimeoutError: From the iterator: an item ran longer than ``task_timeout``.
        TimeoutError: From the iterator: ``timeout`` has passed.
        PoolShutdownError: The executor has been shut down.
        UnsupportedError: The kind can't keep a ``task_timeout``.
        Exception: From the iterator: whatever ``fn`` or an iterable raised; the error of an
            item carries a note that names its call. See ``on_error``; `map_outcomes` shows all.
        ExceptionGroup: From the iterator: more items failed than ``on_error`` tolerates.
    """
    inputs, length = zipped("map_ordered", iterables, strict)
    return _open(
        "map_ordered",
        values(on_error),
        executor,
        fn,
        inputs,
        length,
        ordered=True,
        chunksize=chunksize,
        max_pending=max_pending,
        task_timeout=task_timeout,
        timeout=timeout,
        retry=retry,
        at_most_once=at_most_once,
        progress=progress,
    )


@public
def map_unordered(
    executor: str | Executor,
    fn: Callable[..., R],
    /,
    *iterables: Iterable[Any],
    chunksize: Chunksize = "auto",
    max_pending: int | None = None,
    task_timeout: Seconds = INHERIT,
    timeout: float | None = None,
    retry: "Retry | Inherit | None" = INHERIT,
    on_error: OnError = "raise",
    at_most_once: bool = False,
    strict: bool = False,
    progress: Progress = None,
) -> ResultIterator[R]:
    """Call ``fn`` on each item on a pool; yield the results as they are completed.

    As `map_ordered` in everything but the order: same arguments, same errors. The first failure
    to come in is raised at once.
    """
    inputs, length = zipped("map_unordered", iterables, strict)
    return _open(
        "map_unordered",
        values(on_error),
        executor,
        fn,
        inputs,
        length,
        ordered=False,
        chunksize=chunksize,
        max_pending=max_pending,
        task_timeout=task_timeout,
        timeout=timeout,
        retry=retry,
        at_most_once=at_most_once,
        progress=progress,
    )


@public
def map_outcomes(
    executor: str | Executor,
    fn: Callable[..., R],
    /,
    *iterables: Iterable[Any],
    ordered: bool = False,
    chunksize: Chunksize = "auto",
    max_pending: int | None = None,
    task_timeout: Seconds = INHERIT,
    timeout: float | None = None,
    retry: "Retry | Inherit | None" = INHERIT,
    at_most_once: bool = False,
    strict: bool = False,
    progress: Progress = None,
) -> "ResultIterator[Outcome[R]]":
    """Call ``fn`` on each item on a pool; yield an `Outcome` for each, failures included.

    A task's failure is never raised, and stops no other task. Otherwise as `map_unordered`, or
    with ``ordered=True`` as `map_ordered`: same arguments. What the *input* raises is raised,
    once the outcomes of all items before it are out.
    """
    inputs, length = zipped("map_outcomes", iterables, strict)
    return _open(
        "map_outcomes",
        outcomes,
        executor,
        fn,
        inputs,
        length,
        ordered=ordered,
        chunksize=chunksize,
        max_pending=max_pending,
        task_timeout=task_timeout,
        timeout=timeout,
        retry=retry,
        at_most_once=at_most_once,
        timed=True,
        progress=progress,
    )


@public
def map_batches(
    executor: str | Executor,
    fn: Callable[[list[A]], R],
    iterable: Iterable[A],
    /,
    size: int,
    *,
    ordered: bool = True,
    max_pending: int | None = None,
    task_timeout: Seconds = INHERIT,
    timeout: float | None = None,
    retry: "Retry | Inherit | None" = INHERIT,
    on_error: OnError = "raise",
    progress: Progress = None,
) -> ResultIterator[R]:
    """Call ``fn`` on lists of ``size`` items; for functions that take many at once.

    Vectorised code, bulk inserts and requests that carry a list gain nothing from being called
    per item. Here a list is the task: ``max_pending``, ``task_timeout`` and the progress bar
    count lists, and a failure is that of a whole list.

    Args:
        executor: As for `map_ordered`.
        fn: A function of one list.
        iterable: The items.
        size: Items in each list; the last one may be shorter.
        ordered: Whether results come in the order of the input.
        max_pending: As for `map_ordered`, in lists.
        task_timeout: As for `map_ordered`.
        timeout: As for `map_ordered`.
        retry: As for `map_ordered`.
        on_error: As for `map_ordered`.
        progress: As for `map_ordered`.

    Returns:
        An iterator of what ``fn`` returned, one result for each list.
    """
    size = check_positive_int("size", size)
    inputs, length = zipped("map_batches", (iterable,), False)
    return _open(
        "map_batches",
        values(on_error),
        executor,
        fn,
        _lists(inputs, size),
        None if length is None else -(-length // size),
        ordered=ordered,
        chunksize=1,
        max_pending=max_pending,
        task_timeout=task_timeout,
        timeout=timeout,
        retry=retry,
        progress=progress,
    )


def _lists(inputs: Iterable[tuple[Any, ...]], size: int) -> Iterator[tuple[list[Any]]]:
    items = chain.from_iterable(inputs)
    while batch := list(islice(items, size)):
        yield (batch,)
