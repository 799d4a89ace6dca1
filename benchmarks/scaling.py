"""Time and memory as the work grows: number of items, number of workers, size of a payload.

uv run --group bench python benchmarks/scaling.py [--quick] [--only AXIS]
    [--rounds N] [--json FILE] [--svg FILE]

Each point is a sample of its own, in a guarded interpreter (see `_guard`). A pool whose last point
took too long is not asked for a larger one, and the plot shows where it stopped.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import _guard
import _sample
import report
from _contender import Contender
from contenders import PROCESSES, THREADS, missing
from rows.memory import forget_peak, peak
from scaling_plot import Point, draw
from tasks import nothing, touch, wait

ENOUGH = 20.0  # seconds: what takes longer is not asked for more
NAP = 0.001  # seconds that a task waits, so that more workers than CPUs make sense
NAPS = 4000


def pool_of(name: str, **options: Any) -> Contender:
    """Make a pool by a name as in "poolkit, threads"."""
    contender, _, kind = name.rpartition(", ")
    return (THREADS if kind == "threads" else PROCESSES)[contender](**options)


def family_memory() -> float:
    """Return what this process and all that it started hold by themselves, in MiB."""
    import psutil

    own = psutil.Process()
    total = 0
    for process in (own, *own.children(recursive=True)):
        try:
            total += process.memory_full_info().uss
        except psutil.Error:  # it has ended meanwhile
            continue
    return total / 2**20


# -- measurements: each returns seconds and MiB --------------------------------------------------


def items(name: str, count: int) -> tuple[float, float]:
    """Map a no-op over so many generated items; memory is the growth of the parent's peak."""
    pool = pool_of(name)
    chunks = {"chunksize": 256} if type(pool).chunks else {}
    run = pool.stream
    for _ in run(nothing, range(1000), **chunks):
        pass
    forget_peak()
    before = peak()
    start = time.perf_counter()
    seen = sum(1 for _ in run(nothing, iter(range(count)), **chunks))
    spent = time.perf_counter() - start
    if seen != count:
        raise AssertionError(f"{seen} results of {count}")
    return spent, peak() - before


def workers(name: str, count: int) -> tuple[float, float]:
    """Run tasks that wait on so many workers; memory is what all of them hold at the end."""
    pool = pool_of(name, workers=count)
    for _ in pool.map(wait, [NAP] * 50 * count):
        pass
    start = time.perf_counter()
    seen = sum(1 for _ in pool.map(wait, [NAP] * NAPS))
    spent = time.perf_counter() - start
    if seen != NAPS:
        raise AssertionError(f"{seen} results of {NAPS}")
    return spent, family_memory()


def payload(name: str, size: int) -> tuple[float, float]:
    """Send so many bytes with one task, several times; return the median time of one round trip."""
    pool = pool_of(name)
    data = random.Random(7).randbytes(min(size, 1024)) * max(1, size // 1024)
    pool.one_each(touch, [b"x"] * 50)
    forget_peak()
    before = peak()
    times = []
    for _ in range(200 if size < 2**20 else 10):
        start = time.perf_counter()
        pool.read(pool.submit(touch, data))
        times.append(time.perf_counter() - start)
    return statistics.median(times), peak() - before


def take() -> None:
    """Take the sample that the command line asks for."""
    name, contender, value = sys.argv[1:]
    _sample.answer(lambda: AXES[name].measure(contender, int(value)))


# -- axes ----------------------------------------------------------------------------------------


class Axis(NamedTuple):
    """What grows, and what is measured of it."""

    title: str
    measure: Callable[[str, int], tuple[float, float]]
    values: tuple[int, ...]
    memory: str  # whose
    pools: tuple[str, ...]
    quick: int  # how many of the values --quick takes


AXES = {
    "items": Axis(
        "items of a no-op map",
        items,
        tuple(10**power for power in range(3, 8)),
        "growth of the parent",
        (
            "poolkit, processes",
            "stdlib, processes",
            "mp.Pool, processes",
            "joblib, processes",
            "poolkit, threads",
            "stdlib, threads",
        ),
        3,
    ),
    "workers": Axis(
        f"workers, for {NAPS} tasks that wait {NAP * 1e3:g} ms",
        workers,
        (1, 2, 4, 8, 16),
        "of parent and workers",
        (
            "poolkit, processes",
            "stdlib, processes",
            "mp.Pool, processes",
            "joblib, processes",
            "poolkit, threads",
            "stdlib, threads",
        ),
        3,
    ),
    "payload": Axis(
        "bytes sent with one task",
        payload,
        (1, 2**10, 2**15, 2**20, 2**23, 2**26),
        "growth of the parent",
        (
            "poolkit, processes",
            "stdlib, processes",
            "mp.Pool, processes",
            "Pebble, processes",
            "poolkit, threads",
            "stdlib, threads",
        ),
        4,
    ),
}


def measure(name: str, rounds: int, limit: float, quick: bool) -> Iterable[Point]:
    """Take an axis's samples, the pools taking turns at each value; yield the points."""
    axis = AXES[name]
    pools = [pool for pool in axis.pools if not missing(pool.rpartition(", ")[0])]
    for value in axis.values[: axis.quick] if quick else axis.values:
        points = {pool: Point(name, pool, value, [], "") for pool in pools}
        for turn in range(rounds):
            first = turn % len(pools) if pools else 0
            for pool in pools[first:] + pools[:first]:
                if points[pool].problem:
                    continue
                arguments = [name, pool, str(value)]
                sample = _guard.run("import scaling; scaling.take()", arguments, limit)
                if sample.problem:
                    points[pool] = points[pool]._replace(problem=sample.problem)
                else:
                    points[pool].samples.append(tuple(sample.values))
        for pool, point in points.items():
            yield point
            slow = bool(point.samples) and point.median(0) > ENOUGH
            if slow or point.problem:
                pools.remove(pool)


def main() -> int:
    """Measure, print, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one round, and small values only")
    parser.add_argument("--only", action="append", choices=AXES)
    parser.add_argument("--rounds", type=int, help="how often (5, or 1 with --quick)")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds for one sample")
    parser.add_argument("--json", type=Path, help="write all samples to this file")
    parser.add_argument("--svg", type=Path, help="draw the plots into this file")
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 5)
    facts = report.about(rounds, options.quick)
    caption = f"{facts['python']}, {facts['cpus']} CPUs, medians of {rounds}"
    points = []
    for name in options.only or AXES:
        print(f"{AXES[name].title}: seconds, MiB ({AXES[name].memory})")
        for point in measure(name, rounds, options.limit, options.quick):
            points.append(point)
            said = point.problem or f"{point.median(0):.4g} s, {point.median(1):.1f} MiB"
            print(f"  {point.value:>12,}  {point.pool:<20} {said}", flush=True)
    if options.json:
        found = {"about": facts, "points": [point._asdict() for point in points]}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.svg:
        titles = {
            name: (f"seconds, by {axis.title}", f"MiB, {axis.memory}, by {axis.title}")
            for name, axis in AXES.items()
        }
        draw(options.svg, points, titles, caption)
    return any(point.problem for point in points if point.pool.startswith("poolkit"))


if __name__ == "__main__":
    sys.exit(main())
