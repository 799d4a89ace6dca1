"""No-op items on a Dask cluster of two workers: poolkit's map against ``Client.map``, in one run.

    uv run --group bench python benchmarks/clusters.py

Poolkit sends chunks whose size it finds; ``Client.map`` sends a task for each item. Interleaved,
medians of five; the ratio is what counts.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import distributed

from poolkit import PoolExecutor, make_executor, map_ordered

ITEMS = 20_000  # for poolkit
FEWER = 2_000  # for `Client.map`, whose cost for each item is the same for any number
ROUNDS = 5


def nothing(item: int) -> int:
    """Be the task."""
    return item


def rate(count: int, run: Callable[[], int]) -> float:
    """Return items per second of a run, which returns how many came back."""
    start = time.perf_counter()
    if run() != count:
        raise AssertionError("items are missing")
    return count / (time.perf_counter() - start)


def ours(pool: PoolExecutor) -> int:
    """Map, and count what comes back."""
    return sum(1 for _ in map_ordered(pool, nothing, range(ITEMS)))


def theirs(client: distributed.Client) -> int:
    """Do the same by Dask's own means."""
    return len(client.gather(client.map(nothing, range(FEWER), pure=False)))


def main() -> None:
    """Measure, and print the ratio."""
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    rates: list[tuple[float, float]] = []
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as client,
        make_executor("dask", client=client) as pool,
    ):
        for _ in range(ROUNDS):
            rates.append((rate(ITEMS, partial(ours, pool)), rate(FEWER, partial(theirs, client))))
    mine, dasks = (statistics.median(column) for column in zip(*rates, strict=True))
    print(f"poolkit {mine:,.0f} items/s, Client.map {dasks:,.0f}: {mine / dasks:.1f} x (20 asked)")


if __name__ == "__main__":
    main()
