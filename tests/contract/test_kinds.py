"""The published suite, on every kind: poolkit's own, and foreign executors through the adapter."""

import concurrent.futures
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any, ClassVar

import loky
import pytest

from poolkit import make_executor
from poolkit.testing import ExecutorContract, ManualExecutor, SimulatedExecutor

from ..clusters.start import dask_cluster, needs


class TestInline(ExecutorContract):
    concurrent = False
    in_caller = True
    limits_tasks = True
    stops_tasks = False

    def make_executor(self, **options: Any) -> Executor:
        return make_executor("inline", **options)


class TestThread(ExecutorContract):
    limits_tasks = True
    stops_tasks = True

    def make_executor(self, **options: Any) -> Executor:
        return make_executor("thread", 2, **options)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="needs concurrent.interpreters")
class TestInterpreter(ExecutorContract):
    pickles = True
    limits_tasks = True
    stops_tasks = True
    share = True

    def make_executor(self, **options: Any) -> Executor:
        return make_executor("interpreter", 2, **options)


class TestProcess(ExecutorContract):
    pickles = True
    limits_tasks = True
    stops_tasks = True
    share = True

    def make_executor(self, **options: Any) -> Executor:
        return make_executor("process", 2, **options)


class TestManual(ExecutorContract):
    concurrent = False
    limits_tasks = True
    stops_tasks = False
    known_to_differ = {  # noqa: RUF012
        "test_an_error_in_the_with_block_comes_out_and_loses_no_task": "it cancels what is pending",
    }

    def make_executor(self, **options: Any) -> Executor:
        return ManualExecutor(auto_run=True, **options)


class TestSimulated(ExecutorContract):
    concurrent = False
    limits_tasks = True
    stops_tasks = True
    known_to_differ = {  # noqa: RUF012
        "test_an_error_in_the_with_block_comes_out_and_loses_no_task": "it cancels what is pending",
    }

    def make_executor(self, **options: Any) -> Executor:
        return SimulatedExecutor(7, 2, **options)


@needs("distributed")
class TestDask(ExecutorContract):
    """A cluster on loopback that the pools join, as starting one for each test would take long."""

    pickles = True
    limits_tasks = True
    stops_tasks = True
    share = True
    address: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _cluster(cls) -> Iterator[None]:
        with dask_cluster(workers=2) as cls.address:
            yield

    def make_executor(self, **options: Any) -> Executor:
        return make_executor("dask", address=self.address, **options)


@pytest.mark.ray
@needs("ray")
class TestRay(ExecutorContract):
    """One Ray, started for all of these tests; each pool joins it."""

    pickles = True
    limits_tasks = True
    stops_tasks = True
    share = True

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _cluster(cls) -> Iterator[None]:
        with make_executor("ray", 2):  # for as long as it is open, others use what it has started
            yield

    def make_executor(self, **options: Any) -> Executor:
        return make_executor("ray", 2, **options)


@needs("sample_kind")
class TestInstalledKind(ExecutorContract):
    """Of a package that somebody else might have written; see tests/sample_kind."""

    limits_tasks = False
    stops_tasks = False

    def make_executor(self, **options: Any) -> Executor:
        return make_executor("crew", **options)


class TestStdlibThread(ExecutorContract):
    limits_tasks = True
    stops_tasks = True

    def make_executor(self, **options: Any) -> Executor:
        return concurrent.futures.ThreadPoolExecutor(2)


class TestStdlibProcess(ExecutorContract):
    pickles = True
    limits_tasks = False
    stops_tasks = False
    share = True

    def make_executor(self, **options: Any) -> Executor:
        context = multiprocessing.get_context("forkserver")
        return concurrent.futures.ProcessPoolExecutor(2, mp_context=context)


class TestLoky(ExecutorContract):
    pickles = True
    limits_tasks = False
    stops_tasks = False
    share = True
    known_to_differ = {  # noqa: RUF012
        "test_every_keyword_reaches_the_function": "submit(fn=...) collides with its parameter",
        "test_shutdown_can_cancel_what_has_not_started": "its shutdown has no cancel_futures",
    }

    def make_executor(self, **options: Any) -> Executor:
        executor: Executor = loky.ProcessPoolExecutor(2)
        return executor
