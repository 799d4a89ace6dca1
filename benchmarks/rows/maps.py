"""Maps of no-ops: what a pool costs per item, in the largest chunks that it makes by itself.

Those that make none are told a chunk size, the same for all.
"""

from collections import deque
from collections.abc import Callable

from contenders import PROCESSES, THREADS, Contender
from tasks import nothing

from ._row import Bar, Figure, Row, maps, timed

CHUNK = 256
WARM_UP = 500  # items


def rate(made: type[Contender], quick: bool) -> tuple[float]:
    """Return items per second: of the first of growing inputs that takes long enough."""
    enough = 0.15 if quick else 0.5  # seconds
    chunks = {"chunksize": CHUNK} if made.chunks else {}
    pool = made()
    deque(pool.map(nothing, range(WARM_UP), **chunks), 0)
    count, spent = WARM_UP // 2, 0.0
    while spent < enough:
        count *= 4 if spent < enough / 4 else 2
        items = list(range(count))
        last: deque[int] = deque(maxlen=1)
        spent = timed(
            lambda last=last, items=items: last.extend(pool.map(nothing, items, **chunks))
        )
        if not last:
            raise AssertionError("no results")
    pool.close()
    return (count / spent,)


def process_map(name: str, case: str, quick: bool) -> tuple[float]:
    """Measure the row `process-map`."""
    return rate(PROCESSES[name], quick)


def thread_map(name: str, case: str, quick: bool) -> tuple[float]:
    """Measure the row `thread-map`."""
    return rate(THREADS[name], quick)


def told(family: dict[str, type[Contender]]) -> Callable[[str], str]:
    """Return what says which map of a pool is used, and how it is cut."""

    def remark(name: str) -> str:
        chunks = f"chunksize={CHUNK}" if family[name].chunks else ""
        return ", ".join(filter(None, [family[name].remark, chunks]))

    return remark


PROCESS_MAP = Row(
    "process-map",
    "process map, no-op items",
    process_map,
    (Figure("items/s", more=True, bars=(Bar(2.5, "stdlib"), Bar(5, "joblib"))),),
    maps(PROCESSES),
    ("",),
    remark=told(PROCESSES),
)
THREAD_MAP = Row(
    "thread-map",
    "thread map, no-op items",
    thread_map,
    (Figure("items/s", more=True, bars=(Bar(60, "stdlib"), Bar(1, "mp ThreadPool"))),),
    maps(THREADS),
    ("",),
    remark=told(THREADS),
)
