"""Thread pools side by side: how fast tasks go in, and how long one takes there and back.

Every figure is the median over several rounds in which the contenders take turns, so that a
noisy machine is noisy to all of them; only the ratios mean anything elsewhere.

    uv run --group bench python benchmarks/threads.py
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from multiprocessing.pool import ThreadPool
from typing import Any

from pebble import ThreadPool as PebbleThreadPool
from rich.console import Console
from rich.table import Table

from poolkit import make_executor

WORKERS = 4


def nothing() -> None:
    """Do nothing: what is left is the pool."""


# -- contenders: a pool, and how it takes one task and gives its result back ---------------

Submit = Callable[[], Any]
Contender = Callable[[], tuple[AbstractContextManager[Any], Callable[[Any], Submit], str]]


def poolkit_pool() -> tuple[Any, Callable[[Any], Submit], str]:
    """Poolkit, as `make_executor` gives it."""
    return make_executor("thread", WORKERS), lambda pool: lambda: pool.submit(nothing), "result"


def poolkit_timed() -> tuple[Any, Callable[[Any], Submit], str]:
    """Poolkit, with a limit on each task."""
    pool = make_executor("thread", WORKERS, task_timeout=60)
    return pool, lambda pool: lambda: pool.submit(nothing), "result"


def stdlib_pool() -> tuple[Any, Callable[[Any], Submit], str]:
    """The standard library's pool."""
    return ThreadPoolExecutor(WORKERS), lambda pool: lambda: pool.submit(nothing), "result"


def mp_pool() -> tuple[Any, Callable[[Any], Submit], str]:
    """The pool of threads in multiprocessing."""
    return ThreadPool(WORKERS), lambda pool: lambda: pool.apply_async(nothing), "get"


def pebble_pool() -> tuple[Any, Callable[[Any], Submit], str]:
    """Pebble's pool of threads."""
    return (
        PebbleThreadPool(max_workers=WORKERS),
        lambda pool: lambda: pool.schedule(nothing),
        "result",
    )


CONTENDERS: dict[str, Contender] = {
    "stdlib": stdlib_pool,
    "poolkit": poolkit_pool,
    "poolkit, task_timeout": poolkit_timed,
    "mp ThreadPool": mp_pool,
    "Pebble": pebble_pool,
}


def submit_rate(submit: Submit, read: str, count: int) -> float:
    """Return tasks per second, from the first submit to the last result."""
    start = time.perf_counter()
    handles = [submit() for _ in range(count)]
    for handle in handles:
        getattr(handle, read)()
    return count / (time.perf_counter() - start)


def round_trip(submit: Submit, read: str, count: int) -> float:
    """Return the median seconds from one submit to its result, in a warm pool."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        getattr(submit(), read)()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tasks", type=int, default=20_000)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    trips: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(options.rounds):
        for name, make in CONTENDERS.items():
            pool, submitter, read = make()
            with pool:
                submit = submitter(pool)
                submit_rate(submit, read, 200)  # all workers are up
                rates[name].append(submit_rate(submit, read, options.tasks))
                trips[name].append(round_trip(submit, read, 2000))
                if hasattr(pool, "stop"):
                    pool.close()
                    pool.join()
    table = Table("pool", "submit, tasks/s", "ratio to stdlib", "round trip, µs", "ratio of times")
    rate = {name: statistics.median(values) for name, values in rates.items()}
    trip = {name: statistics.median(values) for name, values in trips.items()}
    for name in CONTENDERS:
        table.add_row(
            name,
            f"{rate[name]:,.0f}",
            f"{rate[name] / rate['stdlib']:.2f}",
            f"{trip[name] * 1e6:.1f}",
            f"{trip[name] / trip['stdlib']:.2f}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
