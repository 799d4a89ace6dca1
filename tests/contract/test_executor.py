"""What executors promise that depends on what is installed."""

import pytest

from .conftest import Make


def test_closures_travel_where_cloudpickle_is_installed(make: Make) -> None:
    pool = make()
    offset = 5
    if pool.kind == "adapted ProcessPoolExecutor" and not pool.capabilities.serializes:
        pytest.skip("loky has its own way")
    assert pool.submit(lambda x: x + offset, 2).result() == 7
