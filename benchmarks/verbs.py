"""Maps side by side: no-op items and skewed work, on threads and on processes, against the budget.

Every sample is taken in an interpreter of its own. Every figure is the median over several rounds
in which the contenders take turns, so that a noisy machine is noisy to all of them; only the ratios
mean anything elsewhere.

    uv run --group bench python benchmarks/verbs.py [--rounds N] [--quick]
"""

import argparse
import contextlib
import gc
import json
import multiprocessing
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

# Libraries are imported where they are used: a child and each of its workers import this module
# too, and are to load nothing but what is measured.

WORKERS = 2
METHOD = "forkserver"  # for every contender that lets one choose
CHUNK = 256  # for those that have to be told


# -- tasks ---------------------------------------------------------------------------------


def nothing(item: int) -> int:
    """Do nothing: what is left is the pool."""
    return item


def spin(seconds: float) -> float:
    """Work for so long, and return how long it was in fact."""
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        pass
    return spent


def wait(seconds: float) -> float:
    """Wait for so long, as for a network; return how long it was in fact."""
    start = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - start


# -- contenders: a pool, and a map over it that consumes all results -----------------------

Map = Callable[[Callable[[Any], Any], list[Any]], Iterable[Any]]


def make_map(name: str, pools: contextlib.ExitStack) -> Map:
    """Return a contender's map, on workers that live until `pools` is closed."""
    context = multiprocessing.get_context(METHOD)
    match name:
        case "poolkit, threads" | "poolkit, processes" | "poolkit, ordered, processes":
            import poolkit

            kind = "thread" if "threads" in name else "process"
            pool: Any = pools.enter_context(poolkit.make_executor(kind, WORKERS))
            verb = poolkit.map_ordered if "ordered" in name else poolkit.map_unordered
            return lambda fn, items: verb(pool, fn, items)
        case "stdlib map, threads":
            pool = pools.enter_context(ThreadPoolExecutor(WORKERS))
            return pool.map
        case "stdlib map(256), processes" | "stdlib map(1), processes":
            pool = pools.enter_context(ProcessPoolExecutor(WORKERS, context))
            chunk = CHUNK if "256" in name else 1
            return lambda fn, items: pool.map(fn, items, chunksize=chunk)
        case "mp ThreadPool imap(256)" | "mp ThreadPool imap_unordered(1)":
            from multiprocessing.pool import ThreadPool

            pool = pools.enter_context(ThreadPool(WORKERS))
            if "256" in name:
                return lambda fn, items: pool.imap(fn, items, CHUNK)
            return pool.imap_unordered
        case "mp.Pool map" | "mp.Pool imap_unordered(1)":
            pool = pools.enter_context(context.Pool(WORKERS))
            return pool.map if name.endswith(" map") else pool.imap_unordered
        case "joblib, processes" | "joblib, threads":
            from joblib import Parallel, delayed

            backend = {"prefer": "threads"} if "threads" in name else {}
            parallel: Any = pools.enter_context(Parallel(WORKERS, **backend))
            return lambda fn, items: parallel(delayed(fn)(item) for item in items)
        case "mpire imap_unordered":
            from mpire import WorkerPool

            pool = pools.enter_context(WorkerPool(WORKERS, start_method=METHOD, keep_alive=True))
            return pool.imap_unordered
        case "Pebble map(256)":
            from pebble import ProcessPool

            pool = ProcessPool(WORKERS, context=context)
            pools.callback(pool.join)
            pools.callback(pool.close)
            return lambda fn, items: pool.map(fn, items, chunksize=CHUNK).result()
        case "streamable, threads":
            from streamable import stream

            return lambda fn, items: stream(items).map(fn, concurrency=WORKERS)
        case _:
            raise ValueError(name)


# Contenders, and how many no-op items each can do in about half a second.
THREADS = {
    "poolkit, threads": 400_000,
    "stdlib map, threads": 20_000,
    "mp ThreadPool imap(256)": 1_000_000,
    "joblib, threads": 20_000,
    "streamable, threads": 5_000,
}
PROCESSES = {
    "poolkit, processes": 400_000,
    "poolkit, ordered, processes": 400_000,
    "stdlib map(256), processes": 200_000,
    "mp.Pool map": 1_000_000,
    "joblib, processes": 50_000,
    "mpire imap_unordered": 20_000,
    "Pebble map(256)": 100_000,
}
SKEWED = (
    "poolkit, processes",
    "stdlib map(1), processes",
    "mp.Pool imap_unordered(1)",
    "joblib, processes",
    "mpire imap_unordered",
)
SKEWED_THREADS = ("poolkit, threads", "stdlib map, threads", "mp ThreadPool imap_unordered(1)")


def shuffled() -> list[float]:
    """90% take 50 µs, 10% take 5 ms, in any order; the same one each time."""
    work = [0.00005] * 1800 + [0.005] * 200
    random.Random(7).shuffle(work)
    return work


def long_last() -> list[float]:
    """Three thousand quick ones, and the long ones at the end."""
    return [0.00005] * 3000 + [0.05] * 10


# -- samples, in a child -------------------------------------------------------------------


def rate(name: str, count: int) -> float:
    """Return no-op items per second, in a warm pool."""
    with contextlib.ExitStack() as pools:
        run = make_map(name, pools)
        items = list(range(count))
        for _ in run(nothing, items[:2000]):
            pass
        gc.collect()
        start = time.perf_counter()
        seen = sum(1 for _ in run(nothing, items))
        spent = time.perf_counter() - start
    assert seen == count
    return count / spent


def skew(name: str, work: str) -> float:
    """Return the wall time as a multiple of the ideal: all that was spent, spread evenly.

    What was spent is measured in the workers of this very run, so that a busy machine, which
    makes all tasks longer, is not charged to the pool.
    """
    task = wait if "hread" in name else spin
    items = shuffled() if work == "shuffled" else long_last()
    with contextlib.ExitStack() as pools:
        run = make_map(name, pools)
        for _ in run(task, [0.00001] * 50):
            pass
        start = time.perf_counter()
        spent = list(run(task, items))
        wall = time.perf_counter() - start
    return wall / (sum(spent) / WORKERS)


def memory(kind: str) -> dict[str, float]:
    """Run two million generated items through a verb; return what that took."""
    import poolkit

    pulled = most_ahead = yielded = 0
    first = 0.0

    def generate() -> Iterable[int]:
        nonlocal pulled
        for number in range(2_000_000):
            pulled += 1
            yield number

    with poolkit.make_executor(kind, WORKERS) as pool:
        for _ in poolkit.map_unordered(pool, nothing, range(20_000)):
            pass
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        for _ in poolkit.map_unordered(pool, nothing, generate()):
            first = first or time.perf_counter() - start
            yielded += 1
            most_ahead = max(most_ahead, pulled - yielded)
        spent = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert yielded == 2_000_000
    return {
        "growth, MiB": (after - before) / 1024,
        "first result, ms": first * 1000,
        "most pulled ahead": most_ahead,
        "items/s": yielded / spent,
    }


def sample(function: str, *arguments: Any) -> Any:
    """Take one sample in an interpreter of its own; None if it fails."""
    command = [sys.executable, __file__, "--sample", json.dumps([function, *arguments])]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if finished.returncode:
        print(function, *arguments, "failed:", finished.stderr[-500:], file=sys.stderr)
        return None
    return json.loads(finished.stdout.splitlines()[-1])


# -- the table -----------------------------------------------------------------------------


def medians(rounds: int, cases: list[tuple[Any, ...]]) -> dict[tuple[Any, ...], float]:
    """Take samples in turns; return the median of each case."""
    taken: dict[tuple[Any, ...], list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            value = sample(*case)
            if value is not None:
                taken[case].append(value)
    return {case: statistics.median(values) for case, values in taken.items() if values}


def main() -> None:
    """Measure and print."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--sample", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sample:
        function, *arguments = json.loads(options.sample)
        print(json.dumps(globals()[function](*arguments)))
        return
    rounds = 1 if options.quick else options.rounds
    console = Console(width=100)
    show = console.print

    for title, contenders in (("threads", THREADS), ("processes", PROCESSES)):
        cases: list[tuple[Any, ...]] = [("rate", name, count) for name, count in contenders.items()]
        rates = {case[1]: value for case, value in medians(rounds, cases).items()}
        ours = rates[next(iter(contenders))]
        table = Table("no-op map, " + title, "items/s", "poolkit's rate as a multiple of it")
        for name, value in rates.items():
            table.add_row(name, f"{value:,.0f}", f"{ours / value:.2f}")
        show(table)

    table = Table("skewed work", "90% 50 µs, 10% 5 ms, shuffled", "long tasks last")
    cases = [("skew", n, w) for n in (*SKEWED, *SKEWED_THREADS) for w in ("shuffled", "last")]
    times = medians(rounds, cases)
    for name in (*SKEWED, *SKEWED_THREADS):
        cells = [times.get(("skew", name, work)) for work in ("shuffled", "last")]
        table.add_row(
            name, *("failed" if cell is None else f"{cell:.3f} x ideal" for cell in cells)
        )
    show(table)

    table = Table("two million items", "threads", "processes")
    measured = [sample("memory", kind) for kind in ("thread", "process")]
    for figure in measured[0]:
        table.add_row(figure, *(f"{each[figure]:,.1f}" for each in measured))
    show(table)


if __name__ == "__main__":
    main()
