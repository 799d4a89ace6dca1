"""`TaskFuture`: made by hand and by pools, and everything that may happen to it at once."""

import asyncio
import concurrent.futures
import itertools
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

import pytest

import poolkit
from poolkit import TaskFuture, _future, make_executor

from . import tasks

LONG = 20.0  # seconds that no test ever takes


class Control:
    """A pool, as far as a future knows it: one task that is cancelled or settled by the test."""

    hosted = False

    def __init__(self) -> None:
        self.todo = [0]
        self.is_at_work = False
        self.future: TaskFuture[Any] = TaskFuture(self)

    def claim(self) -> bool:
        try:
            self.todo.pop()
        except IndexError:
            return False
        return True

    def cancel(self) -> bool:
        if not self.claim():
            return False
        self.future._settle_cancelled()
        return True

    def is_running(self) -> bool:
        return self.is_at_work

    def abort(self) -> Any:
        raise NotImplementedError

    def run_here(self) -> None:
        """Nothing can be run in this pool."""

    @property
    def backend(self) -> object:
        return self


def bound() -> TaskFuture[Any]:
    """Return a future that belongs to a pool."""
    return Control().future


def by_hand() -> TaskFuture[Any]:
    """Return a future that belongs to no pool, as tests and custom executors make them."""
    return TaskFuture()


makers = pytest.mark.parametrize("make", [bound, by_hand])
Make = Callable[[], TaskFuture[Any]]


def has_condition(future: TaskFuture[Any]) -> bool:
    return "_gate" in vars(future)


# -- what is relied on ----------------------------------------------------------------------


def test_the_private_names_relied_on() -> None:
    """If this fails, read `_future` again before anything else: its shortcuts may be unsound."""
    assert set(vars(Future())) == {
        "_condition",
        "_state",
        "_result",
        "_exception",
        "_waiters",
        "_done_callbacks",
    }
    assert Future()._state == "PENDING"
    assert isinstance(Future()._condition, threading.Condition)
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert has_gil == _future.LAZY


@pytest.mark.skipif(not _future.LAZY, reason="this Python has no global lock")
def test_the_condition_is_made_when_somebody_has_to_wait() -> None:
    future = bound()
    assert not future.done()
    assert not future.running()
    assert not future.cancelled()
    assert not has_condition(future)
    with pytest.raises(TimeoutError):
        future.result(timeout=0)
    assert has_condition(future)
    condition = future._condition
    assert isinstance(condition, threading.Condition)
    assert future._condition is condition

    future = bound()
    future.set_result(1)
    assert future.result() == 1
    assert not isinstance(vars(future)["_gate"], threading.Condition)
    assert future._condition is future._condition


# -- states ---------------------------------------------------------------------------------


@makers
def test_a_result(make: Make) -> None:
    future = make()
    assert isinstance(future, Future)
    assert not future.done()
    future.set_result("value")
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert not future.cancel()
    assert future.result() == future.result(0) == "value"
    assert future.exception() is None


@makers
def test_an_exception(make: Make) -> None:
    future, error = make(), KeyError("k")
    future.set_exception(error)
    assert future.done()
    assert not future.cancelled()
    assert not future.cancel()
    assert future.exception() is error
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            future.result()
        assert caught.value is error


@makers
def test_cancelling(make: Make) -> None:
    future = make()
    assert future.cancel()
    assert future.cancelled()
    assert future.done()
    assert not future.running()
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result()
    with pytest.raises(CancelledError):
        future.exception()


def test_running_by_hand() -> None:
    future = by_hand()
    assert future.set_running_or_notify_cancel()
    assert future.running()
    assert not future.done()
    assert not future.cancel()
    with pytest.raises(TimeoutError):
        future.result(timeout=0)
    future.set_result(3)
    assert not future.running()
    assert future.result() == 3


def test_running_in_a_pool() -> None:
    control = Control()
    assert control.claim()
    control.is_at_work = True
    assert control.future.running()
    assert not control.future.cancel()
    control.future.set_result(1)
    assert not control.future.running()


def test_cancelled_by_hand_before_it_starts() -> None:
    future = by_hand()
    assert future.cancel()
    assert not future.set_running_or_notify_cancel()
    assert concurrent.futures.wait([future], timeout=LONG).done == {future}


@makers
@pytest.mark.parametrize("first", ["set_result", "set_exception", "cancel"])
@pytest.mark.parametrize("second", ["set_result", "set_exception"])
@pytest.mark.parametrize("touched", [False, True])
def test_settling_twice(make: Make, first: str, second: str, touched: bool) -> None:
    future = make()
    if touched:
        _ = future._condition
    error = OSError("first")
    settle: dict[str, Callable[[], object]] = {
        "set_result": lambda: future.set_result("first"),
        "set_exception": lambda: future.set_exception(error),
        "cancel": future.cancel,
    }
    settle[first]()
    with pytest.raises(InvalidStateError):
        if second == "set_result":
            future.set_result("second")
        else:
            future.set_exception(ValueError("second"))
    if first == "set_result":
        assert future.result() == "first"
    elif first == "set_exception":
        assert future.exception() is error
    else:
        assert future.cancelled()


@makers
def test_exceptions_of_every_kind(make: Make) -> None:
    for error in (SystemExit(1), KeyboardInterrupt(), StopIteration(2), GeneratorExit()):
        future = make()
        future.set_exception(error)
        assert future.exception() is error
        with pytest.raises(type(error)):
            future.result()


@makers
def test_repr(make: Make) -> None:
    future = make()
    assert repr(future).startswith("<TaskFuture at 0x")
    assert "state=pending" in repr(future)
    future.set_result(3)
    assert "state=finished returned int" in repr(future)
    future = make()
    future.set_exception(KeyError(1))
    assert "state=finished raised KeyError" in repr(future)
    future.exception()
    future = make()
    future.cancel()
    assert "state=cancelled" in repr(future)


# -- callbacks ------------------------------------------------------------------------------


@makers
def test_callbacks_run_in_order_and_once(make: Make) -> None:
    future, calls = make(), list[tuple[int, object]]()
    for n in range(3):
        future.add_done_callback(lambda f, n=n: calls.append((n, f)))  # type: ignore[misc]
    assert calls == []
    future.set_result(1)
    assert calls == [(0, future), (1, future), (2, future)]
    future.add_done_callback(lambda f: calls.append((3, f)))
    assert calls[3:] == [(3, future)]


@makers
def test_callbacks_of_a_cancelled_future(make: Make) -> None:
    future, calls = make(), list[bool]()
    future.add_done_callback(lambda f: calls.append(f.cancelled()))
    future.cancel()
    future.add_done_callback(lambda f: calls.append(f.cancelled()))
    assert calls == [True, True]


@makers
@pytest.mark.parametrize("error", [ValueError("v"), SystemExit(1), KeyboardInterrupt()])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_callbacks_raise_is_logged(
    make: Make, caplog: pytest.LogCaptureFixture, error: BaseException, when: str
) -> None:
    def fail(_future: object) -> None:
        raise error

    future, calls = make(), list[object]()
    if when == "before":
        future.add_done_callback(fail)
        future.add_done_callback(calls.append)
        future.set_result(1)
    else:
        future.set_result(1)
        future.add_done_callback(fail)
        future.add_done_callback(calls.append)
    assert calls == [future]
    (record,) = [record for record in caplog.records if record.name == "poolkit"]
    assert record.levelno == logging.ERROR
    assert "exception calling callback" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@makers
def test_callbacks_hold_no_lock(make: Make) -> None:
    """Another thread can use the future while a callback runs, and so can the callback."""
    future, seen = make(), list[object]()

    def use(f: Future[Any]) -> None:
        f.add_done_callback(lambda _: seen.append("nested"))
        other = threading.Thread(target=lambda: seen.append(repr(future) and future.result()))
        other.start()
        other.join(LONG)

    future.add_done_callback(use)
    future.set_result(5)
    assert sorted(map(str, seen)) == ["5", "nested"]


# -- the standard library's functions -------------------------------------------------------


@makers
def test_wait(make: Make) -> None:
    early, late, failed, cancelled = make(), make(), make(), make()
    early.set_result(1)
    failed.set_exception(KeyError())
    cancelled.cancel()
    everything = [early, late, failed, cancelled]
    done, not_done = concurrent.futures.wait(everything, timeout=0)
    assert done == {early, failed, cancelled} or done == {early, failed}
    assert late in not_done
    first = poolkit.wait([early, late], return_when=poolkit.FIRST_COMPLETED)
    assert (first.done, first.not_done) == ({early}, {late})
    error = poolkit.wait([failed, late], return_when=poolkit.FIRST_EXCEPTION)
    assert (error.done, error.not_done) == ({failed}, {late})
    thread = threading.Thread(target=late.set_result, args=(2,))
    thread.start()
    assert poolkit.wait([early, late], timeout=LONG).done == {early, late}
    thread.join()
    failed.exception()


@makers
def test_as_completed(make: Make) -> None:
    futures = [make() for _ in range(4)]
    for n, future in enumerate(futures[:3]):
        future.set_result(n)
    iterator = poolkit.as_completed([*futures, *futures], timeout=LONG)
    assert {next(iterator) for _ in range(3)} == set(futures[:3])
    futures[3].set_result(3)
    assert list(iterator) == futures[3:]
    with pytest.raises(TimeoutError):
        list(poolkit.as_completed([make()], timeout=0))


@makers
def test_waiting_together_with_standard_futures(make: Make) -> None:
    ours, theirs = make(), Future[int]()
    threads = [
        threading.Thread(target=ours.set_result, args=(1,)),
        threading.Thread(target=theirs.set_result, args=(2,)),
    ]
    for thread in threads:
        thread.start()
    assert {f.result() for f in poolkit.as_completed([ours, theirs], timeout=LONG)} == {1, 2}
    for thread in threads:
        thread.join()


@makers
@pytest.mark.parametrize("early", [True, False])
def test_asyncio(make: Make, early: bool) -> None:
    async def main() -> None:
        value, error, cancelled = make(), make(), make()

        def settle() -> None:
            value.set_result(1)
            error.set_exception(KeyError("k"))
            cancelled.cancel()

        if early:
            settle()
        wrapped = [asyncio.wrap_future(future) for future in (value, error, cancelled)]
        thread = threading.Thread(target=(lambda: None) if early else settle)
        thread.start()
        results = await asyncio.gather(*wrapped, return_exceptions=True)
        thread.join()
        assert results[0] == 1
        assert isinstance(results[1], KeyError)
        assert isinstance(results[2], asyncio.CancelledError)

    asyncio.run(main())


@makers
def test_asyncio_cancels(make: Make) -> None:
    async def main() -> None:
        future = make()
        wrapped = asyncio.wrap_future(future)
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        await asyncio.sleep(0)  # one turn of the loop, which passes it on
        assert future.cancelled()

    asyncio.run(main())


# -- races ----------------------------------------------------------------------------------

ROUNDS = 300


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Let threads be interrupted at nearly every instruction."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def race(rounds: int, *racers: Callable[[int], object]) -> list[list[Any]]:
    """Call all `racers` at once, `rounds` times; return what they returned, round by round."""
    results: list[list[Any]] = [[None] * len(racers) for _ in range(rounds)]
    barrier = threading.Barrier(len(racers))

    def run(place: int, racer: Callable[[int], object]) -> None:
        for number in range(rounds):
            barrier.wait(LONG)
            try:
                results[number][place] = racer(number)
            except BaseException as error:
                results[number][place] = error

    threads = [
        threading.Thread(target=run, args=(place, racer), daemon=True)
        for place, racer in enumerate(racers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive(), "a racer hangs"
    return results


LOOKERS: dict[str, Callable[[TaskFuture[Any]], Any]] = {
    "result": lambda future: future.result(LONG),
    "untimed result": lambda future: future.result(),
    "wait": lambda future: len(concurrent.futures.wait([future], LONG).done) == 1 and "value",
    "as_completed": lambda future: next(
        f.result() for f in concurrent.futures.as_completed([future], LONG)
    ),
    "condition": lambda future: bool(future._condition) and future.result(LONG),
    "repr": lambda future: "<TaskFuture" in repr(future) and "value",
}


@pytest.mark.usefixtures("eager_switches")
@makers
@pytest.mark.parametrize(
    ("one", "other"), list(itertools.combinations_with_replacement(LOOKERS, 2))
)
def test_two_look_first_while_a_third_settles(make: Make, one: str, other: str) -> None:
    futures = [make() for _ in range(ROUNDS)]
    results = race(
        ROUNDS,
        lambda n: LOOKERS[one](futures[n]),
        lambda n: LOOKERS[other](futures[n]),
        lambda n: futures[n].set_result("value"),
    )
    assert results == [["value", "value", None]] * ROUNDS


@pytest.mark.usefixtures("eager_switches")
@makers
def test_callbacks_added_while_it_settles_run_once(make: Make) -> None:
    futures = [make() for _ in range(ROUNDS)]
    calls: list[list[str]] = [[] for _ in range(ROUNDS)]
    race(
        ROUNDS,
        lambda n: futures[n].add_done_callback(lambda _: calls[n].append("one")),
        lambda n: futures[n].add_done_callback(lambda _: calls[n].append("two")),
        lambda n: futures[n].set_result("value"),
    )
    assert [sorted(names) for names in calls] == [["one", "two"]] * ROUNDS


@pytest.mark.usefixtures("eager_switches")
@makers
def test_waiting_for_many_that_settle_meanwhile(make: Make) -> None:
    groups = [[make() for _ in range(8)] for _ in range(60)]

    def settle(part: int) -> Callable[[int], None]:
        def settle_part(n: int) -> None:
            for future in groups[n][part::2]:
                future.set_result(n)

        return settle_part

    results = race(
        len(groups),
        lambda n: len(concurrent.futures.wait(groups[n], LONG).done),
        lambda n: len(list(concurrent.futures.as_completed(groups[n], LONG))),
        settle(0),
        settle(1),
    )
    assert [result[:2] for result in results] == [[8, 8]] * len(groups)


@pytest.mark.usefixtures("eager_switches")
def test_of_two_that_settle_by_hand_one_wins() -> None:
    futures = [by_hand() for _ in range(ROUNDS)]
    results = race(
        ROUNDS,
        lambda n: futures[n].set_result("a"),
        lambda n: futures[n].set_result("b"),
        lambda n: futures[n].result(LONG),
    )
    for a, b, value in results:
        loser = b if value == "a" else a
        winner = a if value == "a" else b
        assert winner is None
        assert isinstance(loser, InvalidStateError)


@pytest.mark.usefixtures("eager_switches")
def test_of_start_and_cancel_one_wins() -> None:
    controls = [Control() for _ in range(ROUNDS)]

    def start(n: int) -> bool:
        if not controls[n].claim():
            return False
        controls[n].future.set_result("value")
        return True

    results = race(ROUNDS, start, lambda n: controls[n].future.cancel())
    for control, (started, cancelled) in zip(controls, results, strict=True):
        assert started is not cancelled
        assert control.future.done()
        assert control.future.cancelled() is cancelled


@pytest.mark.usefixtures("eager_switches")
def test_of_start_and_cancel_one_wins_in_a_pool() -> None:
    ran: list[int] = []
    with make_executor("thread", 2) as pool:
        futures: list[TaskFuture[None]] = []
        slots = threading.Semaphore(0)

        def submit(n: int) -> None:
            futures.append(pool.submit(ran.append, n))
            slots.release()

        def cancel(n: int) -> bool:
            assert slots.acquire(timeout=LONG)
            return futures[n].cancel()

        results = race(ROUNDS, submit, cancel)
        done = concurrent.futures.wait(futures, LONG).done
        assert len(done) == ROUNDS
    for n, (future, (_, cancelled)) in enumerate(zip(futures, results, strict=True)):
        assert future.cancelled() is cancelled
        assert ran.count(n) == (0 if cancelled else 1)


def test_both_who_cancel_are_told_so() -> None:
    with make_executor("thread", 1) as pool:
        release, taken_back, go_on = (threading.Event() for _ in range(3))
        pool.submit(release.wait)
        future = pool.submit(tasks.square, 3)
        backend: Any = pool._link.backend
        withdraw = backend.withdraw

        def slow_withdraw(batch: Any) -> Any:
            numbers = withdraw(batch)
            if numbers:
                taken_back.set()
                go_on.wait(LONG)
            return numbers

        backend.withdraw = slow_withdraw
        answers: list[bool] = []
        first = threading.Thread(target=lambda: answers.append(future.cancel()))
        first.start()
        assert taken_back.wait(LONG)
        second = threading.Thread(target=lambda: answers.append(future.cancel()))
        second.start()
        second.join(1)  # it may have an answer now, or wait for the first
        go_on.set()
        first.join()
        second.join()
        release.set()
    assert future.cancelled()
    assert answers == [True, True]
