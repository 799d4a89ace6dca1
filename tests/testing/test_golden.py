"""The same seed gives the same order: in any process, whatever the seed of its hashes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import golden

EXPECTED = Path(__file__).with_name("golden.txt").read_text()


@pytest.mark.parametrize("hash_seed", ["0", "1", "4711", "random"])
def test_orders_in_a_fresh_interpreter(hash_seed: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", golden.__name__],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert finished.stdout == EXPECTED


def test_seeds_differ() -> None:
    """The golden orders would prove little if there were but one."""
    orders = [line.partition(": ")[2] for line in EXPECTED.splitlines()]
    assert len(orders) == 16
    assert len(set(orders)) >= 12
