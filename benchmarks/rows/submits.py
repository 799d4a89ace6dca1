"""Single tasks: how many a second, and how long one takes there and back."""

import statistics
import time

from contenders import PROCESSES, THREADS, Contender
from tasks import nothing

from ._row import (
    LIMIT,
    NO_LIMIT,
    Bar,
    Figure,
    Row,
    knows_limits,
    submitters,
    timed,
)

WARM_UP = 200  # tasks
BURST = 4000  # tasks that are submitted before the first result is read
SECONDS = 60.0  # the limit on each task: never reached


def open_warm(made: type[Contender], case: str) -> Contender:
    """Make a pool, all of whose workers have run something."""
    pool = made(SECONDS if case == LIMIT else None)
    pool.one_each(nothing, range(WARM_UP))
    return pool


def rate(made: type[Contender], case: str, quick: bool) -> tuple[float]:
    """Return tasks per second, from the first submit of a burst to its last result."""
    pool = open_warm(made, case)
    times: list[float] = []
    while not times or sum(times) < (0.1 if quick else 0.5):
        times.append(timed(lambda: pool.one_each(nothing, range(BURST))))
    pool.close()
    return (BURST / statistics.median(times),)


def round_trip(made: type[Contender], case: str, quick: bool) -> tuple[float]:
    """Return the median microseconds from one submit to its result."""
    pool = open_warm(made, case)
    times = []
    for _ in range(200 if quick else 1000):
        start = time.perf_counter()
        pool.read(pool.submit(nothing))
        times.append(time.perf_counter() - start)
    pool.close()
    return (statistics.median(times) * 1e6,)


PROCESS_SUBMIT = Row(
    "process-submit",
    "process submit, one item each",
    lambda name, case, quick: rate(PROCESSES[name], case, quick),
    (
        Figure(
            "tasks/s",
            more=True,
            bars=(Bar(10, "stdlib", case=NO_LIMIT), Bar(2, "mp.Pool", case=NO_LIMIT)),
        ),
    ),
    (*submitters(PROCESSES), "joblib"),
    (NO_LIMIT, LIMIT),
    offers=knows_limits(PROCESSES),
    remark=lambda name: "imap_unordered(chunksize=1)" if name == "mp.Pool" else "",
    baseline_case=NO_LIMIT,
)
THREAD_SUBMIT = Row(
    "thread-submit",
    "thread submit",
    lambda name, case, quick: rate(THREADS[name], case, quick),
    (Figure("tasks/s", more=True, bars=(Bar(2, "stdlib", case=NO_LIMIT),)),),
    (*submitters(THREADS), "joblib"),
    (NO_LIMIT, LIMIT),
    offers=knows_limits(THREADS),
    remark=lambda name: "imap_unordered(chunksize=1)" if name == "mp ThreadPool" else "",
    baseline_case=NO_LIMIT,
)
ROUND_TRIP = Row(
    "round-trip",
    "process round trip, warm",
    lambda name, case, quick: round_trip(PROCESSES[name], case, quick),
    (Figure("µs", bars=(Bar(0.8, "stdlib", case=NO_LIMIT),)),),
    submitters(PROCESSES),
    (NO_LIMIT, LIMIT),
    offers=knows_limits(PROCESSES),
    remark=lambda name: "apply_async" if name in ("mp.Pool", "mpire") else "",
    baseline_case=NO_LIMIT,
)
THREAD_ROUND_TRIP = Row(
    "thread-round-trip",
    "thread round trip, warm",
    lambda name, case, quick: round_trip(THREADS[name], case, quick),
    (Figure("µs"),),
    submitters(THREADS),
    (NO_LIMIT, LIMIT),
    offers=knows_limits(THREADS),
    remark=lambda name: "apply_async" if name in ("mp ThreadPool", "mpire") else "",
    baseline_case=NO_LIMIT,
)
