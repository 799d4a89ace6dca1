"""What ``Executor.map`` promises: the standard library's contract, and poolkit's few additions."""

import pickle
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

from ..._executor import PoolExecutor
from .. import _contract_tasks as tasks
from .base import ContractBase, MakePool
from .gate import GateKeeper


class MapContract(ContractBase):
    """``map``."""

    def test_map_gives_what_the_builtin_map_gives(self, executor: Executor) -> None:
        """The same results in the same order; the shortest iterable ends it."""
        assert list(executor.map(tasks.square, range(50))) == [n * n for n in range(50)]
        assert list(executor.map(tasks.add, range(5), range(3))) == [0, 2, 4]
        assert list(executor.map(tasks.square, [])) == []

    def test_map_gives_the_same_in_chunks(self, executor: Executor) -> None:
        """``chunksize`` changes no result."""
        squares = executor.map(tasks.square, range(50), chunksize=7)
        assert list(squares) == [n * n for n in range(50)]

    @pytest.mark.parametrize("chunksize", [1, 4])
    def test_map_hands_each_item_over_as_it_is(self, executor: Executor, chunksize: int) -> None:
        """Tuples and bytes too, which could be taken for several arguments, or for pickled ones."""
        for items in (
            [(1, 2), (), (b"3",), ((4,),)],
            [b"", b"1", pickle.dumps(2), bytes(100_000)],
            [None, 1.5, "three", True, 5j, 2**70],
            [[6], (7,), b"8", None, {9: (10,)}],
        ):
            assert list(executor.map(tasks.identity, items, chunksize=chunksize)) == items

    def test_map_keeps_the_order_when_later_items_are_done_first(
        self, executor: Executor, gate: GateKeeper
    ) -> None:
        """The first result comes first, however long it takes."""
        results = executor.map(gate.gate.hold_first, range(3))
        gate.wait_started()
        with self._opened_soon(gate):
            assert next(results) == 0
        assert list(results) == [1, 2]

    def test_map_raises_an_error_in_its_items_place(self, executor: Executor) -> None:
        """Results before it are given; it ends the iteration."""
        results = executor.map(tasks.fail_on_multiples_of_three, [1, 2, 3, 4])
        assert [next(results), next(results)] == [1, 2]
        with pytest.raises(ValueError, match="3"):
            next(results)
        with pytest.raises(StopIteration):
            next(results)

    def test_map_pulls_its_whole_input_at_the_call(self, executor: Executor) -> None:
        """``map`` is eager, as the standard library's is."""
        pulled: list[int] = []
        results = executor.map(tasks.square, _numbers(pulled))
        assert len(pulled) == 30
        assert list(results) == [n * n for n in range(30)]

    def test_map_runs_what_nobody_iterates_over(
        self, own_executor: Executor, tmp_path: Path
    ) -> None:
        """Ignoring the results of ``map`` cancels nothing."""
        own_executor.map(tasks.count_call, [tmp_path] * 10, range(10))
        own_executor.shutdown(wait=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n}-0" for n in range(10)]

    def test_map_raises_a_timeout_error(self, executor: Executor, gate: GateKeeper) -> None:
        """``timeout`` limits how long the results are waited for."""
        results = executor.map(gate.gate.hold, [1], timeout=0)
        with pytest.raises(TimeoutError):
            next(results)
        gate.open()

    def test_map_with_a_buffersize_pulls_as_results_are_taken(self, pool: PoolExecutor) -> None:
        """``buffersize`` bounds what is pulled and not yet yielded, on every Python version."""
        pulled: list[int] = []
        results = pool.map(tasks.square, _numbers(pulled), buffersize=4)
        assert len(pulled) == 4
        assert next(results) == 0
        assert next(results) == 1
        assert len(pulled) <= 6
        assert list(results) == [n * n for n in range(2, 30)]

    @pytest.mark.parametrize(
        ("buffersize", "error"), [("7", TypeError), (1.5, TypeError), (0, ValueError)]
    )
    def test_map_refuses_a_wrong_buffersize(
        self, pool: PoolExecutor, buffersize: Any, error: type[Exception]
    ) -> None:
        """At the call, and it says so."""
        with pytest.raises(error, match="buffersize"):
            pool.map(tasks.square, [1], buffersize=buffersize)

    def test_map_chooses_chunks_by_itself(self, pool: PoolExecutor) -> None:
        """``chunksize="auto"`` changes no result either."""
        squares = pool.map(tasks.square, range(50), chunksize="auto")
        assert list(squares) == [n * n for n in range(50)]

    def test_map_of_a_bounded_pool_goes_through_the_bound(self, make_pool: MakePool) -> None:
        """``max_pending`` blocks no ``map`` for ever, also with larger chunks."""
        results = make_pool(max_pending=3).map(tasks.square, range(20), chunksize=10)
        assert list(results) == [n * n for n in range(20)]

    def test_the_iterator_of_map_can_be_closed(self, pool: PoolExecutor) -> None:
        """As the standard library's, a generator: closing it cancels the rest."""
        results: Any = pool.map(tasks.identity, range(3))
        assert next(results) == 0
        results.close()
        assert list(results) == []
        assert list(pool.map(tasks.square, range(3))) == [0, 1, 4]


def _numbers(pulled: list[int]) -> Iterator[int]:
    """Yield thirty numbers, and remember which were pulled."""
    for number in range(30):
        pulled.append(number)
        yield number
