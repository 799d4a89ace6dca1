"""Four of forty tasks hang, on two workers, where a task may run for half a second.

Two at a time can hang, so that a pool which stops them at once takes a second.
"""

import time

from contenders import PROCESSES
from tasks import hang, hang_in_c, hang_on, nothing

from ._row import Bar, Figure, Row

LIMIT = 0.5  # seconds
TASKS = 40
HUNG = (5, 15, 25, 35)
HANGS = {"asleep": hang, "ignoring SIGTERM": hang_on, "C loop holding the GIL": hang_in_c}


def hung(name: str, case: str, quick: bool) -> tuple[float]:
    """Return the seconds from the first submit to the last outcome, if all are as they should."""
    pool = PROCESSES[name](LIMIT)
    pool.one_each(nothing, range(200))
    late = []
    start = time.perf_counter()
    handles = [pool.submit(HANGS[case] if i in HUNG else nothing) for i in range(TASKS)]
    for i, handle in enumerate(handles):
        try:
            pool.read(handle)
        except TimeoutError:
            late.append(i)
    seconds = time.perf_counter() - start
    if late != list(HUNG):
        raise AssertionError(f"timed out: {late}, and not {list(HUNG)}")
    return (seconds,)  # the pool is left to the guard: some would wait for what hangs


HUNG_TASKS = Row(
    "hung",
    f"{len(HUNG)} hung of {TASKS} tasks, limit {LIMIT} s",
    hung,
    (Figure("s", bars=(Bar(1.3),)),),
    tuple(name for name, made in PROCESSES.items() if made.limits and name != "poolkit, ordered"),
    tuple(HANGS),
)
