"""The two halves of a process pool, in one thread and without processes.

Each half is the real thing, up to its socket. What one of them sends is recorded in a rehearsal,
to be played to the other: so they can be counted apart, and no format is known here.
"""

import functools
import math
import socket
import threading
from collections.abc import Iterable
from typing import Any, Final, cast

import poolkit
from poolkit.backends.process.board import Board
from poolkit.backends.process.channel import WorkerEnd
from poolkit.backends.process.handle import State, Worker
from poolkit.backends.process.worker import _Worker

from ..tasks import nothing

TICK: Final = 1e-6
"""Seconds that pass at each look at the clock; also what an item takes."""
BURST: Final = 32
"""Tasks that are submitted before any result comes: so many are sent ahead to one worker."""
_PLENTY: Final = 2**20


class ParentHalf:
    """A pool whose only worker is a socket that is read here, and whose loop is turned by hand."""

    def __init__(self) -> None:
        self._pool = poolkit.make_executor("process", 1, start_method="fork")
        # Where a bound may make a map wait, no thread watches its input.
        self._bounded = self._pool.with_options(max_pending=_PLENTY)
        self._backend = backend = cast(Any, self._pool._link.backend)
        self._loop = backend.loop
        self._loop.start = lambda: None
        self._worker = Worker("worker", math.inf, self._loop.scratch)
        self._worker.state = State.READY
        backend.workers.append(self._worker)
        backend._packer._function(nothing)[0].observe(TICK)  # as otherwise one would go alone
        theirs = self._worker._theirs
        assert theirs is not None
        self._theirs = theirs
        self._results: Iterable[Any] = ()

    def send(self, size: int) -> bytes:
        """Send a chunk of so many tasks, or a burst of single ones; return what has arrived."""
        if size == 1:
            futures = [self._pool.submit(nothing, number) for number in range(BURST)]
            with self._backend.lock:  # as the loop does when something comes
                self._backend.feed()
            self._results = (future.result() for future in futures)
        else:
            self._results = self._bounded.map(nothing, range(size), chunksize=size)
        return self._theirs.recv(_PLENTY)

    def take_in(self, reply: bytes) -> int:
        """Take in what the worker sent, and read the results; return how many there are."""
        self._theirs.send(reply)
        messages = self._loop._read(self._worker)
        self._loop._take_in(self._worker, messages)
        self._loop._report()
        return sum(1 for _ in self._results)


class WorkerHalf:
    """A worker whose parent is always gone when it has done what it was sent."""

    def __init__(self) -> None:
        self._theirs, ours = socket.socketpair()
        end = WorkerEnd(ours)
        ours.setblocking(False)  # to find nothing there is an error, and means the end
        self._worker = _Worker(end, Board.make()[0], None, None)
        self._worker._holding = threading.Event()  # as if its thread had been started
        self._greeting = b""
        self._greeting = self.answer(b"")

    def answer(self, request: bytes) -> bytes:
        """Do what is asked for; return what was sent for it."""
        self._theirs.send(request)
        self._worker.serve()
        return self._theirs.recv(_PLENTY).removeprefix(self._greeting)


@functools.cache
def rehearse(size: int, count: int) -> list[tuple[bytes, bytes]]:
    """Have the two halves play together.

    Args:
        size: Tasks in a chunk; 1 for bursts of single ones.
        count: How many tasks; a multiple of what one exchange takes.

    Returns:
        What was sent either way, in each exchange.
    """
    parent, worker = ParentHalf(), WorkerHalf()
    exchanges: list[tuple[bytes, bytes]] = []
    missing = count
    while missing > 0:
        request = parent.send(size)
        reply = worker.answer(request)
        missing -= parent.take_in(reply)
        exchanges.append((request, reply))
    assert not missing, f"{count} tasks don't fit into bursts of {BURST} and chunks of {size}"
    return exchanges
