"""What the verbs promise on the executor: `map_ordered`, `map_unordered` and their kin."""

import gc
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from ..._errors import PoolkitError, PoolShutdownError
from ..._executor import PoolExecutor
from ..._map import map_batches, map_ordered, map_outcomes, map_unordered
from .. import _contract_tasks as tasks
from .base import ContractBase, MakePool
from .gate import GateKeeper

VERBS: Final[tuple[Callable[..., Any], ...]] = (map_ordered, map_unordered)


class Numbers:
    """An endless input that counts what was pulled from it."""

    def __init__(self) -> None:
        self.pulled = 0

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count():
            self.pulled += 1
            yield number


class VerbsContract(ContractBase):
    """The verbs, on what `poolkit.make_executor` makes of the executor."""

    def test_the_verbs_give_what_the_builtin_map_gives(self, pool: PoolExecutor) -> None:
        """The same results, `map_ordered` in the same order; `map_outcomes` with their inputs."""
        squares = [n * n for n in range(300)]
        assert list(map_ordered(pool, tasks.square, range(300))) == squares
        assert sorted(map_unordered(pool, tasks.square, range(300))) == squares
        assert list(map_ordered(pool, tasks.add, range(5), range(3))) == [0, 2, 4]
        assert list(map_ordered(pool, tasks.square, [])) == []
        outcomes = list(map_outcomes(pool, tasks.square, range(20), ordered=True))
        assert [outcome.unwrap() for outcome in outcomes] == squares[:20]
        assert [outcome.index for outcome in outcomes] == list(range(20))
        assert [outcome.args for outcome in outcomes] == [(n,) for n in range(20)]
        assert all(outcome.ok and outcome.worker and outcome.run_s >= 0 for outcome in outcomes)

    @pytest.mark.parametrize("chunksize", [1, 3, 1000, "auto"])
    @pytest.mark.parametrize("verb", VERBS)
    def test_infinite_inputs_are_pulled_as_needed(
        self, pool: PoolExecutor, verb: Callable[..., Any], chunksize: Any
    ) -> None:
        """Never more than ``max_pending`` items are pulled and not yet yielded."""
        numbers = Numbers()
        with verb(pool, tasks.square, numbers, max_pending=100, chunksize=chunksize) as results:
            assert numbers.pulled <= 100
            for yielded in range(1, 1001):
                next(results)
                assert numbers.pulled - yielded <= 100
            assert numbers.pulled <= 1100

    def test_the_default_bound_is_finite(self, pool: PoolExecutor) -> None:
        """Memory stays bounded without ``max_pending``, too."""
        numbers = Numbers()
        with map_unordered(pool, tasks.square, numbers) as results:
            for _ in itertools.islice(results, 3000):
                pass
        assert numbers.pulled < 20_000

    def test_outcomes_hold_failures(self, pool: PoolExecutor) -> None:
        """`map_outcomes` raises no task's error, and says of which input each is."""
        outcomes = list(
            map_outcomes(pool, tasks.fail_on_multiples_of_three, range(10), chunksize=4)
        )
        assert len(outcomes) == 10
        failed = sorted(outcome.index for outcome in outcomes if not outcome.ok)
        assert failed == [0, 3, 6, 9]
        for outcome in outcomes:
            if not outcome.ok:
                assert type(outcome.error) is ValueError
                with pytest.raises(ValueError, match=str(outcome.index)):
                    outcome.unwrap()

    def test_map_ordered_raises_the_first_failure_in_its_place(self, pool: PoolExecutor) -> None:
        """After the results before it; it ends the iteration."""
        results = map_ordered(pool, tasks.fail_on_multiples_of_three, itertools.count(1))
        assert [next(results), next(results)] == [1, 2]
        with pytest.raises(ValueError, match="3"):
            next(results)
        with pytest.raises(StopIteration):
            next(results)

    def test_map_unordered_raises_a_failure(self, pool: PoolExecutor) -> None:
        """And leaves the pool usable."""
        with pytest.raises(ValueError):  # noqa: PT011
            list(map_unordered(pool, tasks.fail_on_multiples_of_three, range(1000)))
        assert self.result(pool.submit(tasks.square, 2)) == 4

    @pytest.mark.parametrize("ordered", [False, True])
    def test_stop_iteration_of_a_task_does_not_end_the_iteration(
        self, pool: PoolExecutor, ordered: bool
    ) -> None:
        """It is an error like others."""
        outcomes = list(map_outcomes(pool, tasks.stop_iteration, range(5), ordered=ordered))
        assert all(isinstance(outcome.error, StopIteration) for outcome in outcomes)
        assert len(outcomes) == 5

    @pytest.mark.parametrize("verb", VERBS)
    def test_an_input_that_raises_midway_loses_nothing(
        self, pool: PoolExecutor, verb: Callable[..., Any]
    ) -> None:
        """The results of all items before it come first."""

        def numbers() -> Iterator[int]:
            yield from range(7)
            raise LookupError("the cursor is gone")

        results = verb(pool, tasks.square, numbers())
        seen = [next(results) for _ in range(7)]
        with pytest.raises(LookupError, match="cursor"):
            next(results)
        assert sorted(seen) == [n * n for n in range(7)]

    def test_strict_refuses_different_lengths(self, pool: PoolExecutor) -> None:
        """``strict=True`` is the built-in ``zip``'s."""
        with pytest.raises(ValueError, match="shorter"):
            list(map_ordered(pool, tasks.add, [1, 2], [3], strict=True))

    def test_map_batches_calls_with_lists(self, pool: PoolExecutor) -> None:
        """Whole lists of the given size, and a last shorter one."""
        assert list(map_batches(pool, tasks.total, range(10), 4)) == [6, 22, 17]
        assert list(map_batches(pool, tasks.total, iter(range(10)), size=4)) == [6, 22, 17]
        unordered = map_batches(pool, tasks.total, range(10), 4, ordered=False)
        assert sorted(unordered) == [6, 17, 22]

    def test_the_waiting_limit_is_a_plain_timeout(
        self, pool: PoolExecutor, gate: GateKeeper
    ) -> None:
        """``timeout`` is about the caller's patience, so no task has failed."""
        results = map_ordered(pool, gate.gate.hold, [1], timeout=0)
        with pytest.raises(TimeoutError, match="timeout=0") as caught:
            next(results)
        assert not isinstance(caught.value, PoolkitError)
        gate.open()

    @pytest.mark.parametrize("way", ["close", "with", "drop"])
    def test_leaving_early_cancels_what_has_not_started(
        self, make_pool: MakePool, gate: GateKeeper, way: str
    ) -> None:
        """Without waiting for what runs; if nothing was ever taken, with a warning."""
        pool = make_pool()
        results = map_unordered(
            pool, gate.gate.hold, itertools.count(), max_pending=60, chunksize=1
        )
        gate.wait_started(2)
        if way == "close":
            results.close()
        elif way == "with":
            with results:
                pass
        else:
            with pytest.warns(RuntimeWarning, match="never iterated"):  # noqa: PT031
                del results
                gc.collect()
        # Nothing here has waited for the two that run.
        gate.open()
        pool.shutdown()

    def test_a_broken_off_loop_leaves_the_pool_usable(self, pool: PoolExecutor) -> None:
        """``break`` needs no cleaning up."""
        for result in map_unordered(pool, tasks.square, itertools.count()):
            if result > 100:
                break
        assert self.result(pool.submit(tasks.square, 3)) == 9

    @pytest.mark.parametrize("verb", VERBS)
    def test_a_pool_that_was_shut_down_is_refused(
        self, make_pool: MakePool, verb: Callable[..., Any]
    ) -> None:
        """At the call; or at the first ``next``, where tasks run in the caller only then."""
        pool = make_pool()
        pool.shutdown()
        if pool.capabilities.runs_in_caller:
            results = verb(pool, tasks.square, [1])
            with pytest.raises(PoolShutdownError):
                next(results)
        else:
            with pytest.raises(PoolShutdownError):
                verb(pool, tasks.square, [1])

    def test_shutdown_midway_yields_what_was_dispatched(self, make_pool: MakePool) -> None:
        """And then says that the pool was shut down, instead of seeming complete."""
        pool = make_pool()
        results = map_ordered(pool, tasks.square, itertools.count(), max_pending=10)
        seen = [next(results)]
        pool.shutdown(wait=False)
        with pytest.raises(PoolShutdownError):
            seen.extend(results)
        assert seen == [n * n for n in range(len(seen))]

    def test_two_verbs_share_a_pool(self, pool: PoolExecutor) -> None:
        """Two iterations on one pool don't mix up their results."""
        first = map_ordered(pool, tasks.square, range(50))
        second = map_ordered(pool, tasks.add, range(50))
        for number in range(50):
            assert next(first) == number * number
            assert next(second) == number

    def test_results_may_be_consumed_in_another_thread(self, pool: PoolExecutor) -> None:
        """An iterator belongs to no thread."""
        if not self.concurrent and not self.in_caller:
            pytest.skip("tasks run only when the test's own thread waits (concurrent = False)")
        results = map_ordered(pool, tasks.square, range(100))
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.extend(results))
        thread.start()
        thread.join()
        assert seen == [n * n for n in range(100)]

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"chunksize": 0}, ValueError),
            ({"chunksize": "big"}, TypeError),
            ({"chunksize": 1.5}, TypeError),
            ({"max_pending": 0}, ValueError),
            ({"max_pending": True}, TypeError),
            ({"task_timeout": 0}, ValueError),
            ({"task_timeout": float("nan")}, ValueError),
            ({"task_timeout": "1"}, TypeError),
            ({"timeout": -1}, ValueError),
            ({"progress": 7}, TypeError),
        ],
    )
    def test_wrong_options_are_refused_at_the_call(
        self, pool: PoolExecutor, options: dict[str, Any], error: type[Exception]
    ) -> None:
        """By name, and before anything is pulled from the input."""
        numbers = Numbers()
        with pytest.raises(error, match=next(iter(options))):
            map_ordered(pool, tasks.square, numbers, **options)
        assert numbers.pulled == 0

    def test_wrong_arguments_are_refused_at_the_call(self, pool: PoolExecutor) -> None:
        """With a word about what is expected."""
        untyped: Any = map_ordered
        with pytest.raises(TypeError, match="at least one iterable"):
            untyped(pool, tasks.square)
        with pytest.raises(TypeError, match="iterables"):
            untyped(pool, tasks.square, 5)
        with pytest.raises(TypeError, match="iterables"):
            map_unordered(pool, tasks.square, 5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="callable"):
            untyped(pool, None, [1])
        with pytest.raises(TypeError, match="no_such"):
            untyped(pool, tasks.square, [1], no_such=1)
        with pytest.raises(TypeError, match="an executor or a kind's name"):
            untyped(None, tasks.square, [1])
