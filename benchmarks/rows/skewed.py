"""Skewed work: how close a map comes to an even share for each worker.

What is ideal is measured in the workers of the very same run, so that a busy machine, which makes
all tasks longer, is not charged to the pool. Tasks on threads wait instead of computing.
"""

import random
from typing import Any

from _contender import WORKERS
from contenders import PROCESSES, THREADS, Contender
from tasks import spin, wait

from ._row import Bar, Figure, Row, maps, remarks, timed

SHORT, LONG = 0.00005, 0.005  # seconds
CASES = ("shuffled", "long last", "few long last")


def work(case: str, quick: bool) -> list[float]:
    """Return the seconds of each task: 90% short and 10% long, or ten very long ones at the end."""
    if case == "few long last":  # an even number of them, or the ideal can't be reached
        return [SHORT] * (1000 if quick else 3000) + [LONG * 10] * 10
    share = 4 if quick else 1
    items = [SHORT] * (1800 // share) + [LONG] * (200 // share)
    if case == "shuffled":
        random.Random(7).shuffle(items)
    return items


def skewed(made: type[Contender], task: Any, case: str, quick: bool) -> tuple[float]:
    """Return the wall time as a multiple of the ideal: all that was spent, shared evenly."""
    items = work(case, quick)
    pool = made()
    list(pool.map(task, [0.00001] * 50))
    spent: list[float] = []
    wall = timed(lambda: spent.extend(pool.map(task, items)))
    pool.close()
    if len(spent) != len(items):
        raise AssertionError(f"{len(spent)} results of {len(items)}")
    return (wall / (sum(spent) / WORKERS),)


SKEWED = Row(
    "skewed",
    "skewed work on processes, 90% 50 µs and 10% 5 ms",
    lambda name, case, quick: skewed(PROCESSES[name], spin, case, quick),
    (Figure("x ideal", bars=(Bar(1.08),)),),
    maps(PROCESSES),
    CASES,
    remark=remarks(PROCESSES),
)
THREAD_SKEWED = Row(
    "thread-skewed",
    "skewed waiting on threads, 90% 50 µs and 10% 5 ms",
    lambda name, case, quick: skewed(THREADS[name], wait, case, quick),
    (Figure("x ideal"),),
    maps(THREADS),
    CASES,
    remark=remarks(THREADS),
)
