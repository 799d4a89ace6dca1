"""Run one module of CPython's own `test_concurrent_futures` on poolkit's thread pool.

``python -m tests.cpython.runner test_wait``, from the project's root, in a process of its own: it
puts stand-ins where the interpreter's test package looks for ``ThreadPoolExecutor`` and
``Future``, and runs that package's tests of thread pools and futures as they are. The scripts
that the tests start get the stand-ins, too.

It prints how many tests ran, and which were left out for which private attribute. It fails if a
test fails or leaves threads behind, and if `LEFT_OUT` does not say the truth.
"""

import concurrent.futures
import faulthandler
import importlib
import inspect
import platform
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from poolkit import PoolExecutor, TaskFuture, make_executor

PACKAGE: Final = "test.test_concurrent_futures"
ROOT: Final = Path(__file__).parents[2]

LEFT_OUT: Final = {
    "test_as_completed": {},
    "test_future": {},
    "test_init": {"ThreadPoolFailingInitializerTest.test_initializer": "executor._broken"},
    "test_shutdown": {
        "ThreadPoolShutdownTest.test_context_manager_shutdown": "executor._threads",
        "ThreadPoolShutdownTest.test_del_shutdown": "executor._threads",
        "ThreadPoolShutdownTest.test_shutdown_no_wait": "executor._threads",
        "ThreadPoolShutdownTest.test_thread_names_assigned": "executor._threads",
        "ThreadPoolShutdownTest.test_thread_names_default": "executor._threads",
        "ThreadPoolShutdownTest.test_threads_terminate": "executor._threads",
    },
    "test_thread_pool": {
        "ThreadPoolExecutorTest.test_default_workers": "executor._max_workers",
        "ThreadPoolExecutorTest.test_idle_thread_reuse": "executor._threads",
        "ThreadPoolExecutorTest.test_saturation": "executor._threads",
    },
    "test_wait": {},
}
"""For each module with tests of thread pools or futures: the tests left out, and the private
attribute that they touch. Python 3.13, 3.14 and 3.15 have the same; `main` compares."""

OTHER_MODULES: Final = {"test_deadlock", "test_interpreter_pool", "test_process_pool"}
"""Those without such tests."""

TIME_LIMIT: Final = 50.0
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


class Future(TaskFuture[Any]):
    """A `TaskFuture`, under the name that the tests expect in its repr."""


def stand_in() -> None:
    """Let whoever imports from ``concurrent.futures`` from now on find ours."""
    for module, ours in (
        (concurrent.futures, ThreadPoolExecutor),
        (concurrent.futures, Future),
        (concurrent.futures._base, Future),
    ):
        setattr(module, ours.__name__, ours)


def stand_in_scripts() -> None:
    """Let the scripts that tests start through ``assert_python_ok`` find ours."""
    helper = importlib.import_module("test.support.script_helper")
    original = helper.assert_python_ok

    def assert_python_ok(option: str, source: str) -> tuple[int, bytes, bytes]:
        assert option == "-c"
        code, out, err = original(option, PRELUDE + source)
        return code, out, err.replace(OUR_WORDS, THEIR_WORDS)

    vars(helper).update(assert_python_ok=assert_python_ok)


def find_tests(module: Any) -> list[unittest.TestCase]:
    """Return a module's tests of thread pools and of futures."""
    cases = [
        case
        for case in vars(module).values()
        if inspect.isclass(case)
        and issubclass(case, unittest.TestCase)
        and case.__module__ == module.__name__
        and (
            getattr(case, "executor_type", None) is ThreadPoolExecutor
            or case.__name__ == "FutureTests"
        )
    ]
    return [
        case(name) for case in cases for name in unittest.defaultTestLoader.getTestCaseNames(case)
    ]


def name_of(test: unittest.TestCase) -> str:
    """Return a test's name in `LEFT_OUT`."""
    return f"{type(test).__name__}.{test._testMethodName}"


def main(module_name: str) -> str | None:
    """Run a module's tests; return what went wrong, or None."""
    faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
    stand_in()
    support = importlib.import_module("test.support")
    stand_in_scripts()
    tests = find_tests(importlib.import_module(f"{PACKAGE}.{module_name}"))
    left_out = LEFT_OUT[module_name]
    if missing := set(left_out) - {name_of(test) for test in tests}:
        return f"LEFT_OUT has tests that this Python does not: {missing}"
    for test in tests:
        attribute = left_out.get(name_of(test))
        source = inspect.getsource(getattr(test, test._testMethodName))
        if attribute is not None and attribute not in source:
            return f"LEFT_OUT says of {name_of(test)} that it touches {attribute}, but it does not"

    suite = unittest.TestSuite(test for test in tests if name_of(test) not in left_out)
    result = unittest.TextTestRunner(sys.stdout, verbosity=2).run(suite)
    ran = result.testsRun - len(result.skipped)
    for name, attribute in left_out.items():
        print(f"left out: {name}, which touches {attribute}")
    for skipped, reason in result.skipped:
        print(f"skipped by CPython: {skipped}: {reason}")
    print(
        f"CPython {platform.python_version()}, {module_name}: {ran} tests ran, "
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
    sys.exit(main(sys.argv[1]))
