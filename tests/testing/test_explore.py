"""`explore`: all orders where they are few, and the smallest that fails."""

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import Phase, find, settings

import poolkit
from poolkit import PoolExecutor, make_executor, map_unordered
from poolkit.testing import (
    Exploration,
    ManualExecutor,
    PoolLeakError,
    Schedule,
    SimulatedExecutor,
    WouldBlockError,
    checkpoint,
    explore,
    no_pool_leaks,
    schedules,
    sleep,
)


class Account:
    """Loses money, between two lines or at a checkpoint."""

    def __init__(self) -> None:
        self.balance = 0

    def pay_in(self, amount: int) -> None:
        balance = self.balance
        self.balance = balance + amount

    def pay_in_at_a_checkpoint(self, amount: int) -> None:
        balance = self.balance
        checkpoint()
        self.balance = balance + amount


def pay(method: Callable[[Account, int], None], count: int = 3) -> Callable[[PoolExecutor], None]:
    def test(pool: PoolExecutor) -> None:
        account = Account()
        poolkit.wait([pool.submit(method, account, 1) for _ in range(count)])
        assert account.balance == count

    return test


def replay_of(error: BaseException) -> str:
    found = re.search(r"replay='(.*?)'", error.__notes__[-1])
    assert found
    return found[1]


def test_all_orders_of_four_tasks() -> None:
    orders: set[tuple[int, ...]] = set()

    def test(pool: PoolExecutor) -> None:
        done: list[int] = []
        for number in range(4):
            pool.submit(done.append, number)
        pool.shutdown()
        orders.add(tuple(done))

    assert explore(test) == Exploration(24, complete=True)
    assert len(orders) == 24


@pytest.mark.parametrize("last", range(4))
def test_a_bug_in_a_single_order_is_found(last: int) -> None:
    def test(pool: PoolExecutor) -> None:
        done: list[int] = []
        for number in range(4):
            pool.submit(done.append, number)
        pool.shutdown()
        assert done != [3, 1, last, 2 - last if last in (0, 2) else 0]

    if last in (0, 2):
        with pytest.raises(AssertionError) as caught:
            explore(test)
        with pytest.raises(AssertionError):
            explore(test, replay=replay_of(caught.value))
    else:
        assert explore(test).complete


def test_many_orders_are_sampled() -> None:
    def test(pool: PoolExecutor) -> None:
        for _ in range(10):
            pool.submit(checkpoint)

    assert explore(test, schedules=60) == Exploration(60, complete=False)


def test_a_lost_update_is_found_and_the_smallest_order_told() -> None:
    explore(pay(Account.pay_in))  # no switch point, no bug to be seen
    for method, preempt in ((Account.pay_in_at_a_checkpoint, None), (Account.pay_in, "lines")):
        test = pay(method, 5)
        options: Any = {"preempt": preempt}
        with pytest.raises(AssertionError) as caught:
            explore(test, **options)
        # One change is enough: from the middle of one task to another.
        assert len(replay_of(caught.value).split()) == 1
        assert "begins" in caught.value.__notes__[-1]
        assert "goes on at" in caught.value.__notes__[-1]
        with pytest.raises(AssertionError):
            explore(test, replay=replay_of(caught.value), **options)
        if preempt is None:  # else, explore has switched in this thread, too
            with pytest.raises(AssertionError):
                with SimulatedExecutor(replay_of(caught.value)) as pool:
                    test(pool)


def test_the_mended_account_stands_every_order() -> None:
    def test(pool: PoolExecutor) -> None:
        account, lock = Account(), threading.Lock()

        def pay_in() -> None:
            with lock:
                account.pay_in_at_a_checkpoint(1)

        poolkit.wait([pool.submit(pay_in) for _ in range(3)])
        assert account.balance == 3

    assert explore(test, schedules=5000).complete
    explore(test, schedules=200, preempt="lines")


def test_lines_of_the_tests_own_thread() -> None:
    def test(pool: PoolExecutor) -> None:
        account = Account()
        future = pool.submit(account.pay_in, 1)
        account.pay_in(1)
        future.result()
        assert account.balance == 2

    assert explore(test).count > 0
    with pytest.raises(AssertionError) as caught:
        explore(test, preempt="lines")
    with pytest.raises(AssertionError):
        explore(test, preempt="lines", replay=replay_of(caught.value))


def test_leaks_in_a_simulation() -> None:
    def tidy(pool: PoolExecutor) -> None:
        with no_pool_leaks():
            assert pool.submit(abs, -1).result() == 1

    explore(tidy)

    def untidy() -> None:
        make_executor("thread").submit(abs, 1).result()

    with pytest.raises(PoolLeakError, match=r"open executor \(simulated executor"):
        with no_pool_leaks():
            explore(untidy)


def test_a_test_of_which_nothing_takes_part() -> None:
    def test(pool: PoolExecutor) -> None:
        with ThreadPoolExecutor(1) as other:
            assert other.submit(abs, -1).result() == 1

    with pytest.raises(RuntimeError, match="no task took part"):
        explore(test)


def test_a_replay_that_does_not_fit() -> None:
    test = pay(Account.pay_in)
    for replay in ("90:9", "0:7"):
        with pytest.raises(RuntimeError, match="does not fit"):
            explore(test, replay=replay)
    explore(test, replay="")


def test_a_failure_that_does_not_come_again_is_told_as_such() -> None:
    runs: list[None] = []

    def test(pool: PoolExecutor) -> None:
        pool.submit(abs, 1).result()
        runs.append(None)
        assert len(runs) > 1

    with pytest.raises(AssertionError) as caught:
        explore(test)
    assert "depends on something else" in caught.value.__notes__[-1]


def test_a_failure_in_any_order_is_told_as_such() -> None:
    def test(pool: PoolExecutor) -> None:
        pool.submit(abs, 1).result()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        explore(test)
    assert "order may have nothing to do with it" in caught.value.__notes__[-1]


def test_tests_that_can_not_be_explored() -> None:
    async def coroutine(pool: PoolExecutor) -> None: ...

    def generator(pool: PoolExecutor) -> Any:
        yield

    def greedy(first: Any, second: Any) -> None: ...

    async def returned() -> None: ...

    anything: Any = explore
    for test in (coroutine, generator, greedy):
        with pytest.raises(TypeError, match="test must"):
            anything(test)
    made: list[Any] = []

    def returns(pool: PoolExecutor) -> Any:
        made.append(returned())
        return made[-1]

    with pytest.raises(TypeError, match="which nobody runs"):
        anything(returns)
    for coroutine_object in made:
        coroutine_object.close()


def test_pools_that_the_code_makes_itself() -> None:
    kinds: set[str] = set()

    def test() -> None:
        with make_executor("process", 2, task_timeout=5) as pool:
            kinds.add(pool.kind)
            assert list(map_unordered(pool, str, [1, 2, 3])) == ["1", "2", "3"]
        assert set(map_unordered("thread", str, [1, 2])) == {"1", "2"}

    with pytest.raises(AssertionError):
        explore(test)
    assert kinds == {"simulated"}


def test_a_test_that_waits_for_ever_fails() -> None:
    def test(pool: PoolExecutor) -> None:
        first, second = threading.Lock(), threading.Lock()

        def take(one: Any, other: Any) -> None:
            with one:
                checkpoint()
                with other:
                    pass

        poolkit.wait([pool.submit(take, first, second), pool.submit(take, second, first)])

    with pytest.raises(WouldBlockError, match=r"take\("):
        explore(test)


def test_a_test_that_differs_from_run_to_run() -> None:
    runs: list[None] = []

    def test(pool: PoolExecutor) -> None:
        runs.append(None)
        for _ in range(2 + len(runs) % 2):
            pool.submit(checkpoint)

    with pytest.raises(RuntimeError, match="does not do the same each time"):
        explore(test)


def test_interrupts_end_the_exploration() -> None:
    def test(pool: PoolExecutor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(test)
    assert threading.Lock().__class__.__name__ != "TurnLock"


def test_not_inside_of_a_simulation() -> None:
    with SimulatedExecutor() as pool:
        with pytest.raises(RuntimeError, match="inside of a simulation"):
            explore(lambda other: None)
        pool.submit(checkpoint)


def test_bad_arguments() -> None:
    anything: Any = explore
    for options, error in (
        ({"schedules": 0}, ValueError),
        ({"max_workers": 0}, ValueError),
        ({"seed": "3:1"}, TypeError),
        ({"replay": 5.5}, TypeError),
        ({"replay": "x"}, ValueError),
        ({"preempt": "words"}, ValueError),
        ({"durations": 5}, TypeError),
    ):
        with pytest.raises(error):
            anything(lambda pool: None, **options)
    with pytest.raises(TypeError, match="test must be callable"):
        anything(3)


def test_hypothesis_shrinks_schedules() -> None:
    def fails(schedule: Schedule) -> bool:
        account = Account()
        with SimulatedExecutor(schedule) as pool:
            for _ in range(5):
                pool.submit(account.pay_in_at_a_checkpoint, 1)
        return account.balance < 5

    phases = [Phase.generate, Phase.shrink]
    quiet = settings(phases=phases, database=None, max_examples=500, deadline=None)
    smallest = find(schedules(), fails, settings=quiet)
    assert len(str(smallest).split()) == 1


def test_a_manual_executor_inside_of_a_simulation() -> None:
    def test(pool: PoolExecutor) -> None:
        with ManualExecutor(auto_run=True) as manual:

            def task() -> int:
                sleep(1)
                return manual.submit(abs, -3).result()

            assert pool.submit(task).result() == 3

    explore(test)
