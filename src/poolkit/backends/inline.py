"""The ``"inline"`` kind: tasks run in the caller, at once. For tests, debugging and fallbacks."""

from collections.abc import Callable, Sequence
from typing import Any

from .._backend import Backend, Batch, Capabilities, Record, Running, Statistics
from .._errors import PoolBrokenError, TaskTimeoutError
from ._quick_run import make_run
from ._run import running_items
from ._stand_in import StandIn


class LateCalls(StandIn):
    """A batch whose calls are measured once they have returned: nobody can stop them before."""

    __slots__ = ("_limit",)

    def __init__(self, inner: Batch, limit: float) -> None:
        super().__init__(inner)
        self._limit = limit

    def report(self, records: Sequence[Record]) -> None:
        super().report([self._judge(record) for record in records])

    def _judge(self, record: Record) -> Record:
        if record.duration <= self._limit:
            return record
        late = TaskTimeoutError(self.describe(record.number), self._limit)
        late.__context__ = record.error
        return record._replace(value=None, error=late)


class InlineBackend(Backend):
    """Runs each batch inside `dispatch`. Calls from several threads run side by side."""

    capabilities = Capabilities(runs_in_caller=True, deadlines="after")
    max_workers = 1

    def __init__(
        self, name: str, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        self.name = name
        self._running: list[Batch] = []  # appended and removed from atomically
        self._initializer = initializer
        self._initargs = initargs
        self._broken: BaseException | None = None

    def dispatch(self, batch: Batch) -> None:
        self._initialize()
        limit = batch.options.task_timeout
        runnable = batch if limit is None else LateCalls(batch, limit)
        self._running.append(batch)
        try:
            make_run(runnable, "inline").execute()
        finally:
            self._running.remove(batch)

    def _initialize(self) -> None:
        initializer, self._initializer = self._initializer, None
        if initializer is not None:
            try:
                initializer(*self._initargs)
            except BaseException as error:
                self._broken = error
        if self._broken is not None:
            raise PoolBrokenError(self.name, "its initializer failed") from self._broken

    def withdraw(self, batch: Batch) -> list[int]:
        return batch.claim_rest()

    def stop(self, batch: Batch, number: int, error: BaseException) -> bool:
        return False

    def running(self) -> list[Running]:
        return running_items(list(self._running))

    def statistics(self) -> Statistics:
        return Statistics(running=len(self.running()))

    def shutdown(self, wait: bool) -> None:
        """Nothing to release: a batch is done when its dispatch returns."""
