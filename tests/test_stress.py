"""Eight threads do everything at once to a few pools; every future is resolved exactly once.

``POOLKIT_STRESS_SECONDS=20`` makes it last longer than the three seconds of a usual run.
"""

import itertools
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError
from concurrent.futures import as_completed as standard_as_completed
from concurrent.futures import wait as standard_wait
from contextlib import suppress
from random import Random
from typing import Any, Final

import pytest

import poolkit
from poolkit import (
    PoolExecutor,
    PoolShutdownError,
    TaskAbortedError,
    TaskFuture,
    current_task,
    make_executor,
)

from .tasks import square

SECONDS: Final = float(os.environ.get("POOLKIT_STRESS_SECONDS", "3"))
THREADS: Final = 8
POOLS: Final = 3
BURST: Final = 40
"""The most tasks that a thread submits in one go."""
PREFIX: Final = "stress-worker"
LONG: Final = 600.0
"""Seconds; what waits so long for something that must come hangs."""


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


class Failed(Exception):
    """What tasks raise."""


class Book:
    """Numbers all tasks, and notes what becomes of each; all fields grow by atomic operations."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self.refused: list[int] = []
        self.started: list[int] = []
        self.finished: list[int] = []
        self.failed: list[int] = []
        self.cancelled: list[int] = []
        self.aborted: list[int] = []
        self.wrong: list[str] = []

    def submit(self, pool: PoolExecutor, task: Callable[..., int], *args: Any) -> TaskFuture[int]:
        """Have ``task(*args)`` run under a new number, which should be its result."""
        number = next(self._numbers)
        try:
            future = pool.submit(self._run, number, task, *args)
        except PoolShutdownError:
            self.refused.append(number)
            raise
        future.add_done_callback(lambda future: self._note(number, future))
        return future

    def _run(self, number: int, task: Callable[..., int], *args: Any) -> int:
        self.started.append(number)
        task(*args)
        return number

    def _note(self, number: int, future: Any) -> None:
        if future.cancelled():
            self.cancelled.append(number)
            return
        error = future.exception(timeout=0)
        if error is None:
            self.finished.append(number)
            if future.result() != number:
                self.wrong.append(f"task {number} returned {future.result()!r}")
        elif isinstance(error, TaskAbortedError):
            self.aborted.append(number)
        elif isinstance(error, Failed):
            self.failed.append(number)
        else:
            self.wrong.append(f"task {number} failed with {error!r}")

    def resolved(self) -> int:
        """How many futures have been resolved."""
        return sum(map(len, (self.finished, self.failed, self.cancelled, self.aborted)))

    def check(self) -> None:
        """Check that each task has come to one end, and to one that fits how it began."""
        assert not self.wrong
        ran = self.finished + self.failed + self.aborted
        ended = sorted(ran + self.cancelled + self.refused)
        assert ended == list(range(next(self._numbers)))
        assert sorted(self.started) == sorted(ran)


class Pools:
    """A few open pools, and the thread that shuts one down puts a new one in its place."""

    def __init__(self) -> None:
        self._names = itertools.count()
        self.made: list[PoolExecutor] = []
        self._open = [self._make(index) for index in range(POOLS)]

    def _make(self, seed: int) -> PoolExecutor:
        pool = make_executor(
            "thread",
            1 + seed % 4,
            max_pending=BURST // 2 if seed % 3 == 0 else None,
            thread_name_prefix=f"{PREFIX}-{next(self._names)}",
            max_abandoned=1_000_000,
        )
        self.made.append(pool)
        return pool

    def pick(self, random: Random) -> PoolExecutor:
        """Return one that was open a moment ago."""
        return random.choice(self._open)

    def replace(self, random: Random) -> PoolExecutor:
        """Return one, which is now the caller's to shut down."""
        new = self._make(random.randrange(12))
        index = random.randrange(POOLS)
        old, self._open[index] = self._open[index], new  # if two do so, both shut down the same
        return old


class Actor:
    """One of the threads."""

    def __init__(self, seed: int, pools: Pools, book: Book) -> None:
        self.random = Random(seed)
        self.pools = pools
        self.book = book
        self.maps = 0

    def act(self, until: float) -> None:
        """Do one thing after the other."""
        often = {self.gather: 6, self.cancel: 4, self.nest: 2, self.map: 1, self.abort: 2}
        actions: dict[Callable[[PoolExecutor], None], float] = {**often, self.shutdown: 0.2}
        while time.monotonic() < until:
            # Another thread may shut the pool down, or this one did a moment ago.
            with suppress(PoolShutdownError):
                (action,) = self.random.choices([*actions], [*actions.values()])
                action(self.pools.pick(self.random))

    def burst(self, pool: PoolExecutor) -> list[TaskFuture[int]]:
        """Submit some quick tasks; fewer if the pool is closed meanwhile."""
        futures: list[TaskFuture[int]] = []
        with suppress(PoolShutdownError):
            for _ in range(self.random.randrange(1, BURST)):
                task = self.random.choice([square, square, fail])
                futures.append(self.book.submit(pool, task, 3))
        return futures

    def settle(self, futures: list[TaskFuture[int]]) -> None:
        """Wait for all, in one way or the other."""
        if not futures:
            return
        way = self.random.randrange(6)
        if way == 0:
            assert not standard_wait(futures, timeout=LONG).not_done
        elif way == 1:
            assert not poolkit.wait(futures).not_done
        elif way == 2:
            assert set(standard_as_completed(futures, timeout=LONG)) == set(futures)
        elif way == 3:
            assert set(poolkit.as_completed(futures)) == set(futures)
        elif way == 4:
            assert poolkit.wait(futures, return_when=FIRST_COMPLETED).done
        for future in self.random.sample(futures, len(futures)):
            with suppress(Failed, CancelledError):  # which it is, the book looks at
                assert future.result() >= 0

    def gather(self, pool: PoolExecutor) -> None:
        self.settle(self.burst(pool))

    def cancel(self, pool: PoolExecutor) -> None:
        futures = self.burst(pool)
        for future in self.random.sample(futures, len(futures) // 2):
            if future.cancel():
                assert future.cancelled()
                assert future.done()
        self.settle(futures)

    def nest(self, pool: PoolExecutor) -> None:
        def outer() -> int:
            try:
                inner = [self.book.submit(pool, square, 2) for _ in range(3)]
                return sum(future.result() for future in inner)
            except (PoolShutdownError, CancelledError):
                raise Failed from None

        futures = [self.book.submit(pool, outer)]
        with suppress(PoolShutdownError):
            futures.append(self.book.submit(pool, outer))
        self.settle(futures)

    def map(self, pool: PoolExecutor) -> None:
        count = self.random.randrange(100)
        taken = self.random.randrange(1, 100)
        if self.random.random() < 0.5:
            values = pool.map(square, range(count), chunksize=self.random.choice([1, 7]))
        else:
            values = poolkit.map_ordered(pool, square, range(count))
        try:
            found = list(itertools.islice(values, taken))  # the rest is taken back
        except CancelledError:
            return  # by a shutdown
        assert found == [x * x for x in range(min(count, taken))]
        self.maps += 1

    def abort(self, pool: PoolExecutor) -> None:
        running_or_done: queue.SimpleQueue[None] = queue.SimpleQueue()

        def hang() -> int:
            running_or_done.put(None)
            assert current_task().wait(LONG)
            return 0

        future = self.book.submit(pool, hang)
        future.add_done_callback(lambda _: running_or_done.put(None))
        if self.random.random() < 0.7:
            running_or_done.get(timeout=LONG)
        achieved = future.abort()
        assert future.done()
        if achieved == "abandoned":
            assert isinstance(future.exception(), TaskAbortedError)
        else:  # nobody else aborts it, so if it is finished, a shutdown has cancelled it
            assert future.cancelled()

    def shutdown(self, pool: PoolExecutor) -> None:
        pool = self.pools.replace(self.random)  # which may be another one
        cancel = self.random.random() < 0.5
        pool.shutdown(wait=self.random.random() < 0.5, cancel_futures=cancel)
        with pytest.raises(PoolShutdownError):
            self.book.submit(pool, square, 1)


def fail(_: int) -> int:
    raise Failed


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.usefixtures("frequent_switches")
def test_every_future_is_resolved_exactly_once(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    book, pools = Book(), Pools()
    actors = [Actor(seed, pools, book) for seed in range(THREADS)]
    until = time.monotonic() + SECONDS
    errors: list[BaseException] = []

    def act(actor: Actor) -> None:
        try:
            actor.act(until)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=act, args=(actor,), daemon=True) for actor in actors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    for pool in pools.made:
        pool.shutdown(wait=True)
        statistics = pool.statistics()
        assert (statistics.pending, statistics.running, statistics.waiting) == (0, 0, 0)
    for thread in threading.enumerate():
        if thread.name.startswith(PREFIX):  # an abandoned one, which was told to stop
            thread.join()
    for pool in pools.made:
        assert pool.statistics() == poolkit.Statistics()
    book.check()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    with capsys.disabled():
        print(
            f"\n{book.resolved()} futures in {SECONDS:g} s: {len(book.finished)} finished, "
            f"{len(book.failed)} failed, {len(book.cancelled)} cancelled, "
            f"{len(book.aborted)} aborted; {sum(actor.maps for actor in actors)} maps, "
            f"{len(pools.made)} pools",
            end=" ",
        )
