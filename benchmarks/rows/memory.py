"""A generator of two million items: how far ahead a map reads it, and what that costs.

Only the maps that could be lazy, or that one would use for it. Growth is the peak of the parent's
resident memory above what it was before, with the pool warm.
"""

import gc
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from contenders import PROCESSES, THREADS
from tasks import nothing

from ._row import Bar, Figure, Row

ITEMS = 2_000_000
FAMILIES = {"threads": THREADS, "processes": PROCESSES}
PEERS = {
    "stdlib": (*FAMILIES,),
    "poolkit": (*FAMILIES,),
    "mp.Pool": ("processes",),
    "mp ThreadPool": ("threads",),
    "joblib": (*FAMILIES,),
    "mpire": ("processes",),
    "streamable": ("threads",),
}
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak() -> None:
    """Let the peak be what is resident now, where the system can do that."""
    if CLEAR.exists():
        CLEAR.write_text("5")


def peak() -> float:
    """Return the most memory of this process, since `forget_peak` if that works, in MiB."""
    if STATUS.exists():
        # `getrusage` would not do: a new process begins with the peak of the one that made it.
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def memory(name: str, case: str, quick: bool) -> tuple[float, ...]:
    """Return growth in MiB, milliseconds to the first result, most pulled ahead, and items/s."""
    made = FAMILIES[case][name]
    chunks = {"chunksize": 256} if made.chunks else {}
    count = ITEMS // 10 if quick else ITEMS
    pulled = ahead = yielded = 0
    first = 0.0

    def generate() -> Iterator[int]:
        nonlocal pulled
        for number in range(count):
            pulled += 1
            yield number

    pool = made()
    for _ in pool.stream(nothing, range(20_000), **chunks):
        pass
    gc.collect()
    forget_peak()
    before = peak()
    start = time.perf_counter()
    for _ in pool.stream(nothing, generate(), **chunks):
        first = first or time.perf_counter() - start
        yielded += 1
        ahead = max(ahead, pulled - yielded)
    spent = time.perf_counter() - start
    growth = peak() - before
    if yielded != count:
        raise AssertionError(f"{yielded} results of {count}")
    pool.close()
    return growth, first * 1e3, float(ahead), count / spent


MEMORY = Row(
    "memory",
    "a generator of 2 million items",
    memory,
    (
        Figure("MiB", "growth", bars=(Bar(5),)),
        Figure("ms", "first result", bars=(Bar(5),)),
        Figure("items", "most pulled ahead", bars=(Bar(20_000),)),
        Figure("items/s", "rate", more=True),
    ),
    tuple(PEERS),
    tuple(FAMILIES),
    offers=lambda name, case: case in PEERS[name],
    remark=lambda name: {"joblib": "generator_unordered"}.get(name, ""),
    chart=False,
)
