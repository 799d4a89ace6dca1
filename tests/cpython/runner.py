"""Run one module of CPython's own `test_concurrent_futures` on one of poolkit's kinds.

``python -m tests.cpython.runner process-spawn test_wait``, from the project's root, in a process
of its own: it puts stand-ins where the interpreter's test package looks for the pools and for
``Future``, and runs that package's tests of the kind as they are. The scripts that the tests start
get the stand-ins, too.

It prints how many tests ran, and which were left out for what. It fails if a test fails or leaves
threads or processes behind, and if `left_out.TABLE` does not say the truth.
"""

import concurrent.futures
import concurrent.futures.process
import faulthandler
import importlib
import inspect
import platform
import re
import sys
import unittest
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor
from fnmatch import fnmatchcase
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Final, NamedTuple

from poolkit import PoolExecutor, TaskFuture, make_executor

from .left_out import TABLE, LeftOut

PACKAGE: Final = "test.test_concurrent_futures"
ROOT: Final = Path(__file__).parents[2]

TIME_LIMIT: Final = 110.0
"""Seconds, after which a module that hangs is ended and shows where it hangs."""

# What a test finds in a script's traceback, in the standard library's words.
OUR_WORDS: Final = b"poolkit.PoolShutdownError: "
THEIR_WORDS: Final = b"RuntimeError: cannot schedule new futures after shutdown: "

# Goes before a script; in front of its first line, so that its own lines keep their numbers.
PRELUDE: Final = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); import tests.cpython.runner; "
    "del sys.path[0]; tests.cpython.runner.stand_in()\n"
)


class ThreadPoolExecutor:
    """Makes poolkit's thread pool, out of the arguments of the standard library's."""

    def __new__(  # type: ignore[misc]
        cls,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> PoolExecutor:
        return make_executor(
            "thread",
            max_workers,
            thread_name_prefix=thread_name_prefix,
            initializer=initializer,
            initargs=initargs,
        )


class ProcessPoolExecutor:
    """Makes poolkit's process pool, out of the arguments of the standard library's."""

    def __new__(  # type: ignore[misc]
        cls,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> PoolExecutor:
        return make_executor(
            "process",
            max_workers,
            mp_context=mp_context,
            initializer=initializer,
            initargs=initargs,
            max_tasks_per_child=max_tasks_per_child,
        )

    def terminate_workers(self) -> None:
        """Have the name that the tests take from here, to call it on what `__new__` returns."""

    def kill_workers(self) -> None:
        """As `terminate_workers`."""


class Future(TaskFuture[Any]):
    """A `TaskFuture`, under the name that the tests expect in its repr."""


class Kind(NamedTuple):
    """What to run for one of poolkit's kinds, and one start method.

    Attributes:
        family: Its part of the table.
        executor_type: Its stand-in, by which its tests are known.
        start_method: How its tests have their workers started.
        also: The tests that belong to it but don't say so, as a pattern.
    """

    family: str
    executor_type: type
    start_method: str | None
    also: str


KINDS: Final[Mapping[str, Kind]] = {
    "thread": Kind("thread", ThreadPoolExecutor, None, "FutureTests.*"),
    **{
        f"process-{method}": Kind(
            "process",
            ProcessPoolExecutor,
            method,
            f"FailingInitializerResourcesTest.test_{method}",
        )
        for method in ("fork", "forkserver", "spawn")
    },
}

OTHER_MODULES: Final = {
    "thread": {"test_deadlock", "test_interpreter_pool", "test_process_pool"},
    "process": {"test_future", "test_interpreter_pool", "test_thread_pool"},
}
"""For each family: the modules without tests of it."""


def stand_in() -> None:
    """Let whoever imports from ``concurrent.futures`` from now on find ours."""
    for module, name, ours in (
        (concurrent.futures, "ThreadPoolExecutor", ThreadPoolExecutor),
        (concurrent.futures, "ProcessPoolExecutor", ProcessPoolExecutor),
        (concurrent.futures, "Future", Future),
        (concurrent.futures._base, "Future", Future),
        # Of a crash, the tests ask for this subclass. Ours has no public one for processes.
        (concurrent.futures.process, "BrokenProcessPool", BrokenExecutor),
    ):
        setattr(module, name, ours)


def stand_in_scripts() -> None:
    """Let the scripts that tests start through ``assert_python_ok`` find ours."""
    helper = importlib.import_module("test.support.script_helper")
    original = helper.assert_python_ok

    def assert_python_ok(option: str, source: str) -> tuple[int, bytes, bytes]:
        assert option == "-c"
        code, out, err = original(option, PRELUDE + source)
        return code, out, err.replace(OUR_WORDS, THEIR_WORDS)

    vars(helper).update(assert_python_ok=assert_python_ok)


def find_tests(module: Any, kind: Kind) -> list[unittest.TestCase]:
    """Return a module's tests of a kind."""
    cases = [
        case
        for case in vars(module).values()
        if inspect.isclass(case)
        and issubclass(case, unittest.TestCase)
        and case.__module__ == module.__name__
    ]
    return [
        case(name)
        for case in cases
        for name in unittest.defaultTestLoader.getTestCaseNames(case)
        if fnmatchcase(f"{case.__name__}.{name}", kind.also)
        or (
            getattr(case, "executor_type", None) is kind.executor_type
            and getattr(case, "ctx", None) == kind.start_method
        )
    ]


def name_of(test: unittest.TestCase) -> str:
    """Return a test's name in the table: as it is written down, once for all start methods."""
    name: str = getattr(test, test._testMethodName).__qualname__
    return name


def source_of(test: unittest.TestCase) -> str:
    """Return a test's source, and that of the methods that it calls."""
    source = inspect.getsource(getattr(test, test._testMethodName))
    called = {getattr(test, name, None) for name in re.findall(r"\bself\.(_\w+)\(", source)}
    return source + "".join(map(inspect.getsource, filter(inspect.ismethod, called)))


def find_lies(tests: list[unittest.TestCase], table: Mapping[str, LeftOut]) -> str | None:
    """Say what in the table is not so, of a family's tests."""
    due = {name for name, row in table.items() if sys.version_info >= row.since}
    if missing := due - {name_of(test) for test in tests}:
        return f"the table has tests that this Python does not: {missing}"
    for test in tests:
        row = table.get(name_of(test))
        if row is not None and row.proof not in source_of(test):
            return f"the table says that {name_of(test)} {row.why}, but it has no {row.proof}"
    return None


def main(kind_name: str, module_name: str) -> str | None:
    """Run a module's tests of a kind; return what went wrong, or None."""
    faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
    stand_in()
    support = importlib.import_module("test.support")
    stand_in_scripts()
    module = importlib.import_module(f"{PACKAGE}.{module_name}")
    kind = KINDS[kind_name]
    table = TABLE[kind.family][module_name]
    family = [other for other in KINDS.values() if other.family == kind.family]
    if lie := find_lies([test for other in family for test in find_tests(module, other)], table):
        return lie

    tests = find_tests(module, kind)
    left_out = [name_of(test) for test in tests if name_of(test) in table]
    chosen = [test for test in tests if name_of(test) not in table]
    result = unittest.TextTestRunner(sys.stdout, verbosity=2).run(unittest.TestSuite(chosen))
    ran = result.testsRun - len(result.skipped)
    for name in left_out:
        print(f"left out: {name}, which {table[name].why}")
    for skipped, reason in result.skipped:
        print(f"skipped by CPython: {skipped}: {reason}")
    print(
        f"CPython {platform.python_version()}, {kind_name}, {module_name}: {ran} tests ran, "
        f"{len(left_out)} were left out, {len(result.skipped)} skipped by themselves"
    )
    if not result.wasSuccessful():
        return "tests failed"
    if not ran:
        return "no test ran"
    if support.environment_altered:
        return "tests left threads or processes behind"
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
