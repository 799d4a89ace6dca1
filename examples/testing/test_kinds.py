"""One test over several kinds of pool, for `docs/how-to/test-doubles.md`."""
# ruff: noqa: D103

import pytest

from poolkit import PoolExecutor, map_ordered


@pytest.mark.pool_kinds("inline", "thread", "process")
def test_words_are_counted(executor: PoolExecutor) -> None:
    assert list(map_ordered(executor, len, ["one", "three"])) == [3, 5]
