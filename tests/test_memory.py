"""Memory and laziness over long inputs."""

import gc
import itertools
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from poolkit import make_executor, map_ordered, map_outcomes, map_unordered
from poolkit.backends.process.memory import resident_bytes

from . import tasks

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["thread", "process"])
def test_two_million_items_in_flat_memory(kind: str) -> None:
    pulled = yielded = most_ahead = 0

    def generate() -> Iterator[int]:
        nonlocal pulled
        for number in range(2_000_000):
            pulled += 1
            yield number

    with make_executor(kind, 2) as pool:
        for _ in map_unordered(pool, abs, range(200_000)):
            pass
        gc.collect()
        before = largest = resident_bytes()
        for _ in map_unordered(pool, abs, generate()):
            yielded += 1
            if pulled - yielded > most_ahead:
                most_ahead = pulled - yielded
            if not yielded % 4096:
                largest = max(largest, resident_bytes())
    assert yielded == pulled == 2_000_000
    assert most_ahead < 20_000
    assert largest - before < 10 * MIB, "five bytes an item, kept, would be too many"


class Large:
    """A result that can be watched."""

    def __init__(self, number: int) -> None:
        self.number = number


@pytest.mark.parametrize("chunksize", [1, 8])
@pytest.mark.parametrize("verb", [map_ordered, map_unordered, map_outcomes])
def test_what_was_yielded_is_not_kept(verb: Any, chunksize: int) -> None:
    """Of eight large results in a chunk, those that the consumer is done with are gone."""
    gc.collect()
    gc.disable()
    try:
        with make_executor("thread", 1) as pool:
            results = verb(pool, Large, range(16), chunksize=chunksize)
            for _ in range(12):
                result = next(results)
                large = result if isinstance(result, Large) else result.value
                ref = weakref.ref(large)
                assert ref() is not None
                del result, large
                assert ref() is None
            results.close()
    finally:
        gc.enable()


@pytest.mark.parametrize("verb", [map_ordered, map_unordered])
def test_a_closed_iterator_yields_nothing_of_a_chunk_that_was_there(verb: Any) -> None:
    with make_executor("thread", 1) as pool:
        results = verb(pool, tasks.square, range(64), chunksize=32)
        assert len(list(itertools.islice(results, 3))) == 3
        results.close()
        assert list(results) == []
