"""Programs of their own: what they take to import a library, and to their first result.

A pool's workers import the program that made it, with all that it imports: that is part of it.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from _contender import WORKERS

from ._row import Bar, Figure, Row

START_UP_PROGRAM = """\
import time

started = time.perf_counter()
{imports}
imported = time.perf_counter()


def nothing():
    pass


def start():
    pool = {make}
    {first}
    return pool


if __name__ == "__main__":
    pool = start()
    ready = time.perf_counter()
    another = start()
    print(ready - started, ready - imported, time.perf_counter() - ready)
"""
# Imports, how a pool is made, and how a first result is had. {w}: workers, {m!r}: start method.
RESULT = "pool.submit(nothing).result()"
POOLS = {
    "stdlib": (
        "import multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor",
        "ProcessPoolExecutor({w}, multiprocessing.get_context({m!r}))",
        RESULT,
    ),
    "poolkit": (
        "from poolkit import make_executor",
        'make_executor("process", {w}, start_method={m!r})',
        RESULT,
    ),
    "mp.Pool": (
        "import multiprocessing",
        "multiprocessing.get_context({m!r}).Pool({w})",
        "pool.apply(nothing)",
    ),
    "Pebble": (
        "import multiprocessing\nfrom pebble import ProcessPool",
        "ProcessPool({w}, context=multiprocessing.get_context({m!r}))",
        "pool.schedule(nothing).result()",
    ),
    "loky": (
        "import multiprocessing\nfrom loky import ProcessPoolExecutor",
        "ProcessPoolExecutor({w}, context=multiprocessing.get_context({m!r}))",
        RESULT,
    ),
    "mpire": (
        "from mpire import WorkerPool",
        "WorkerPool({w}, start_method={m!r})",
        "pool.apply(nothing)",
    ),
    "deadpool": ("from deadpool import Deadpool", "Deadpool({w}, mp_context={m!r})", RESULT),
}
THREADS = {
    "stdlib": (
        "from concurrent.futures import ThreadPoolExecutor",
        "ThreadPoolExecutor({w})",
        RESULT,
    ),
    "poolkit": ("from poolkit import make_executor", 'make_executor("thread", {w})', RESULT),
}
METHODS = ("forkserver", "spawn", "fork")


def run(program: str) -> list[float]:
    """Run a program in a fresh interpreter; return the numbers that it prints."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "program.py")
        script.write_text(program)
        # With bytecode, as installed packages have it: else, whatever was not installed, but is
        # imported from its sources, would be compiled in each sample, in each of its processes.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
        done = subprocess.run(
            [sys.executable, script],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2] or f"exit {done.returncode}")
    return [float(word) for word in done.stdout.split()]


def start_up(name: str, case: str, quick: bool) -> tuple[float, ...]:
    """Return the milliseconds to the first result: from the import, from making a pool, another.

    Some libraries import what a pool needs where they are imported, others when one is made. So
    neither of the first two figures is without the other; the third has no imports in it.
    """
    imports, make, first = (THREADS if case == "threads" else POOLS)[name]
    make = make.format(w=WORKERS, m=case)
    numbers = run(START_UP_PROGRAM.format(imports=imports, make=make, first=first))
    return tuple(number * 1e3 for number in numbers)


IMPORT_PROGRAM = """\
import time

started = time.perf_counter()
import {modules}
print(time.perf_counter() - started)
"""
MODULES = {
    "stdlib": "concurrent.futures.process, attrs",
    "poolkit": "poolkit",
    "Pebble": "pebble",
    "loky": "loky",
    "joblib": "joblib",
    "mpire": "mpire",
    "deadpool": "deadpool",
    "more-executors": "more_executors",
    "futurist": "futurist",
    "streamable": "streamable",
    "dask": "distributed",
}


def imports(name: str, case: str, quick: bool) -> tuple[float]:
    """Return the milliseconds of an import in a fresh interpreter."""
    program = IMPORT_PROGRAM.format(modules=MODULES[name])
    times = [run(program)[0] for _ in range(3 if quick else 5)]
    return (statistics.median(times) * 1e3,)


START_UP = Row(
    "start-up",
    "start-up to the first result",
    start_up,
    (
        Figure("ms", "from before the import", bars=(Bar(1.2, "stdlib", METHODS),)),
        Figure("ms", "from making the pool"),
        Figure("ms", "of a second pool"),
    ),
    tuple(POOLS),
    (*METHODS, "threads"),
    offers=lambda name, case: case != "threads" or name in THREADS,
)
IMPORT = Row(
    "import",
    "import",
    imports,
    (Figure("ms", bars=(Bar(1.5, "stdlib"),)),),
    tuple(MODULES),
    ("",),
    remark=lambda name: MODULES[name] if name == "stdlib" else "",
)
