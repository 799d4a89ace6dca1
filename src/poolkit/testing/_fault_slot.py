"""A thread of the pool behind, as tasks and callbacks of the pool in front find it.

A task that waits is looked at by pool: a task of the pool in front has to find a worker of that
pool. So what the thread is known by, its slot and whom it serves, is exchanged while it runs.
"""

from typing import TYPE_CHECKING

from .._backend import Batch
from .._task import Slot, threads

if TYPE_CHECKING:
    from ._fault_backend import FaultyBackend


class InFront:
    """While entered, what this thread belongs to is the pool in front, not the one behind.

    Args:
        backend: The pool in front; None for no change.
    """

    def __init__(self, backend: "FaultyBackend | None") -> None:
        self._backend = backend

    def __enter__(self) -> None:
        backend, slot, serving = self._backend, threads.slot, threads.serving
        self._outer = slot, serving
        if backend is not None:
            if slot is not None and slot.backend is backend.behind:
                threads.slot = _FaultySlot(slot, backend)
            if serving is backend.behind:
                threads.serving = backend

    def __exit__(self, *_exc: object) -> None:
        threads.slot, threads.serving = self._outer


class _FaultySlot:
    """A worker of the pool behind, as a `Slot` of the one in front."""

    def __init__(self, slot: Slot, backend: "FaultyBackend") -> None:
        self._slot = slot
        self.backend = backend
        self.lend = slot.lend
        self.reclaim = slot.reclaim

    def run_here(self, batch: Batch) -> None:
        self._slot.run_here(self.backend.sent(batch))
