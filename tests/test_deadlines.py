"""`DeadlineKeeper`, on a clock that the test owns."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from poolkit import PoolExecutor, TaskTimeoutError, _executor, make_executor
from poolkit._backend import Backend, Batch, Capabilities, Record, Running
from poolkit._bounds import Scope
from poolkit._deadlines import DeadlineKeeper
from poolkit._options import TaskOptions

from . import tasks

LONG = 20.0  # seconds that no test ever takes


class TestClock:
    """Time that stands still until the test moves it; for one sleeper."""

    __test__ = False

    def __init__(self, base: Callable[[], float] = lambda: 0.0) -> None:
        self._base = base
        self._offset = 1000.0
        self._asleep = threading.Event()
        self._condition: threading.Condition | None = None
        self.timeout: float | None = None

    def monotonic(self) -> float:
        return self._base() + self._offset

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        """Sleep until the time is changed, or somebody else notifies."""
        self._condition = condition
        self.timeout = timeout
        self._asleep.set()
        condition.wait()
        self._asleep.clear()

    def wait_asleep(self) -> None:
        """Wait until the sleeper has done all that there is to do at this time."""
        assert self._asleep.wait(LONG)
        assert self._condition is not None
        with self._condition:  # not before it really sleeps
            pass

    def advance(self, seconds: float) -> None:
        self.wait_asleep()
        assert self._condition is not None
        with self._condition:
            self._offset += seconds
            self._asleep.clear()
            self._condition.notify_all()


class Items(Batch):
    """A batch that only stands on the books."""

    def report(self, records: Sequence[Record]) -> None:
        raise NotImplementedError

    def take_back(self) -> bool:
        raise NotImplementedError

    def ask_to_stop(self) -> None:
        raise NotImplementedError

    def let_go(self) -> None:
        raise NotImplementedError

    @property
    def may_come_back(self) -> bool:
        return False

    @property
    def unstarted(self) -> int:
        return len(self.todo)


class FakeBackend(Backend):
    """A backend whose tasks run when the test says so."""

    name = "fake"
    max_workers = 99
    capabilities = Capabilities(deadlines="soft")

    def __init__(self, clock: TestClock, keeper: DeadlineKeeper) -> None:
        self.clock = clock
        self.keeper = keeper
        self.scope = Scope("fake", None, "block")
        self.at_work: list[Running] = []
        self.looks = 0
        self.stopped: list[tuple[Any, float]] = []
        self.a_stop = threading.Semaphore(0)

    def submit(self, name: str, limit: float | None, *, start: bool = True) -> Items:
        batch = Items(tasks.square, [(name,)], {}, TaskOptions(task_timeout=limit))
        self.scope.enter(batch)
        if limit is not None:
            self.keeper.watch(self, self.scope, limit)
        if start:
            self.start(batch)
        return batch

    def start(self, batch: Batch) -> None:
        self.at_work.append(Running(batch, 0, self.clock.monotonic()))

    def finish(self, batch: Any) -> None:
        self.at_work = [item for item in self.at_work if item[0] is not batch]
        self.scope.forget(batch)

    def running(self) -> list[Running]:
        self.looks += 1
        return list(self.at_work)

    def stop(self, batch: Batch, number: int, error: BaseException) -> bool:
        assert isinstance(error, TaskTimeoutError)
        self.stopped.append((batch.items[number][0], self.clock.monotonic()))
        self.finish(batch)
        self.a_stop.release()
        return True

    def wait_stopped(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.a_stop.acquire(timeout=LONG)

    def withdraw(self, batch: Batch) -> list[int]:
        raise NotImplementedError

    def dispatch(self, batch: Batch) -> None:
        raise NotImplementedError

    def statistics(self) -> Any:
        raise NotImplementedError

    def shutdown(self, wait: bool) -> None:
        raise NotImplementedError


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def keeper(clock: TestClock) -> DeadlineKeeper:
    return DeadlineKeeper(clock)


@pytest.fixture
def make_backend(clock: TestClock, keeper: DeadlineKeeper) -> Callable[[], FakeBackend]:
    return lambda: FakeBackend(clock, keeper)


@pytest.fixture
def backend(make_backend: Callable[[], FakeBackend]) -> FakeBackend:
    return make_backend()


def thread_of(keeper: DeadlineKeeper) -> threading.Thread:
    thread = keeper._thread
    assert thread is not None
    return thread


def assert_ends(thread: threading.Thread) -> None:
    thread.join(LONG)
    assert not thread.is_alive()


def test_nothing_runs_until_there_is_something_to_watch(keeper: DeadlineKeeper) -> None:
    assert keeper._thread is None


def test_a_late_task_is_stopped_at_its_limit(
    clock: TestClock, keeper: DeadlineKeeper, backend: FakeBackend
) -> None:
    backend.submit("late", 5.0)
    thread = thread_of(keeper)
    assert thread.daemon
    clock.advance(4.999)
    clock.wait_asleep()
    assert backend.stopped == []
    assert clock.timeout == pytest.approx(0.001)
    clock.advance(0.001)
    backend.wait_stopped()
    assert backend.stopped == [("late", 1005.0)]
    clock.advance(5.0)  # the next look finds that nothing is left
    assert_ends(thread)
    assert keeper._thread is None


def test_the_earliest_deadline_wins(
    clock: TestClock, keeper: DeadlineKeeper, backend: FakeBackend
) -> None:
    backend.submit("long", 100.0)
    clock.wait_asleep()
    assert clock.timeout == 100.0
    backend.submit("short", 3.0)
    backend.submit("middle", 10.0)
    clock.advance(3.0)
    backend.wait_stopped()
    clock.advance(6.0)
    clock.wait_asleep()
    assert [name for name, _ in backend.stopped] == ["short"]
    clock.advance(1.0)
    backend.wait_stopped()
    clock.advance(90.0)
    backend.wait_stopped()
    assert backend.stopped == [("short", 1003.0), ("middle", 1010.0), ("long", 1100.0)]


def test_several_are_late_at_once(clock: TestClock, backend: FakeBackend) -> None:
    for n in range(5):
        backend.submit(f"{n}", 2.0)
    clock.advance(2.0)
    backend.wait_stopped(5)
    assert sorted(name for name, _ in backend.stopped) == ["0", "1", "2", "3", "4"]


def test_the_limit_counts_from_the_start(clock: TestClock, backend: FakeBackend) -> None:
    batch = backend.submit("waits first", 5.0, start=False)
    clock.advance(4.0)
    clock.wait_asleep()
    backend.start(batch)
    clock.advance(4.0)
    clock.wait_asleep()
    assert backend.stopped == []
    assert clock.timeout == 1.0
    clock.advance(1.0)
    backend.wait_stopped()
    assert backend.stopped == [("waits first", 1009.0)]


def test_what_ends_in_time_is_left_alone(
    clock: TestClock, keeper: DeadlineKeeper, backend: FakeBackend
) -> None:
    batch = backend.submit("quick", 5.0)
    thread = thread_of(keeper)
    clock.advance(4.0)
    clock.wait_asleep()
    backend.finish(batch)
    clock.advance(1.0)
    assert_ends(thread)
    assert backend.stopped == []


def test_tasks_without_a_limit_are_left_alone(clock: TestClock, backend: FakeBackend) -> None:
    forever = backend.submit("no limit", None)
    backend.submit("late", 1.0)
    clock.advance(1.0)
    backend.wait_stopped()
    clock.advance(10_000.0)
    clock.wait_asleep()
    assert [name for name, _ in backend.stopped] == ["late"]
    backend.finish(forever)


def test_many_quick_tasks_cost_few_looks(
    clock: TestClock, keeper: DeadlineKeeper, backend: FakeBackend
) -> None:
    for n in range(1000):
        backend.finish(backend.submit(f"{n}", 5.0))
    clock.wait_asleep()
    clock.advance(5.0)
    assert_ends_or_sleeps(keeper)
    assert backend.looks <= 1


def assert_ends_or_sleeps(keeper: DeadlineKeeper) -> None:
    thread = keeper._thread
    if thread is not None:
        assert_ends(thread)


def test_pools_share_one_thread(
    clock: TestClock,
    keeper: DeadlineKeeper,
    make_backend: Callable[[], FakeBackend],
) -> None:
    backends = [make_backend() for _ in range(3)]
    found = set()
    for n, backend in enumerate(backends):
        backend.submit(f"{n}", 10.0 + n)
        found.add(thread_of(keeper))
    assert len(found) == 1
    for n, backend in enumerate(backends):
        clock.advance(10.0 if n == 0 else 1.0)
        backend.wait_stopped()
        assert backend.stopped == [(f"{n}", 1010.0 + n)]
        assert not any(later.stopped for later in backends[n + 1 :])
    clock.advance(20.0)
    assert_ends(found.pop())


def test_the_thread_ends_when_the_last_is_forgotten(
    clock: TestClock, keeper: DeadlineKeeper, make_backend: Callable[[], FakeBackend]
) -> None:
    one, other = make_backend(), make_backend()
    one.submit("one", 10.0)
    other.submit("other", 20.0)
    thread = thread_of(keeper)
    clock.wait_asleep()
    keeper.forget(one)
    keeper.forget(one)
    assert thread.is_alive()
    keeper.forget(other)
    assert_ends(thread)
    assert keeper._thread is None


def test_a_new_thread_starts_after_the_last_one_ended(
    clock: TestClock, keeper: DeadlineKeeper, backend: FakeBackend
) -> None:
    backend.submit("first", 1.0)
    first = thread_of(keeper)
    clock.advance(1.0)
    backend.wait_stopped()
    clock.advance(1.0)
    assert_ends(first)
    backend.submit("second", 1.0)
    second = thread_of(keeper)
    assert second is not first
    clock.advance(1.0)
    backend.wait_stopped()
    assert [name for name, _ in backend.stopped] == ["first", "second"]
    keeper.forget(backend)
    assert_ends(second)


def test_a_stop_that_fails_or_hangs_stops_no_other(
    clock: TestClock,
    keeper: DeadlineKeeper,
    make_backend: Callable[[], FakeBackend],
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing, hanging, good = make_backend(), make_backend(), make_backend()
    let_go = threading.Event()
    failed, hung = threading.Event(), threading.Event()
    stopper: list[threading.Thread] = []

    def fail(batch: Batch, number: int, error: BaseException) -> bool:
        stopper.append(threading.current_thread())
        failing.finish(batch)
        failed.set()
        raise SystemExit(3)

    def hang(batch: Batch, number: int, error: BaseException) -> bool:
        hanging.finish(batch)
        hung.set()
        return let_go.wait()

    failing.stop = fail  # type: ignore[method-assign]
    hanging.stop = hang  # type: ignore[method-assign]
    for backend in (failing, hanging, good):
        backend.submit("late", 1.0)
    clock.advance(1.0)
    good.wait_stopped()
    assert failed.wait(LONG)
    assert hung.wait(LONG)
    stopper[0].join(LONG)
    assert "stopping square, which is past its task_timeout, failed" in caplog.text
    let_go.set()
    for backend in (failing, hanging, good):
        keeper.forget(backend)


def test_a_stop_without_a_thread_to_spare(
    clock: TestClock, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "poolkit-late-task":
            raise RuntimeError("can't start new thread")
        start(thread)

    backend.submit("late", 1.0)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    clock.advance(1.0)
    backend.wait_stopped()


# -- together with real pools ---------------------------------------------------------------


def test_real_pools_share_a_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = TestClock(time.monotonic)
    clock._offset = 0.0
    keeper = DeadlineKeeper(clock)
    monkeypatch.setattr(_executor, "KEEPER", keeper)
    let_go = threading.Event()
    pools: list[PoolExecutor] = [
        make_executor("thread", 1, task_timeout=hours * 3600) for hours in (1, 2, 3)
    ]
    futures = [pool.submit(let_go.wait) for pool in pools]
    keepers = [t for t in threading.enumerate() if t.name == "poolkit-deadlines"]
    assert thread_of(keeper) in keepers
    for n, future in enumerate(futures):
        assert not future.done()
        clock.advance(3601)
        error = future.exception(LONG)
        assert isinstance(error, TaskTimeoutError)
        assert error.limit_s == (n + 1) * 3600
        # A second later than the last, the pool goes on.
        assert pools[n].with_options(task_timeout=None).submit(tasks.square, 3).result() == 9
    thread = thread_of(keeper)
    for pool in pools:
        pool.shutdown()
    assert_ends(thread)
    let_go.set()


def test_a_pool_that_stands_still_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = TestClock(time.monotonic)
    monkeypatch.setattr(_executor, "KEEPER", DeadlineKeeper(clock))
    go = threading.Event()
    with make_executor("thread", 1) as pool:
        for _ in range(3):
            pool.submit(go.wait)
        while pool.statistics().blocked != 1:
            pass
        for _ in range(5):
            clock.advance(6)
        clock.wait_asleep()
        go.set()
    told = [record for record in caplog.records if "stand still" in record.getMessage()]
    assert len(told) == 1
