"""Process pools side by side: submit, round trip, hung tasks and start-up, against the budget.

Every sample is taken in an interpreter of its own, which is killed with all that it started if it
takes too long. Every figure is the median over several rounds in which the contenders take turns,
so that a noisy machine is noisy to all of them; only the ratios mean anything elsewhere.

    uv run --group bench python benchmarks/processes.py [--rounds N] [--quick]
"""

import argparse
import contextlib
import functools
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

# Libraries are imported where they are used: a child and each of its workers import this module
# too, and are to load nothing but what is measured.

WORKERS = 2
METHOD = "forkserver"  # for every contender that lets one choose
TASK_LIMIT = 0.5  # seconds that a task may run, where some hang
TASKS = 40
HUNG = (5, 15, 25, 35)  # the positions of those that hang
LIMITS = ("no limit", "limit of 60 s")  # on a task, for round trips
ENOUGH = 5.0  # seconds: what takes longer is not sampled again


# -- tasks ---------------------------------------------------------------------------------


def nothing(*_: object) -> None:
    """Do nothing: what is left is the pool."""


def sleep() -> None:
    """Hang, as in a read that never returns."""
    time.sleep(1000)


def sleep_on() -> None:
    """Hang, and take no notice of a polite request to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)


def spin() -> None:
    """Hang in C code that holds the GIL: no other thread and no signal handler runs."""
    sum(itertools.repeat(1, 10**12))


HANGS = {"asleep": sleep, "ignoring SIGTERM": sleep_on, "C loop holding the GIL": spin}


# -- contenders ----------------------------------------------------------------------------


class Pool(NamedTuple):
    """How a pool takes one task and gives its result back, or how it runs many no-ops."""

    submit: Any
    read: str = "result"  # the method of what `submit` returns
    many: Callable[[int], object] | None = None


CONTENDERS = ("stdlib", "poolkit", "mp.Pool", "Pebble", "loky", "joblib", "mpire", "deadpool")


def make_pool(name: str, limit: float | None = None) -> Pool:
    """Make a contender's pool, with a limit on each task if it knows one."""
    context = multiprocessing.get_context(METHOD)
    match name:
        case "stdlib":
            return Pool(ProcessPoolExecutor(WORKERS, context).submit)
        case "poolkit":
            from poolkit import make_executor

            pool: Any = make_executor("process", WORKERS, task_timeout=limit, start_method=METHOD)
            return Pool(pool.submit)
        case "mp.Pool":
            pool = context.Pool(WORKERS)
            imap = functools.partial(pool.imap_unordered, nothing, chunksize=1)
            return Pool(None, many=lambda count: list(imap(range(count))))
        case "Pebble":
            from pebble import ProcessPool

            pool = ProcessPool(WORKERS, context=context)
            return Pool(functools.partial(pool.schedule, timeout=limit))
        case "loky":
            import loky

            # On its own start method, it is slower.
            return Pool(loky.ProcessPoolExecutor(WORKERS, context=context).submit)
        case "joblib":
            from joblib import Parallel, delayed

            # It has its own start method. It is at its fastest if it knows all tasks at once.
            parallel = Parallel(WORKERS, batch_size=1, pre_dispatch="all")
            parallel.__enter__()  # keep the workers from call to call
            return Pool(None, many=lambda count: parallel(delayed(nothing)() for _ in range(count)))
        case "mpire":
            from mpire import WorkerPool

            # Its maps fail whole at the first time-out.
            pool = WorkerPool(WORKERS, start_method=METHOD, keep_alive=True)
            return Pool(functools.partial(pool.apply_async, task_timeout=limit), "get")
        case _:
            from deadpool import Deadpool

            pool = Deadpool(WORKERS, mp_context=METHOD)
            return Pool(functools.partial(pool.submit, deadpool_timeout=limit))


# -- measurements: each makes a pool, in a child, and returns one figure --------------------


def run_all(pool: Pool, count: int) -> None:
    """Run so many no-ops, each submitted alone, and read all results."""
    if pool.many is not None:
        pool.many(count)
        return
    handles = [pool.submit(nothing) for _ in range(count)]
    for handle in handles:
        getattr(handle, pool.read)()


def submit_rate(name: str, _: str, size: int) -> float:
    """Return tasks per second, from the first submit to the last result."""
    pool = make_pool(name)
    run_all(pool, 200)  # all workers are up
    rates: list[float] = []
    end = time.perf_counter() + 0.3  # so that fast pools, too, are timed for a while
    while not rates or time.perf_counter() < end:
        start = time.perf_counter()
        run_all(pool, size)
        rates.append(size / (time.perf_counter() - start))
    return statistics.median(rates)


def round_trip(name: str, case: str, size: int) -> float:
    """Return the median microseconds from one submit to its result."""
    pool = make_pool(name, 60.0 if case == LIMITS[1] else None)
    run_all(pool, 200)
    times = []
    for _ in range(size):
        start = time.perf_counter()
        getattr(pool.submit(nothing), pool.read)()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def hung_tasks(name: str, case: str, _: int) -> float:
    """Return the seconds from the first submit to the last outcome, if all are as they should."""
    pool = make_pool(name, TASK_LIMIT)
    run_all(pool, 200)
    late = []
    start = time.perf_counter()
    handles = [pool.submit(HANGS[case] if i in HUNG else nothing) for i in range(TASKS)]
    for i, handle in enumerate(handles):
        try:
            getattr(handle, pool.read)()
        except TimeoutError:
            late.append(i)
    seconds = time.perf_counter() - start
    if late != list(HUNG):
        raise AssertionError(f"timed out: {late}")
    return seconds


# A program of its own: workers import the main program, with whatever it imports.
START_UP = """\
import time

started = time.perf_counter()
{imports}
imported = time.perf_counter()


def nothing():
    pass


if __name__ == "__main__":
    pool = {pool}
    pool.submit(nothing).result()
    print(time.perf_counter() - {since})
    pool.shutdown()
"""
STARTERS = {
    "stdlib": (
        "import multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor",
        "ProcessPoolExecutor({workers}, multiprocessing.get_context({method!r}))",
    ),
    "poolkit": (
        "from poolkit import make_executor",
        "make_executor('process', {workers}, start_method={method!r})",
    ),
}


def start_up(name: str, case: str, _: int, since: str = "imported") -> float:
    """Return the milliseconds from making a pool to its first result."""
    imports, pool = STARTERS[name]
    pool = pool.format(workers=WORKERS, method=case)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "program.py")
        script.write_text(START_UP.format(imports=imports, pool=pool, since=since))
        run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr.strip().rpartition("\n")[2])
    return float(run.stdout) * 1e3


# -- the engine ----------------------------------------------------------------------------


class Comparison(NamedTuple):
    """One measurement, of some contenders in some cases, and what poolkit has to reach."""

    measure: Callable[[str, str, int], float]
    contenders: tuple[str, ...]
    cases: tuple[str, ...]
    budget: dict[str, float]  # poolkit's figure, as a multiple of that contender's; "": as it is
    size: int = 0  # how often the measurement repeats its work
    more_is_better: bool = False


TIMED = ("poolkit", "Pebble", "mpire", "deadpool")
BOTH = ("stdlib", "poolkit")
METHODS = ("forkserver", "spawn", "fork")
COMPARISONS = {
    "process submit, one item each (mp.Pool: imap_unordered(chunksize=1))": Comparison(
        submit_rate, CONTENDERS, ("tasks/s",), {"stdlib": 10, "mp.Pool": 2}, 4000, True
    ),
    "process round trip, warm: µs for one submit().result()": Comparison(
        round_trip, (*BOTH, "Pebble", "loky", "deadpool"), LIMITS, {"stdlib": 0.8}, 1000
    ),
    f"{len(HUNG)} hung tasks of {TASKS}, limit {TASK_LIMIT} s: seconds to the last outcome": (
        Comparison(hung_tasks, TIMED, tuple(HANGS), {"": 1.3})
    ),
    "start-up: ms from making the pool, its library imported, to the first result": Comparison(
        start_up, BOTH, METHODS, {"stdlib": 1.2}
    ),
    "start-up: ms from before the import of the pool's library to the first result": Comparison(
        functools.partial(start_up, since="started"), BOTH, METHODS, {}
    ),
}
NOT_OFFERED = {("stdlib", LIMITS[1]), ("loky", LIMITS[1])}
ANSWER = "answer: "


def child() -> None:
    """Take the sample that the command line asks for, and print its figure or its error."""
    title, name, case, size = sys.argv[1:]
    try:
        answer: float | str = COMPARISONS[title].measure(name, case, int(size))
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    print(f"\n{ANSWER}{json.dumps(answer)}", flush=True)
    os._exit(0)  # some pools would wait for what hangs


def end_session(leader: int) -> None:
    """Kill what is left of a child's session; its group is not all, as workers may lead some."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):  # it has ended meanwhile
            # A resource tracker ends by itself, once it has removed what the others left.
            tracker = "resource_tracker" in " ".join(process.cmdline())
            if os.getsid(process.pid) == leader and not tracker:
                process.kill()


def sample(title: str, name: str, case: str, size: int, limit: float) -> float | str:
    """Measure once, in a child; return the figure, or what went wrong."""
    code = "import processes; processes.child()"  # so that tasks are not those of `__main__`
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", code, title, name, case, str(size)],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
            stdout=output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"> {limit:.0f} s"
        finally:
            process.kill()
            process.wait()
            end_session(process.pid)
        output.seek(0)
        for line in output:
            if line.startswith(ANSWER):
                return json.loads(line.removeprefix(ANSWER))
    return f"exit code {process.returncode}"


Cell = tuple[str, str]  # contender, case
Figures = dict[Cell, float | str]  # a string says why there is none


def measure(title: str, rounds: int, size: int, limit: float) -> Figures:
    """Return the median over the rounds, or what went wrong, of each contender in each case."""
    _, contenders, cases, *_ = COMPARISONS[title]
    cells = [(name, case) for case in cases for name in contenders]
    samples: dict[Cell, list[Any]] = {cell: [] for cell in cells if cell not in NOT_OFFERED}
    done = set()
    for _ in range(rounds):
        for cell in [cell for cell in samples if cell not in done]:
            start = time.perf_counter()
            samples[cell].append(answer := sample(title, *cell, size, limit))
            if isinstance(answer, str) or time.perf_counter() - start > ENOUGH:
                done.add(cell)
    return {
        cell: values[-1] if isinstance(values[-1], str) else statistics.median(values)
        for cell, values in samples.items()
    }


def ratio(figures: Figures, cell: Cell, base: str) -> float | None:
    """Return a figure as a multiple of another contender's: in this case, else in its first."""
    value = figures.get(cell)
    firsts = (figure for (name, _), figure in figures.items() if name == base)
    other = figures.get((base, cell[1])) or next(firsts, None)
    return value / other if isinstance(value, float) and isinstance(other, float) else None


def show(title: str, figures: Figures) -> None:
    """Print a table, and what it says about the budget."""
    from rich.console import Console
    from rich.table import Table

    chosen = COMPARISONS[title]
    header = " (ratio to stdlib)" if "stdlib" in chosen.contenders else ""
    table = Table("pool", *(case + header for case in chosen.cases))
    for name in chosen.contenders:
        texts = []
        for case in chosen.cases:
            text = figures.get((name, case), "no limits")
            if isinstance(text, float):
                text = f"{text:,.{0 if text >= 20 else 2}f}"
            if share := ratio(figures, (name, case), "stdlib"):
                text += f" ({share:.2f})"
            texts.append(text)
        table.add_row(name, *texts)
    console = Console(width=100, highlight=False, markup=False)
    console.print("", title, table, sep="\n")
    word = "at least" if chosen.more_is_better else "at most"
    for case in chosen.cases:
        for base, factor in chosen.budget.items():
            value = ratio(figures, ("poolkit", case), base) if base else figures["poolkit", case]
            verdict = "missed, not measured"
            if isinstance(value, float):
                met = value >= factor if chosen.more_is_better else value <= factor
                verdict = f"{'met' if met else 'missed'}, {value:.2f}"
            unit = f"x {base}" if base else "s"
            console.print(f"budget, {case}: {word} {factor} {unit}: {verdict}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60, help="seconds for one sample")
    parser.add_argument("--quick", action="store_true", help="only see that all of it works")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.limit = 1, 5.0
    names = ("poolkit", "pebble", "loky", "joblib", "mpire", "deadpool-executor")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"CPython {sys.version.split()[0]}, {WORKERS} workers; {versions}", flush=True)
    for title, chosen in COMPARISONS.items():
        size = chosen.size // 10 if options.quick else chosen.size
        show(title, measure(title, options.rounds, size, options.limit))


if __name__ == "__main__":
    main()
