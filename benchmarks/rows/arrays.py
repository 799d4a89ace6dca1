"""Large arguments and results: 8 MiB of bytes, or a numpy array, to processes, or there and back.

The worker reads a byte of each page; so no pool wins by not moving the data at all.
"""

import importlib.util
import random
from typing import Any

from contenders import PROCESSES
from tasks import copy, touch

from ._row import BEST_PEER, Bar, Figure, Row, submitters, timed

SIZE = 8 * 2**20  # bytes
THERE, BACK = "there", "there and back"
CASES = tuple(
    f"{kind} {way}"
    for kind in ("bytes", "numpy")
    for way in (THERE, BACK)
    if kind == "bytes" or importlib.util.find_spec("numpy")
)


def make_data(kind: str, count: int) -> list[Any]:
    """Return so many pieces, all different: some pools would send the same one once."""
    pieces = [random.Random(i).randbytes(1024) * (SIZE // 1024) for i in range(count)]
    if kind == "bytes":
        return pieces
    import numpy as np

    return [np.frombuffer(piece).copy() for piece in pieces]


def arrays(name: str, case: str, quick: bool) -> tuple[float]:
    """Return gigabytes per second, both ways counted."""
    kind, _, way = case.partition(" ")
    data = make_data(kind, 8 if quick else 24)
    pool = PROCESSES[name]()
    task = copy if way == BACK else touch
    expected = touch(data[-1])
    pool.one_each(task, data[:4])
    results: list[Any] = []
    spent = timed(lambda: results.extend(pool.one_each(task, data)))
    if (touch(results[-1]) if way == BACK else results[-1]) != expected:
        raise AssertionError("other data came back")
    pool.close()
    return (len(data) * SIZE * (2 if way == BACK else 1) / spent / 1e9,)


ARRAYS = Row(
    "arrays",
    "8 MiB arrays to processes",
    arrays,
    (Figure("GB/s", more=True, bars=(Bar(4, BEST_PEER),)),),
    (*submitters(PROCESSES), "joblib", "shared memory by hand"),
    CASES,
    offers=lambda name, case: not PROCESSES[name].reference or case.startswith("numpy"),
)
