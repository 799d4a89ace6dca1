"""Real clusters, on loopback, for tests that join one."""

import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

from poolkit.backends._dask_cluster import keep_workers


def needs(package: str) -> pytest.MarkDecorator:
    """Skip where a package may be missing; where it has to be there, a test without it fails."""
    missing = find_spec(package) is None
    return pytest.mark.skipif(
        missing and sys.version_info >= (3, 14), reason=f"{package} is not installed"
    )


@contextmanager
def dask_cluster(workers: int, **options: Any) -> Iterator[str]:
    """Start a Dask cluster, of processes with one thread each; give its address."""
    dask: Any = importlib.import_module("dask")
    distributed: Any = importlib.import_module("distributed")
    keep_workers()
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        cluster = distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            **options,
        )
    try:
        yield cluster.scheduler_address
    finally:
        cluster.close()
