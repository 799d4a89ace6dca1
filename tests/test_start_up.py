"""What a program has loaded by its first result: each module costs every program's start.

Fresh interpreters run small programs. Of poolkit's own modules, exactly those that are listed may
be loaded; of all others, those that the standard library's pool loads for the same, and `EXTRA`.
Who adds to a list here pays for it with some 0.2 ms of each start, and says so in the commit.
"""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from poolkit import make_executor

from .tasks import meet, square

pytestmark = pytest.mark.timeout(120)
needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere, other modules do the same"
)

PACKAGE: Final = {"poolkit"}
SWITCH: Final = PACKAGE | {
    "poolkit._checks",
    "poolkit._errors",
    "poolkit._factory",
    "poolkit._inherit",
    "poolkit._public",
}
FACE: Final = SWITCH | {
    "poolkit._backend",
    "poolkit._bounds",
    "poolkit._clock",
    "poolkit._deadlines",
    "poolkit._describe",
    "poolkit._executor",
    "poolkit._future",
    "poolkit._notes",
    "poolkit._options",
    "poolkit._records",
    "poolkit._retrying",
    "poolkit._submission",
    "poolkit._task",
    "poolkit.backends",
}
THREADS: Final = FACE | {
    "poolkit._cpu",
    "poolkit.backends._pending",
    "poolkit.backends._quick_run",
    "poolkit.backends._run",
    "poolkit.backends._tracebacks",
    "poolkit.backends.thread",
}
# What runs tasks. It is imported before the first of them, errors' modules too: a task that has
# used up all descriptors or memory must still be able to say so.
WORKER: Final = PACKAGE | {
    "poolkit._describe",
    "poolkit._errors",
    "poolkit._public",
    "poolkit._task",
    "poolkit.backends",
    "poolkit.backends._call",
    "poolkit.backends._error_parts",
    "poolkit.backends._plain",
    "poolkit.backends._serialization",
    "poolkit.backends._tracebacks",
    "poolkit.backends.process",
    "poolkit.backends.process.board",
    "poolkit.backends.process.channel",
    "poolkit.backends.process.dock",
    "poolkit.backends.process.freight",
    "poolkit.backends.process.lending",
    "poolkit.backends.process.lifeline",
    "poolkit.backends.process.mapping",
    "poolkit.backends.process.memory",
    "poolkit.backends.process.segments",
    "poolkit.backends.process.steps",
    "poolkit.backends.process.worker",
}
PROCESSES: Final = (
    FACE
    | WORKER
    | {
        "poolkit._cpu",
        "poolkit.backends._pending",
        "poolkit.backends.process.books",
        "poolkit.backends.process.endings",
        "poolkit.backends.process.feeding",
        "poolkit.backends.process.handle",
        "poolkit.backends.process.loop",
        "poolkit.backends.process.make",
        "poolkit.backends.process.parcel",
        "poolkit.backends.process.pool",
        "poolkit.backends.process.recalling",
        "poolkit.backends.process.settling",
        "poolkit.backends.process.starter",
        "poolkit.backends.process.starting",
    }
)

# What poolkit needs, and the standard library's pools don't.
EXTRA: Final = {"contextvars", "faulthandler", "importlib", "mmap", "typing"}
if sys.version_info >= (3, 14):
    EXTRA.update(("annotationlib", "ast"))  # for `typing.NamedTuple`
EXTRA_OF_THREADS: Final = {"bisect", "copyreg", "math", "pickle", "signal", "struct"}

METHODS: Final = ("fork", "forkserver", "spawn")
STANDARD: Final = "import multiprocessing, concurrent.futures as futures"
OURS: Final = "from poolkit import make_executor"

PROGRAM: Final = """\
import sys

here = sorted(sys.modules)  # no set, which would have to be pickled
{imports}


def modules(before):
    return sorted(name for name in sys.modules if name not in before)


if __name__ == "__main__":
    with {make} as pool:
        there = pool.submit(modules, here).result()
        here = modules(here)
    import json

    print(json.dumps([here, there]))
"""


class Loaded(NamedTuple):
    """What was loaded since the start of the interpreter, by the first result."""

    here: set[str]
    """In the program."""
    there: set[str]
    """In the worker."""


def run(imports: str, make: str, folder: Path) -> Loaded:
    """Run a program that tells what is loaded; coverage would load more."""
    script = folder / "program.py"
    script.write_text(PROGRAM.format(imports=imports, make=make))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "POOLKIT"))}
    told = subprocess.run(
        [sys.executable, script], env=environment, stdout=subprocess.PIPE, check=True, timeout=100
    )
    return Loaded(*map(set, json.loads(told.stdout)))


def run_processes(folder: Path, method: str) -> tuple[Loaded, Loaded]:
    """Run the program with our pool, and with the standard library's."""
    return (
        run(OURS, f"make_executor('process', 2, start_method={method!r})", folder),
        run(
            STANDARD,
            f"futures.ProcessPoolExecutor(2, multiprocessing.get_context({method!r}))",
            folder,
        ),
    )


def check(loaded: set[str], ours: set[str], others: set[str], extra: set[str] = EXTRA) -> None:
    """Check that all of `ours` is loaded, and no more than that, `others`, and packages `extra`."""
    packages = {name: name.partition(".")[0] for name in loaded}
    mine = {name for name in loaded if packages[name] == "poolkit"}
    assert mine == ours, (
        f"needlessly loaded: {listed(mine - ours)}; to be struck off: {listed(ours - mine)}"
    )
    strange = {
        name
        for name in loaded - mine - others
        if packages[name] not in extra and not name.startswith("_")  # which come with others
    }
    assert not strange, f"needlessly loaded: {listed(strange)}"


def listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def test_the_package() -> None:
    loaded, standard = (modules_after(f"import {name}") for name in ("poolkit", "typing"))
    check(loaded, PACKAGE, standard)


def modules_after(statement: str) -> set[str]:
    told = subprocess.run(
        [sys.executable, "-c", f"import sys; {statement}; print(*sys.modules)"],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=100,
    )
    return set(told.stdout.split())


def test_a_pool_of_threads(tmp_path: Path) -> None:
    loaded = run(OURS, "make_executor('thread', 2)", tmp_path)
    standard = run(
        "from concurrent.futures import ThreadPoolExecutor", "ThreadPoolExecutor(2)", tmp_path
    )
    check(loaded.here, THREADS, standard.here, EXTRA | EXTRA_OF_THREADS)


@needs_linux
@pytest.mark.parametrize("method", METHODS)
def test_processes(tmp_path: Path, method: str) -> None:
    loaded, standard = run_processes(tmp_path, method)
    check(loaded.here, PROCESSES, standard.here)
    if method == "fork":
        forked = {name for name in loaded.there - loaded.here if not name.startswith("_")}
        assert forked == set(), "to be loaded before the fork"
    else:
        # The worker has imported the program, too.
        check(loaded.there, WORKER | SWITCH, standard.there)


@needs_linux
@pytest.mark.parametrize("method", METHODS)
def test_no_process_starts_before_it_is_needed(method: str) -> None:
    with make_executor("process", 3, start_method=method) as pool:
        assert multiprocessing.active_children() == []
        for _ in range(5):
            pool.submit(square, 2).result()
            assert len(multiprocessing.active_children()) == 1


@needs_linux
@pytest.mark.parametrize("method", METHODS)
def test_workers_start_side_by_side(method: str) -> None:
    """Each waits for the others before it says that it is ready."""
    barrier = multiprocessing.get_context(method).Barrier(3, timeout=60)
    with make_executor(
        "process", 3, start_method=method, initializer=meet, initargs=(barrier,)
    ) as pool:
        assert [pool.submit(square, n) for n in range(3)][2].result() == 4
