"""What is done on processes while their system calls are counted; see `system_calls`.

Much of what a pool sends depends on how long tasks take. So that this is always the same, all
processes share a clock that is moved by looks at it, and by little. All run on one CPU, and there
is one worker, so that less depends on who is quicker.
"""

import contextlib
import mmap
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

import poolkit
from poolkit._executor import PoolExecutor

from ..tasks import nothing

ROUNDS: Final = 5
TICK: Final = 1e-8
"""Seconds that pass at each look at the clock: so few that no chunk is cut short."""


class Errand(NamedTuple):
    """A way to have tasks run on a pool, and how many are."""

    start: Callable[[PoolExecutor, int], Iterable[Any]]
    tasks: int


def submits(pool: PoolExecutor, count: int) -> Iterable[Any]:
    """Submit tasks, then read their results."""
    futures = [pool.submit(nothing, number) for number in range(count)]
    return (future.result() for future in futures)


def verb(run: Callable[..., Iterable[Any]], pool: PoolExecutor, count: int) -> Iterable[Any]:
    """Map over an input of unknown length."""
    return run(pool, nothing, iter(range(count)))


def executor_map(pool: PoolExecutor, count: int, **options: Any) -> Iterable[Any]:
    """Map as the standard library does."""
    return pool.map(nothing, range(count), **options)


ERRANDS: Final = {
    "map_ordered": Errand(partial(verb, poolkit.map_ordered), 100_000),
    "map_unordered": Errand(partial(verb, poolkit.map_unordered), 100_000),
    "map_outcomes": Errand(partial(verb, poolkit.map_outcomes), 100_000),
    "map, chunksize='auto'": Errand(partial(executor_map, chunksize="auto"), 100_000),
    "map": Errand(executor_map, 1000),
    "submit": Errand(submits, 1000),
}


def share_a_clock() -> None:
    """Give this process, and those that it forks, a clock that only their looks at it move."""
    word = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
    word[0] = int(1000 / TICK)

    def monotonic() -> float:
        word[0] = now = word[0] + 1
        return now * TICK

    time.monotonic = monotonic


def mark(text: str) -> None:
    """Leave a mark in the list of system calls: a write that fails."""
    with contextlib.suppress(OSError):
        os.write(-1, text.encode())


def main() -> None:
    """Do each errand once to warm up, and some rounds between marks."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    share_a_clock()
    with poolkit.make_executor("process", 1, start_method="fork") as pool:
        for name, errand in ERRANDS.items():
            for number in range(ROUNDS + 1):
                if number:
                    mark(f"begin {errand.tasks} {name}")
                for _ in errand.start(pool, errand.tasks):
                    pass
                if number:
                    mark("end")


if __name__ == "__main__":
    main()
