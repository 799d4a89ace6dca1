"""What a `TaskGroup` on the executor promises."""

import concurrent.futures
from typing import Any

import pytest

from ..._errors import PoolShutdownError
from ..._executor import PoolExecutor
from ..._group import TaskGroup
from .. import _contract_tasks as tasks
from .base import ContractBase
from .gate import GateKeeper


class GroupsContract(ContractBase):
    """`TaskGroup`."""

    def test_leaving_a_group_waits_for_all_of_its_tasks(self, pool: PoolExecutor) -> None:
        """And leaves the pool open."""
        with TaskGroup(pool) as group:
            futures = [group.submit(tasks.square, number) for number in range(20)]
            results = group.map(tasks.add, range(10), range(10))
        assert all(future.done() for future in futures)
        assert [future.result() for future in futures] == [n * n for n in range(20)]
        assert list(results) == [2 * n for n in range(10)]
        assert self.result(pool.submit(tasks.square, 3)) == 9, "the pool lives on"

    def test_a_group_raises_what_its_tasks_have_raised(self, pool: PoolExecutor) -> None:
        """In an ``ExceptionGroup``, with a note that names the call."""
        with pytest.raises(ExceptionGroup) as caught, TaskGroup(pool) as group:
            group.submit(tasks.fail, "x")
        (error,) = caught.value.exceptions
        assert isinstance(error, KeyError)
        assert "fail('x')" in error.__notes__[0]
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__

    def test_the_bodys_own_error_is_one_of_them(self, pool: PoolExecutor) -> None:
        """Once, also if it is a task's."""
        with pytest.raises(ExceptionGroup) as caught, TaskGroup(pool) as group:  # noqa: PT012
            group.submit(tasks.square, 3)
            raise ValueError("the body")
        assert _types(caught) == [ValueError]
        with pytest.raises(ExceptionGroup) as caught, TaskGroup(pool) as group:  # noqa: PT012
            self.error(group.submit(tasks.fail, "x"))
            raise ValueError("the body")
        assert _types(caught) == [KeyError, ValueError]
        with pytest.raises(ExceptionGroup) as caught, TaskGroup(pool) as group:
            self.result(group.submit(tasks.fail, "x"))  # raises what the group knows already
        assert _types(caught) == [KeyError]

    def test_a_failure_closes_the_group(self, pool: PoolExecutor, gate: GateKeeper) -> None:
        """No task is added to a group that has failed; its running ones are waited for."""
        with pytest.raises(ExceptionGroup) as caught, TaskGroup(pool) as group:  # noqa: PT012
            group.submit(gate.gate.hold)
            gate.wait_started()
            failing = group.submit(tasks.fail, "x")
            try:
                concurrent.futures.wait([failing], self.patience)
                with pytest.raises(PoolShutdownError, match="TaskGroup"):
                    group.submit(tasks.square, 1)
            finally:  # the group waits for what the gate holds
                gate.open()
        assert _types(caught) == [KeyError]

    def test_groups_are_nested(self, pool: PoolExecutor) -> None:
        """An inner group's failure is one of the outer's body."""
        with pytest.raises(ExceptionGroup) as caught, TaskGroup(pool) as outer:  # noqa: PT012
            outer.submit(tasks.square, 2)
            with TaskGroup(pool) as inner:
                inner.submit(tasks.fail, "x")
        (group,) = caught.value.exceptions
        assert isinstance(group, ExceptionGroup)
        assert isinstance(group.exceptions[0], KeyError)

    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
    def test_an_interrupt_leaves_a_group_as_itself(
        self, pool: PoolExecutor, interrupt: type[BaseException]
    ) -> None:
        """``KeyboardInterrupt`` and ``SystemExit`` are not wrapped."""
        with pytest.raises(interrupt), TaskGroup(pool) as group:  # noqa: PT012
            group.submit(tasks.square, 2)
            raise interrupt

    def test_wrong_use_of_a_group_is_refused(self, pool: PoolExecutor) -> None:
        """With a word about the right one."""
        with pytest.raises(TypeError, match="executor or a kind's name"):
            TaskGroup(3)  # type: ignore[arg-type]
        group = TaskGroup(pool)
        with pytest.raises(RuntimeError, match="with TaskGroup"):
            group.submit(tasks.square, 1)
        with group, pytest.raises(TypeError, match="at least one"):
            group.map(tasks.square)
        with pytest.raises(RuntimeError, match="make another"):
            group.__enter__()
        with pytest.raises(ExceptionGroup) as caught, TaskGroup(pool) as group:
            group.map(tasks.add, [1, 2], [1], strict=True)
        assert _types(caught) == [ValueError]


def _types(caught: "pytest.ExceptionInfo[ExceptionGroup[Any]]") -> list[type]:
    types: list[type] = [type(error) for error in caught.value.exceptions]
    return sorted(types, key=lambda t: t.__name__)
