"""The one engine behind all verbs: pull, chunk, dispatch, bound, yield.

::

    input ──pull──> batches ──dispatch──> backend ──records──> inbox ──> ready ──> consumer
          └───────────── pulled and not yet yielded: at most `bound` ──────────┘

Everything happens in the consumer's thread, except that workers put records into the inbox: one
``SimpleQueue.put`` per report, no lock and no future per item; and that a chunk which the input
keeps waiting is dispatched by another thread (see `poolkit._hand`). The input is pulled by the
consumer's thread alone, so a plain generator is safe, and a slow consumer stops the producer; an
input that is slower than a millisecond an item is pulled only when no result is ready.

Invariants:

* Whenever the consumer's code runs, pulled - yielded <= bound. The item being yielded counts as
  yielded.
* Batches know the inbox, never the window: an iterator that is dropped can be collected, and
  then takes back what has not started.
* Every dispatched item comes back through the inbox once: with a record, or as withdrawn.
"""

import contextlib
import math
import queue
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from itertools import chain
from typing import Any, Final, Literal, Protocol, cast

from ._backend import Record, Successes
from ._chunking import Chunking
from ._clock import nap
from ._errors import PoolkitError
from ._hand import PATIENCE, Hand
from ._notes import add_note
from ._options import TaskOptions
from ._submission import FaceBatch, Link
from ._task import threads, waiting_for

# How long to wait before asking workers for results that they hold back, at first, in seconds.
REPORT_EVERY: Final = 0.004
# How long the verb's call itself may spend on pulling, in seconds, before it returns.
FIRST_PULLS: Final = 0.005

# With no bound given: chunks ahead per worker (one runs, one waits, one comes back, one is
# looked at), and the most items ahead, however small.
CHUNKS_AHEAD: Final = 4
ITEMS_AHEAD: Final = 16384


class Inbox(queue.SimpleQueue[Any]):
    """Where the batches of a window put pairs of themselves and their records."""

    closed = False
    """Nobody reads it any more. What still comes must not stay in it: it would be a cycle."""
    ring: Callable[[], object] | None = None
    """Called when something has been put in, by whoever does so."""

    def put_records(self, batch: "WindowBatch", records: Sequence[Record]) -> None:
        """Deliver results; any thread may."""
        if not self.closed:
            self.put((batch, records))
            if self.ring is not None:
                self.ring()

    def close(self) -> None:
        """Read it no more, and let go of what is in it."""
        self.closed = True
        self.ring = None
        with contextlib.suppress(queue.Empty):
            while True:
                self.get_nowait()


class WindowBatch(FaceBatch):
    """A chunk of a window's input."""

    __slots__ = ("base", "dispatched", "inbox", "missing", "timed", "weight")

    def __init__(
        self,
        link: Link,
        fn: Callable[..., Any],
        items: Sequence[tuple[Any, ...]],
        options: TaskOptions,
        base: int,
        inbox: Inbox,
        timed: bool,
    ) -> None:
        super().__init__(link, fn, items, {}, options)
        self.timed = timed
        self.base = base
        self.dispatched = link.backend.clock.monotonic()
        self.inbox = inbox
        self.missing = len(items)
        """Items that have not come back; the consumer's thread counts."""
        self.weight = 0
        """How many bytes its arguments take, if that is many."""

    def weigh(self, size: int) -> None:
        self.weight = size

    @property
    def may_repeat(self) -> bool:  # type: ignore[override]
        return not self.inbox.closed and super().may_repeat

    def settle(self, records: Sequence[Record]) -> None:
        self.inbox.put_records(self, records)

    def settle_withdrawn(self, indices: Collection[int]) -> None:
        self.inbox.put_records(
            self, [Record(index, None, CancelledError(), 0.0, 0.0, "") for index in indices]
        )


class Progress(Protocol):
    """What a progress bar has to offer."""

    def update(self, count: int, failed: int, /) -> object:
        """Count items that came back, and those of them that failed."""
        ...

    def close(self) -> object:
        """End the display."""
        ...


Arrival = tuple[WindowBatch, Sequence[Record]]

# Stands for a piece where the window does not wait itself: there is none yet.
NOTHING_YET: Final[Arrival] = cast(Arrival, (None, ()))

Ending = Literal["done", "left", "interrupted"]
"""How a window ends: all is yielded, or its iterator was closed in an orderly way, and what still
runs may be waited for; it was dropped or has failed; Ctrl-C has ended it."""


class Window:
    """One run of a verb over its input."""

    def __init__(
        self,
        link: Link,
        fn: Callable[..., Any],
        inputs: Iterable[tuple[Any, ...]],
        *,
        options: TaskOptions,
        chunking: Chunking,
        ordered: bool,
        bound: float | None = None,
        as_submits: bool = False,
        timed: bool = False,
        length: int | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
        release: Callable[[Ending], None] | None = None,
        keep: object = None,
    ) -> None:
        """Prepare; nothing is pulled before `start`.

        Args:
            link: Where batches go.
            fn: The function.
            inputs: Argument tuples.
            options: How each task is to be run.
            chunking: How many items travel together.
            ordered: Whether results come in the order of the input.
            bound: The most items pulled and not yet yielded; None to choose, inf for all.
            as_submits: Whether items are sent like a series of `submit` calls: under the pool's
                ``max_pending``, and ahead of the consumer even if that means to run them here.
            timed: Whether it matters when each item ran.
            length: Length of the input, if known.
            timeout: Seconds from now until the last result must have been yielded.
            progress: Told of items that came back.
            release: Called once at the end, with how it ends.
            keep: The executor, which must not be collected, and its workers with it, before this.
        """
        self._link = link
        self._fn = fn
        may_block = as_submits and link.limited
        backend = link.backend
        in_caller = backend.capabilities.runs_in_caller
        self._clock = backend.clock
        watched = not (in_caller or backend.hosted or may_block)
        self._hand: Hand = (
            inputs if isinstance(inputs, Hand) else Hand(inputs, backend.clock, watched=watched)
        )
        self._options = options
        self._chunking = chunking
        self._ordered = ordered
        self._bound = bound
        self._as_submits = as_submits
        self._timed = timed or link.events is not None
        self._in_caller = in_caller
        self._length = length
        self._deadline = None if timeout is None else self._clock.monotonic() + timeout
        self._timeout = timeout
        self._progress = progress
        self._release = release
        self._keep = keep

        self.inbox = Inbox()
        self._in_flight: dict[WindowBatch, None] = {}
        self._early: dict[int, Arrival] = {}  # came back before its turn
        self._turn = 0  # the place of the next item in the input's order
        self._ready: deque[Arrival] = deque()  # may be yielded
        self._turns: list[Any] = []  # what was yielded last ends when this is cleared
        self.starved = False
        """Whether what was yielded last was `NOTHING_YET`."""
        self.waits = True
        """Whether `pieces` waits where nothing is ready, or says so."""
        self.attended = False
        """Whether anybody has asked for a result, or said that none is wanted."""
        self._pulled = 0
        self._returned = 0
        self._yielded = 0
        self._feed_at: float = 0  # look after the input when so many have been yielded
        self._exhausted = False
        self._input_error: BaseException | None = None

    # -- feeding ----------------------------------------------------------------------------

    def start(self) -> None:
        """Set the workers to work on the first items.

        Raises:
            PoolkitError: The pool takes no work.
        """
        eager = self._bound == math.inf
        self._feed(math.inf if eager else FIRST_PULLS)
        refused = isinstance(self._input_error, PoolkitError) and not self._pulled
        if self._input_error is not None and (eager or refused):
            self.close()
            raise self._input_error

    def _limit(self) -> float:
        if self._bound is not None:
            return self._bound
        workers = self._link.backend.max_workers
        return min(CHUNKS_AHEAD * workers * self._chunking.size, max(ITEMS_AHEAD, workers))

    def _feed(self, budget: float = math.inf) -> None:
        """Pull and dispatch as long as there is room, but hold no result back for a slow input.

        Args:
            budget: Seconds of pulling after which to stop in any case.
        """
        one_at_a_time = self._in_caller and not self._as_submits
        while not self._exhausted:
            limit = self._limit()
            # A whole chunk or nothing, so that a full window does not decay into chunks of one.
            if self._hand.dry:
                return
            chunk = min(self._chunking.size, limit)
            self._feed_at = self._pulled + chunk - limit
            if self._yielded < self._feed_at or (
                self._ready and (one_at_a_time or self._hand.seconds > PATIENCE)
            ):
                return
            self._feed_chunk(limit - (self._pulled - self._yielded))
            self._collect()
            budget -= self._hand.seconds
            if budget < 0:
                return
        self._feed_at = math.inf

    def _feed_chunk(self, room: float) -> None:
        hand = self._hand
        try:
            hand.fill(int(min(self._chunk_size(), room)), self._send)
        except BaseException:
            self.close("interrupted")  # Ctrl-C while pulling: now
            raise
        if hand.exhausted:
            self._exhausted = True
            self._input_error = self._input_error or hand.error

    def _send(self, items: Sequence[tuple[Any, ...]]) -> None:
        """Dispatch a chunk; perhaps in another thread, while the consumer's waits for the input."""
        if self._exhausted:  # closed, or refused before
            return
        if self._in_caller:  # elsewhere, time passes in `_get`
            self.check_deadline()
        base, self._pulled = self._pulled, self._pulled + len(items)
        batch = WindowBatch(
            self._link, self._fn, items, self._options, base, self.inbox, self._timed
        )
        self._in_flight[batch] = None
        try:
            self._link.dispatch(batch, bounded=self._as_submits)
        except Exception as error:
            # Not one of these items runs: they end like an input that broke off before them. It
            # is raised once all results are out.
            self._in_flight.pop(batch, None)
            self._pulled = base
            self._exhausted = True
            self._input_error = error
        self._chunking.weigh(batch.weight / len(items))

    def _chunk_size(self) -> int:
        size = self._chunking.size
        if self._length is not None:  # towards the end, smaller chunks end together
            left = max(0, self._length - self._pulled)
            size = min(size, max(1, math.ceil(left / (2 * self._link.backend.max_workers))))
        return size

    # -- yielding ---------------------------------------------------------------------------

    def pieces(self) -> Generator[Arrival]:
        """Yield what comes back, in the input's order if asked; for `values` and its like.

        A piece counts as yielded as soon as it is out: whoever takes it uses it up before asking
        for the next, and the input is pulled only then.

        Where `waits` is false, the caller waits: what is yielded then is `NOTHING_YET`.
        """
        self.attended = True
        try:
            while True:
                self._feed()
                self._collect()
                if not self._ready:
                    if self._pulled == self._returned and self._exhausted:
                        break
                    if self.waits:
                        self._take_in(*self._wait())
                    else:
                        self.check_deadline()
                        self.starved = True
                        yield NOTHING_YET
                        self.starved = False
                    continue
                while self._ready:
                    self._yielded += len(self._ready[0][1])
                    yield self._ready.popleft()
                    if self._yielded >= self._feed_at:
                        break
            if self._input_error is not None:
                error, self._input_error = self._input_error, None
                raise error
            self.close("done")
        except (Exception, GeneratorExit):
            raise
        except BaseException:
            self.close("interrupted")
            raise
        finally:
            self.close()

    def values(self) -> Generator[Any]:
        """Yield what the function returned; raise the first failure and take back the rest.

        A generator, as ``Executor.map`` of the standard library returns one: it can be closed.
        """
        runs = self.value_runs()
        try:
            yield from chain.from_iterable(runs)
        finally:
            runs.close()

    def value_runs(self) -> Generator[Iterator[Any]]:
        """Yield iterators over what the function returned; raise the first failure.

        Where nothing is ready, and the caller waits, an empty one.
        """
        for piece in self.pieces():
            records = piece[1]
            del piece
            if not records:
                yield iter(())
                continue
            if isinstance(records, Successes):
                handover = [self.serve(records.values, small=records.small)]
                del records
                yield handover.pop()
                continue
            pending = [*reversed(records)]
            del records
            while pending:
                record = pending.pop()
                error, handover = record.error, [self.serve([record.value])]
                del record
                if error is not None:
                    del pending, handover
                    self.close()
                    try:
                        raise error
                    finally:
                        del error  # a traceback that holds its own error would be a cycle
                yield handover.pop()

    def serve(self, values: list[Any], *, small: bool = False) -> Iterator[Any]:
        """Return an iterator that uses a list up, and ends when the window is closed.

        All in C. It keeps nothing that it has yielded: that may be large, and its consumer may
        want to be rid of it.

        Args:
            values: The list.
            small: Whether all of them may be kept until the last has been yielded.
        """
        if small:
            self._turns = values
            return iter(values)
        values.reverse()
        self._turns = [-1] * len(values)
        return map(values.pop, self._turns)

    def _wait(self) -> Arrival:
        if not threads.in_pool:
            return self._get()
        deadline, inbox = self._deadline, self.inbox
        with waiting_for(
            list(self._in_flight),
            any_of=True,
            untimed=deadline is None,
            come=lambda: not inbox.empty(),
            timeout=None if deadline is None else max(0.0, deadline - self._clock.monotonic()),
        ):
            return self._get()

    def _get(self) -> Arrival:
        pause = REPORT_EVERY
        while True:
            # Only a chunk can hold ended items behind one that runs; see `fetch`.
            limit = min(max(0.0, self.left), pause if self.has_chunks else math.inf)
            try:
                return cast(Arrival, self.inbox.get(timeout=nap(limit)))
            except queue.Empty:
                self.check_deadline()
            self.fetch()
            pause = min(2 * pause, 0.25)

    @property
    def has_chunks(self) -> bool:
        """Whether any of what is under way are several items that travel together."""
        return any(len(batch.items) > 1 for batch in self._in_flight)

    @property
    def left(self) -> float:
        """Seconds until the last result must have been yielded; infinite for no limit."""
        deadline = self._deadline
        return math.inf if deadline is None else deadline - self._clock.monotonic()

    @property
    def room(self) -> float:
        """How many more items may be pulled, as nobody may be waiting for the results of others."""
        return self._limit() - (self._pulled - self._yielded)

    def check_deadline(self) -> None:
        """Raise `TimeoutError` if it has passed.

        Raises:
            TimeoutError: It has.
        """
        if self.left <= 0:
            raise TimeoutError(
                f"{self._pulled - self._returned} results still missing after timeout="
                f"{self._timeout:g} s; {self._yielded} were yielded"
            ) from None

    def fetch(self) -> None:
        """Have workers in this process report the items of a chunk that ended before a slow one."""
        for batch in self._in_flight:
            for run in list(batch.running.values()):
                run.hand_over()

    def _collect(self) -> None:
        """Take in what has come back, without waiting."""
        while not self.inbox.empty():
            self._take_in(*self.inbox.get_nowait())

    def _take_in(self, batch: WindowBatch, records: Sequence[Record]) -> None:
        count = len(records)
        batch.missing -= count
        if not batch.missing:
            self._in_flight.pop(batch, None)
        self._returned += count
        self._chunking.observe(records)
        failed = 0
        if not isinstance(records, Successes):
            for record in records:
                if record.error is not None:
                    failed += 1
                    if isinstance(record.error, KeyboardInterrupt) and self._in_caller:
                        raise record.error  # Ctrl-C, which happened to strike in a task
                    place = batch.base + record.number
                    add_note(batch, record, place, batch.attempt_at(record.number))
        if self._progress is not None:
            self._progress.update(count, failed)
        if not self._ordered:
            self._ready.append((batch, records))
            return
        # By the place of the first item in the whole input.
        if isinstance(records, Successes):
            self._early[batch.base + records.first] = batch, records
        else:
            for record in records:
                self._early[batch.base + record.number] = batch, [record]
        while (arrival := self._early.pop(self._turn, None)) is not None:
            self._ready.append(arrival)
            self._turn += len(arrival[1])

    # -- ending -----------------------------------------------------------------------------

    @property
    def missing(self) -> int:
        """How many items were pulled and have not come back."""
        return self._pulled - self._returned

    def abort(self) -> None:
        """Take back what has not started, and end what runs, by the means of the kind."""
        batches = list(self._in_flight)
        self.close("interrupted")
        for batch in batches:
            batch.ask_to_stop()
        if self._link.backend.capabilities.stops == "killed":
            self._link.stop(batches)

    def close(self, ending: Ending = "left") -> None:
        """Take back what has not started, and pull no more; safe to repeat.

        Args:
            ending: How it ends: whether to wait for what runs, to leave it or to end it, if the
                pool is this window's own.
        """
        self._exhausted = True
        self._hand.close()
        batches, self._in_flight = self._in_flight, {}
        for batch in batches:
            batch.take_back()
        # Nothing is kept any longer than needed.
        self.inbox.close()
        self._ready.clear()
        self._early.clear()
        self._turns.clear()
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.close()
        release, self._release = self._release, None
        if release is not None:
            release(ending)
