"""Two tests that have to fail, for `docs/how-to/test-doubles.md`."""
# ruff: noqa: D103

import threading

import pytest

from poolkit import make_executor


@pytest.mark.no_pool_leaks
def test_that_leaks() -> None:
    pool = make_executor("thread")
    assert pool.submit(abs, -1).result() == 1


@pytest.mark.pool_watchdog(1)
def test_that_hangs() -> None:
    never = threading.Event()
    with make_executor("thread") as pool:
        pool.submit(never.wait)
