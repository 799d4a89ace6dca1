"""The tests of an executor by somebody else, for `docs/how-to/test-doubles.md`."""

from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from poolkit.testing import ExecutorContract


class TestThreadPoolExecutor(ExecutorContract):
    """Hold the standard library's threads to both contracts."""

    def make_executor(self, **options: Any) -> Executor:
        """Return a new executor."""
        return ThreadPoolExecutor(2)
