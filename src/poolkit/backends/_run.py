"""Running a batch in the current thread: shared by every backend whose workers are threads here."""

import logging
import time
from collections.abc import Sequence

from .._backend import Batch, Record, Running
from .._describe import describe_call
from .._task import threads

_log = logging.getLogger("poolkit")

# Results of a long chunk are handed over at this pace, in seconds: often enough that a consumer
# never notices the chunk, seldom enough to cost nothing per item.
REPORT_EVERY = 0.002


class Run:
    """One worker's pass over what is left of a batch.

    While item k runs, ``batch.running[k]`` is this object. Taking that entry out is the right to
    report k: the worker takes it when the call has returned, `surrender` when somebody gave the
    item up before. A worker that finds it gone has been abandoned and touches nothing any more.
    """

    __slots__ = ("_records", "_reported", "batch", "owner", "start", "worker")

    def __init__(self, batch: Batch, worker: str, owner: object = None) -> None:
        self.batch = batch
        self.worker = worker
        self.owner = owner
        self.start = 0.0
        self._records: list[Record] = []
        self._reported = 0.0

    def execute(self) -> bool:
        """Run items until none is left; False as soon as one has been given up under way."""
        todo = self.batch.todo
        outer, threads.batch = threads.batch, self.batch
        try:
            while True:
                try:
                    index = todo.pop()
                except IndexError:
                    break
                if not self._run_item(index):
                    return False
                if todo and self._records[-1].start - self._reported > REPORT_EVERY:
                    self._flush()
        finally:
            threads.batch = outer
        self._flush()
        return True

    def _run_item(self, index: int) -> bool:
        batch = self.batch
        value, error = None, None
        self.start = start = time.monotonic()
        batch.running[index] = self
        try:
            value = batch.context.copy().run(batch.fn, *batch.items[index], **batch.kwargs)
        except BaseException as caught:
            # Without our own frame, the traceback starts in the user's code, and does not
            # hold on to this frame, which holds on to the error.
            error = caught.with_traceback(caught.__traceback__ and caught.__traceback__.tb_next)
        duration = time.monotonic() - start
        if batch.running.pop(index, None) is None:
            call = describe_call(batch.fn, batch.items[index], batch.kwargs)
            ending = "returned" if error is None else f"raised {type(error).__name__}"
            _log.info("%s %s after %.3f s, too late: dropped", call, ending, duration)
            return False
        self._records.append(Record(index, value, error, start, duration, self.worker))
        return True

    def _flush(self) -> None:
        records, self._records = self._records, []
        self._reported = time.monotonic()
        if records:
            self.batch.report(records)


def surrender(batch: Batch, index: int, error: BaseException) -> Run | None:
    """Give up a running item: report `error` for it, after what its worker had not yet reported.

    Returns:
        The run that is to be abandoned; None if the item had just ended, or not started.
    """
    run: Run | None = batch.running.pop(index, None)
    if run is None:
        return None
    now = time.monotonic()
    records, run._records = run._records, []
    batch.report([*records, Record(index, None, error, run.start, now - run.start, run.worker)])
    return run


def running_items(batches: Sequence[Batch | None]) -> list[Running]:
    """Return what runs of `batches` at this moment."""
    return [
        Running(batch, index, run.start)
        for batch in batches
        if batch is not None
        for index, run in list(batch.running.items())
    ]
