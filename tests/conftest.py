"""Fixtures that all tests share."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .tasks import Gate, GateKeeper


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put Ray's tests last: it leaves sockets and processes' objects that others stumble on."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is not None)


@pytest.fixture
def make_gate(tmp_path: Path) -> Iterator[Callable[[], GateKeeper]]:
    """Make gates; all are opened at the end, so that no task is left waiting."""
    keepers: list[GateKeeper] = []

    def make() -> GateKeeper:
        keepers.append(GateKeeper(Gate.make(tmp_path / f"gate{len(keepers)}")))
        return keepers[-1]

    yield make
    for keeper in keepers:
        keeper.close()


@pytest.fixture
def gate(make_gate: Callable[[], GateKeeper]) -> GateKeeper:
    return make_gate()


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Have the collector run only where the test says so."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
