"""Run one module of CPython's own `test_concurrent_futures` on poolkit's thread pool.

``python -m tests.cpython.runner test_wait``, from the project's root, in a process of its own: it
puts stand-ins where the interpreter's test package looks for ``ThreadPoolExecutor`` and
``Future``, and then runs that package's thread-pool tests as they are. Scripts that the tests
start get the stand-ins, too.

It prints how many tests ran, and which were left out for which private attribute; it fails if a
test fails, if one leaves threads behind, or if `LEFT_OUT` is wrong.
"""

import concurrent.futures
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

PRELUDE: Final = f"""\
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.cpython.runner import stand_in
del sys.path[0]
stand_in()
"""

LEFT_OUT: Final = {}


class ThreadPoolExecutor:
    """Makes poolkit's thread pool from the arguments of the standard library's."""

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
    """A `TaskFuture` under the name that the tests expect in its repr."""


def stand_in() -> None:
    """Make ``from concurrent.futures import ThreadPoolExecutor, Future`` find ours, and so on."""
    vars(concurrent.futures).update(ThreadPoolExecutor=ThreadPoolExecutor, Future=Future)
    vars(concurrent.futures._base).update(Future=Future)


def stand_in_scripts() -> None:
    """Make the scripts that tests start with ``assert_python_ok`` find ours."""
    helper = importlib.import_module("test.support.script_helper")
    original = helper.assert_python_ok

    def assert_python_ok(*args: str, **env: Any) -> Any:
        option, source = args
        assert option == "-c"
        return original(option, PRELUDE + source, **env)

    vars(helper).update(assert_python_ok=assert_python_ok)


def cases_of(module: Any) -> list[type[unittest.TestCase]]:
    """Return a module's test classes for thread pools and for futures."""
    classes = [value for value in vars(module).values() if inspect.isclass(value)]
    return [
        case
        for case in classes
        if issubclass(case, unittest.TestCase)
        and case.__module__ == module.__name__
        and (
            getattr(case, "executor_type", None) is ThreadPoolExecutor
            or case.__name__ == "FutureTests"
        )
    ]


def main(name: str) -> int:
    stand_in()
    stand_in_scripts()
    support = importlib.import_module("test.support")
    module = importlib.import_module(f"{PACKAGE}.{name}")
    suite = unittest.TestSuite()
    for case in cases_of(module):
        for test in unittest.defaultTestLoader.getTestCaseNames(case):
            suite.addTest(case(test))
    result = unittest.TextTestRunner(sys.stdout, verbosity=2).run(suite)
    print(support.environment_altered)
    return not result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
