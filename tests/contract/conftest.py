"""The kinds that are tested beyond the published suite, foreign executors among them."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import loky
import pytest

from poolkit import PoolExecutor, make_executor

Make = Callable[..., PoolExecutor]

KINDS = ("inline", "thread", "process", "stdlib-thread", "stdlib-process", "loky")


@cache
def foreign(kind: str) -> concurrent.futures.Executor:
    """Return somebody else's pool of two workers; one for all tests, as poolkit leaves it open."""
    if kind == "stdlib-thread":
        return concurrent.futures.ThreadPoolExecutor(2)
    if kind == "stdlib-process":
        context = multiprocessing.get_context("forkserver")
        return concurrent.futures.ProcessPoolExecutor(2, mp_context=context)
    pool: concurrent.futures.Executor = loky.ProcessPoolExecutor(2)
    return pool


@pytest.fixture(scope="package", autouse=True)
def close_foreign() -> Iterator[None]:
    yield
    for kind in KINDS[3:]:
        foreign(kind).shutdown()
    foreign.cache_clear()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def make(kind: str) -> Iterator[Make]:
    """Make executors of two workers (inline has none); all are shut down at the end."""
    made: list[PoolExecutor] = []

    def make(**options: Any) -> PoolExecutor:
        if kind in KINDS[3:]:
            made.append(make_executor(foreign(kind), **options))
        else:
            workers = None if kind == "inline" else 2
            made.append(make_executor(kind, workers, **options))
        return made[-1]

    yield make
    for pool in made:
        pool.shutdown()


@pytest.fixture
def pool(make: Make) -> PoolExecutor:
    return make()
