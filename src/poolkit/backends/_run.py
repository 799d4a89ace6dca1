"""Running a batch in the current thread: shared by every backend whose workers are threads here."""

import logging
import time
from collections.abc import Sequence

from .._backend import Batch, Record, Running, make_record
from .._errors import TaskAbortedError, TaskTimeoutError
from .._task import Awaiting, Run, TaskCancelled, threads
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

    _reported = 0.0
    # Of several items, what is to be reported. The one record of a batch of one never gets here.
    _records: list[Record] = []  # noqa: RUF012 - nobody adds to this one

    def __init__(self, batch: Batch, worker: str, owner: object = None) -> None:
        self.batch = batch
        self.worker = worker
        self.owner = owner
        if len(batch.items) > 1:
            self._records = []

    def execute(self) -> bool:
        """Run items until none is left; False as soon as one has been given up under way."""
        batch: Batch | None = self.batch
        assert batch is not None
        todo = batch.todo
        outer = threads.run
        threads.run = self
        if outer is not None:  # it goes on when we have ended
            self.outer = outer
            outer.awaiting = Awaiting((batch,), any_of=False)
        try:
            while todo:
                try:
                    number = todo.pop()
                except IndexError:  # somebody else was quicker
                    break
                if not self._run_item(batch, number):
                    return False
                if todo and time.monotonic() - self._reported > REPORT_EVERY:
                    self.hand_over()
            if self._records:
                self.hand_over()
        finally:
            threads.run = outer
            if outer is not None:
                outer.awaiting = None
        self.batch = batch = None  # see the end of `_run_item`
        return True

    def _run_item(self, batch: Batch, number: int) -> bool:
        """Run one item; False if it has been given up meanwhile."""
        value, error = None, None
        self.number = number
        self.token = None
        self.start = start = time.monotonic()
        batch.running[number] = self
        try:
            context = batch.context if len(batch.items) == 1 else batch.context.copy()
            value = context.run(batch.fn, *batch.items[number], **batch.kwargs)
        except BaseException as caught:
            error = without_our_frame(caught)
        duration = time.monotonic() - start
        if error is not None and isinstance(error, TaskCancelled):
            error = self._why_cancelled(error, duration)
        if batch.running.pop(number, None) is None:
            call = batch.describe(number)
            ending = "returned" if error is None else f"raised {type(error).__name__}"
            _log.info("%s %s after %.3f s, too late: dropped", call, ending, duration)
            del batch, value, error  # see the end
            return False
        record = (make_record((number, value, error, start, duration, self.worker)),)
        if self._records is LocalRun._records:
            batch.report(record)
        else:
            self._records += record
        # The user's frames in a traceback lead back to this one, for as long as the error lives.
        del batch, value, error, record
        return True

    def _why_cancelled(self, error: TaskCancelled, duration: float) -> BaseException:
        """Say why a task stopped by itself; it may have noticed before the keeper of deadlines."""
        limit = self.batch.options.task_timeout
        call = self.batch.describe(self.number)
        if limit is not None and duration >= limit:
            return TaskTimeoutError(call, limit)
        return TaskAbortedError(call) if self.stopping else error

    def has_news(self) -> bool:
        return bool(self._records)

    def hand_over(self) -> None:
        """Report what has ended. Any thread may call it: each record is taken out once."""
        batch, records = self.batch, self._take_records()
        self._reported = time.monotonic()
        if records and batch is not None:
            batch.report(records)

    def _take_records(self) -> list[Record]:
        taken: list[Record] = []
        while self._records:
            try:
                taken.append(self._records.pop(0))
            except IndexError:  # another thread was quicker
                break
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
        return None
    run.ask_to_stop()
    now = time.monotonic()
    records = run._take_records()
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
        for number, run in list(batch.running.items())
    ]
