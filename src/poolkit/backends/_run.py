"""Running a batch in the current thread: shared by every backend whose workers are threads here."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

from .._backend import Batch, Lone, Record, Running, Successes, make_record
from .._errors import TaskAbortedError, TaskCancelled, TaskTimeoutError
from .._task import Awaiting, Run, threads
from ._tracebacks import without_our_frame

_log = logging.getLogger("poolkit")

# Results of a long chunk are handed over at this pace, in seconds: often enough that a consumer
# never notices the chunk, seldom enough to cost nothing per item.
REPORT_EVERY = 0.002

# How many awaited tasks may run on top of each other's stacks in one thread. More would come
# near Python's recursion limit where each adds frames of its own; past this, slots are lent.
MAX_NESTED = 24


class LocalRun(Run):
    """One worker's pass over what is left of a batch.

    While item k runs, ``batch.running[k]`` is this object. Taking that entry out is the right to
    report k: the worker takes it when the call has returned, `surrender` when somebody gave the
    item up before. A worker that finds it gone has been abandoned and touches nothing any more.
    """

    clock: Callable[[], float] = staticmethod(time.monotonic)
    """What the time is."""

    def __init__(self, batch: Batch, worker: str, owner: object = None) -> None:
        self.batch = batch
        self.worker = worker
        self.owner = owner

    def execute(self) -> bool:
        """Run items until none is left; False as soon as one has been given up under way."""
        batch: Batch | None = self.batch
        assert batch is not None
        outer = threads.run
        threads.run = self
        if outer is not None:  # it goes on when we have ended
            self.outer = outer
            outer.awaiting = Awaiting((batch,), any_of=False)
        try:
            if not self._run_all(batch):
                return False
        finally:
            threads.run = outer
            if outer is not None:
                outer.awaiting = None
        self.batch = batch = None  # see the end of `_run_all`
        return True

    def _run_all(self, batch: Batch) -> bool:
        """Run the only item of a batch; False if it has been given up meanwhile."""
        try:
            number = batch.todo.pop()
        except IndexError:  # somebody else was quicker
            return True
        # Another attempt is to find the context as this one does.
        context = batch.context if batch.options.retry is None else batch.context.copy()
        self.number = number
        self.start = self.clock()
        batch.running[number] = self
        goes_on = self._run_begun(batch, number, context)
        del batch, context  # see the end of what was called
        return goes_on

    def _run_begun(self, batch: Batch, number: int, context: Context) -> bool:
        """Call the function for an item that runs; False if it has been given up meanwhile."""
        value, error, start = None, None, self.start
        try:
            value = context.run(batch.fn, *batch.items[number], **batch.kwargs)
        except BaseException as caught:
            error = without_our_frame(caught)
        duration = self.clock() - start
        if error is not None:
            error = self._judge(error, duration)
        if batch.running.pop(number, None) is None:
            self._too_late(batch, number, error, duration)
            del batch, value, error  # see the end
            return False
        batch.report((make_record((number, value, error, start, duration, self.worker)),))
        # The user's frames in a traceback lead back to this one, for as long as the error lives.
        del batch, value, error, context
        return True

    def _too_late(
        self, batch: Batch, number: int, error: BaseException | None, duration: float
    ) -> None:
        ending = "returned" if error is None else f"raised {type(error).__name__}"
        call = batch.describe(number)
        _log.info("%s %s after %.3f s, too late: dropped", call, ending, duration)

    def _judge(self, error: BaseException, duration: float) -> BaseException:
        """Say why a task stopped by itself; it may have noticed before the keeper of deadlines."""
        if not isinstance(error, TaskCancelled):
            return error
        limit = self.batch.options.task_timeout
        call = self.batch.describe(self.number)
        if limit is not None and duration >= limit:
            return TaskTimeoutError(call, limit)
        return TaskAbortedError(call) if self.stopping else error

    def hand_over(self) -> None:
        """Report what has ended. Any thread may call it."""

    def give_up(self, number: int) -> bool:
        """Take an item from the worker, where `Batch.running` does not tell which one it has."""
        return False

    def take_records(self) -> Sequence[Record]:
        """Return what has ended and was not reported; it counts as reported from now on."""
        return ()


class ChunkRun(LocalRun):
    """A pass over a batch of many, whose results are handed over now and then.

    Invariants:

    * Only the worker adds to ``_values`` and ``_times``, the time before the value; whoever takes
      away holds ``_taking``. Item ``_first`` + n began at the n-th of the times, and returned the
      n-th of the values; the time after that of the last value is when the item at hand began.
    """

    def __init__(self, batch: Batch, worker: str, owner: object = None) -> None:
        super().__init__(batch, worker, owner)
        self._reported = 0.0
        self._first = -1
        self._values: list[Any] = []
        self._times: list[float] = []
        # Guards taking from the lists, and `_first`. Re-entrant, as the collector may strike.
        self._taking = threading.RLock()

    def _run_all(self, batch: Batch) -> bool:
        while batch.todo:
            # To each task, the context is as it was at first.
            context = batch.context.copy()
            if not context.run(self._run_some, batch, context):
                return False
        self.hand_over()
        return True

    def _run_some(self, batch: Batch, context: Context) -> bool:
        """Run one item, or, in an empty context, items until one fills it.

        To compare contexts that are not empty would be to compare the values in them, which is
        code of the user's.

        Returns:
            False if an item has been given up under way.
        """
        todo, running, fn, items = batch.todo, batch.running, batch.fn, batch.items
        lone = items.arguments if type(items) is Lone else None
        values, times, clock = self._values, self._times, time.monotonic
        claim, keep, note = todo.pop, values.append, times.append
        filled = len(context) > 0
        expected = self._first + len(values) if times else -1
        end = clock()
        report_at = self._reported + REPORT_EVERY
        while todo:
            try:
                number = claim()
            except IndexError:  # somebody else was quicker
                break
            if number != expected:
                self._begin_at(number, end)
            expected = number + 1
            self.number = number
            self.token = None
            self.start = start = end
            running[number] = self
            try:
                value = fn(*items[number]) if lone is None else fn(lone[number])
            except BaseException as caught:
                failed = self._failed(batch, number, without_our_frame(caught), start)
                if not failed:
                    return False
                end = clock()
                expected = -1
            else:
                end = clock()
                if running.pop(number, None) is None:
                    self._too_late(batch, number, None, end - start)
                    return False
                note(end)
                keep(value)
                del value  # keep nothing alive while the next one runs
            if end > report_at and todo:
                self.hand_over()
                end = clock()
                report_at = end + REPORT_EVERY
                times[-1:] = [end]  # there is one at most now, and nobody else looks at it
            if filled or len(context):
                break
        return True

    def _begin_at(self, number: int, start: float) -> None:
        """Begin another run of numbers: what has ended is handed over before."""
        self.hand_over()
        with self._taking:
            self._first = number
            self._times[:] = [start]

    def _failed(self, batch: Batch, number: int, error: BaseException, start: float) -> bool:
        """Report a failure; False if the item has been given up meanwhile."""
        duration = time.monotonic() - start
        error = self._judge(error, duration)
        if not self._settle(batch, number):
            self._too_late(batch, number, error, duration)
            del error
            return False
        self.hand_over()
        self._times.clear()
        batch.report((make_record((number, None, error, start, duration, self.worker)),))
        # The user's frames in a traceback lead back to this one, for as long as the error lives.
        del batch, error
        return True

    def _settle(self, batch: Batch, number: int) -> bool:
        """Take the right to report an item; False if it has been given up."""
        return batch.running.pop(number, None) is not None

    def has_news(self) -> bool:
        return bool(self._values)

    def hand_over(self) -> None:
        batch, records = self.batch, self.take_records()
        self._reported = time.monotonic()
        if records and batch is not None:
            batch.report(records)

    def take_records(self) -> Sequence[Record]:
        with self._taking:
            first, values, times = self._first, self._values, self._times
            count = len(values)
            if not count:
                return ()
            taken = Successes(first, values[:count], times[: count + 1], self.worker)
            self._first += count
            del values[:count]
            del times[:count]
            return taken


def surrender(
    batch: Batch, number: int, error: BaseException
) -> tuple[LocalRun, list[Record]] | None:
    """Give up a running item, and ask it to stop.

    Returns:
        The run, whose worker is abandoned from now on, and what is to be reported for it: what
        the worker had not yet, and `error` for the item. None if the item had just ended, or
        not started.
    """
    run: LocalRun | None = batch.running.pop(number, None)
    if run is None:
        runs: list[LocalRun] = list(batch.running.values())
        run = next((each for each in runs if each.give_up(number)), None)
    if run is None:
        return None
    run.ask_to_stop()
    now = run.clock()
    records = run.take_records()
    return run, [
        *records,
        Record(number, None, error, run.start, now - run.start, run.worker),
    ]


def running_items(batches: Sequence[Batch | None]) -> list[Running]:
    """Return what runs of `batches` at this moment."""
    return [
        Running(batch, number, run.start)
        for batch in batches
        if batch is not None
        for key, run in list(batch.running.items())
        if (number := key if key >= 0 else run.at_hand) is not None
    ]
