"""The thread kind: its workers, its time limits, what it lets go of, and how it ends."""

import contextvars
import gc
import itertools
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from poolkit import (
    PoolBrokenError,
    PoolExecutor,
    TaskAbortedError,
    TaskFuture,
    TaskTimeoutError,
    make_executor,
    map_ordered,
    map_outcomes,
)
from poolkit.backends import thread as thread_module

from . import tasks

# Seconds after which a hung task is given up: no test's outcome depends on the figure, as hung
# tasks hang until the test lets them go, and the others need none.
SHORT = 0.3
# Seconds that no test ever takes; a test that fails for it would otherwise hang.
LONG = 20.0


class Hold:
    """A task that hangs until the test lets it go."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self._let_go = threading.Event()
        self.threads: list[threading.Thread] = []

    def __call__(self, value: Any = None) -> Any:
        self.threads.append(threading.current_thread())
        self.started.release()
        self._let_go.wait()
        if isinstance(value, BaseException):
            raise value
        return value

    def wait_started(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.started.acquire(timeout=LONG)

    def let_go(self) -> None:
        """Let all tasks go, and wait for the threads that were abandoned with them."""
        self._let_go.set()


@pytest.fixture
def make_hold() -> Iterator[Callable[[], Hold]]:
    holds: list[Hold] = []

    def make() -> Hold:
        holds.append(Hold())
        return holds[-1]

    yield make
    for hold in holds:
        hold.let_go()
        for thread in hold.threads:
            thread.join(LONG)
            assert not thread.is_alive()


@pytest.fixture
def hold(make_hold: Callable[[], Hold]) -> Hold:
    return make_hold()


class Watched:
    """A pool of threads whose idle workers the test can wait for."""

    def __init__(self, pool: PoolExecutor) -> None:
        self.pool = pool
        backend: Any = pool._link.backend
        self.backend = backend
        self._idle = idle = threading.Semaphore(0)  # no `self` below, which holds the pool
        next_batch = backend.next_batch

        def watched(worker: Any) -> bool:
            has_next: bool = next_batch(worker)
            if not has_next:
                idle.release()
            return has_next

        backend.next_batch = watched

    def wait_idle(self, count: int = 1) -> None:
        """Wait until so many workers more have gone to sleep."""
        for _ in range(count):
            assert self._idle.acquire(timeout=LONG)

    @property
    def threads(self) -> list[threading.Thread]:
        prefix = f"{self.backend._prefix}_"
        return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]


@contextmanager
def watched_pool(max_workers: int, **options: Any) -> Iterator[Watched]:
    with make_executor("thread", max_workers, **options) as pool:
        yield Watched(pool)


def thread_name(_x: object = None) -> str:
    return threading.current_thread().name


# -- workers --------------------------------------------------------------------------------


def test_workers_start_on_demand(hold: Hold) -> None:
    with watched_pool(3) as watched:
        assert watched.threads == []
        for count in (1, 2, 3):
            watched.pool.submit(hold)
            hold.wait_started()
            assert len(watched.threads) == count
        watched.pool.submit(hold)
        assert len(watched.threads) == 3
        hold.let_go()
    assert watched.threads == []


def test_an_idle_worker_is_used_again() -> None:
    with watched_pool(4) as watched:
        names = set()
        for _ in range(20):
            names.add(watched.pool.submit(thread_name).result())
            watched.wait_idle()
        assert len(names) == 1
        assert len(watched.threads) == 1


def test_the_warm_worker_works(make_hold: Callable[[], Hold]) -> None:
    """The last one that went to sleep is the first to be woken."""
    with watched_pool(3) as watched:
        holds = [make_hold() for _ in range(3)]
        for hold in holds:
            watched.pool.submit(hold)
            hold.wait_started()
        for hold in holds:
            hold.let_go()
            watched.wait_idle()
        for _ in range(5):
            name = watched.pool.submit(thread_name).result()
            watched.wait_idle()
            assert name == holds[-1].threads[0].name


def test_all_workers_work_at_once() -> None:
    barrier = threading.Barrier(4)
    with make_executor("thread", 4) as pool:
        for _ in range(3):
            futures = [pool.submit(barrier.wait, LONG) for _ in range(4)]
            assert sorted(future.result() for future in futures) == [0, 1, 2, 3]


def test_no_more_than_all_work_at_once() -> None:
    lock = threading.Lock()
    running, most = 0, 0

    def count(_x: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        for _ in range(100):
            pass
        with lock:
            running -= 1

    with make_executor("thread", 3) as pool:
        list(pool.map(count, range(500)))
        for future in [pool.submit(count, n) for n in range(200)]:
            future.result()
    assert most <= 3


def test_thread_names() -> None:
    with make_executor("thread", 1, thread_name_prefix="crawler") as pool:
        assert pool.submit(thread_name).result() == "crawler_0"
    with make_executor("thread", 1) as pool:
        assert pool.submit(thread_name).result().startswith("thread-pool-")
        (outcome,) = map_outcomes(pool, thread_name, [0])
        assert outcome.worker == outcome.value


def test_threads_are_daemons_and_end_with_the_pool() -> None:
    with make_executor("thread", 2) as pool:
        thread = pool.submit(threading.current_thread).result()
        assert thread.daemon
    assert not thread.is_alive()


def test_tasks_start_in_the_order_of_submission() -> None:
    order: list[int] = []
    with make_executor("thread", 1) as pool:
        for n in range(200):
            pool.submit(order.append, n)
    assert order == list(range(200))


# -- initializers ---------------------------------------------------------------------------


def test_the_initializer_runs_once_in_each_worker() -> None:
    ran_in: list[int] = []
    barrier = threading.Barrier(3)

    def set_up(*args: object) -> None:
        assert args == ("a", 2)
        ran_in.append(threading.get_ident())

    def task(_x: object) -> int:
        barrier.wait(LONG)
        return threading.get_ident()

    with make_executor("thread", 3, initializer=set_up, initargs=("a", 2)) as pool:
        used = [ident for _ in range(3) for ident in pool.map(task, range(3))]
    assert len(ran_in) == 3
    assert set(used) == set(ran_in)


def test_a_failing_initializer_breaks_the_pool(make_hold: Callable[[], Hold]) -> None:
    hold = make_hold()
    error = OSError("no licence")

    with make_executor("thread", 1, initializer=hold, initargs=(error,)) as pool:
        futures = [pool.submit(tasks.square, n) for n in range(5)]
        hold.let_go()
        for future in futures:
            failure = future.exception(LONG)
            assert type(failure) is PoolBrokenError
            assert "initializer failed" in str(failure)
            assert failure.__cause__ is error
        with pytest.raises(PoolBrokenError, match="initializer failed") as caught:
            pool.submit(tasks.square, 1)
        assert caught.value.__cause__ is error
        with pytest.raises(PoolBrokenError, match="initializer failed"):
            list(map_ordered(pool, tasks.square, range(5)))


def test_an_initializer_that_fails_in_a_later_worker(make_hold: Callable[[], Hold]) -> None:
    """What runs goes on, and what has not started fails."""
    hold = make_hold()
    calls = itertools.count()

    def set_up() -> None:
        if next(calls):
            raise OSError("only one licence")

    with make_executor("thread", 2, initializer=set_up) as pool:
        running = pool.submit(hold, "done")
        hold.wait_started()
        assert isinstance(pool.submit(tasks.square, 1).exception(LONG), PoolBrokenError)
        with pytest.raises(PoolBrokenError):
            pool.submit(tasks.square, 1)
        assert not running.done()
        hold.let_go()
        assert running.result(LONG) == "done"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_initializer_may_raise_anything(error: BaseException) -> None:
    def set_up() -> None:
        raise error

    with make_executor("thread", 1, initializer=set_up) as pool:
        failure = pool.submit(tasks.square, 1).exception(LONG)
        assert isinstance(failure, PoolBrokenError)
        assert failure.__cause__ is error


def test_a_pool_that_breaks_while_a_worker_is_about_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = thread_module._Worker.begin
    broken: list[bool] = []

    def break_and_begin(worker: Any, batch: Any) -> None:
        if batch is not None and not broken:
            broken.append(True)
            worker.backend._break("somebody else broke it")
        begin(worker, batch)

    monkeypatch.setattr(thread_module._Worker, "begin", break_and_begin)
    pool = make_executor("thread", 2)
    before = set(threading.enumerate())
    future = pool.submit(tasks.square, 3)
    for thread in set(threading.enumerate()) - before:
        thread.join(LONG)
    done = future.done()
    future.cancel()
    pool.shutdown()
    assert done, "nobody was left who could have finished it"


def test_a_pool_that_breaks_while_a_worker_is_about_to_be_replaced(
    hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = thread_module._Worker.begin
    replacements: list[threading.Thread] = []
    begun = threading.Event()

    with make_executor("thread", 1) as pool:
        hung = pool.with_options(task_timeout=SHORT).submit(hold)
        hold.wait_started()

        def break_and_begin(worker: Any, batch: Any) -> None:
            worker.backend._break("somebody else broke it")
            begin(worker, batch)
            replacements.append(worker.thread)
            begun.set()

        monkeypatch.setattr(thread_module._Worker, "begin", break_and_begin)
        future = pool.submit(tasks.square, 3)
        assert isinstance(hung.exception(LONG), TaskTimeoutError)
        assert begun.wait(LONG)
        replacements[0].join(LONG)
        done = future.done()
        future.cancel()
    assert done, "nobody was left who could have finished it"
    assert isinstance(future.exception(), PoolBrokenError)


# -- context variables ----------------------------------------------------------------------

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def swap(value: str) -> str:
    """Return the variable's value, having set another."""
    before = variable.get()
    variable.set(value)
    return before


def in_new_context(fn: Callable[[], Any]) -> Any:
    return contextvars.Context().run(fn)


def test_context_is_copied_at_each_submit() -> None:
    def main() -> None:
        with make_executor("thread", 1) as pool:
            seen = []
            for value in ("one", "two", "three"):
                variable.set(value)
                seen.append(pool.submit(swap, "changed"))
            variable.set("later")
            assert [future.result() for future in seen] == ["one", "two", "three"]
            assert variable.get() == "later"

    in_new_context(main)


def test_context_of_the_first_submit_does_not_stay_with_the_worker() -> None:
    def submit(pool: PoolExecutor, value: str | None) -> str:
        def inner() -> str:
            if value is not None:
                variable.set(value)
            return pool.submit(variable.get).result()

        result: str = in_new_context(inner)
        return result

    with make_executor("thread", 1) as pool:
        assert submit(pool, "first") == "first"
        assert submit(pool, None) == "unset"


@pytest.mark.parametrize("chunksize", [1, 10])
def test_items_of_a_chunk_do_not_see_each_others_context(chunksize: int) -> None:
    def main() -> None:
        variable.set("outer")
        with make_executor("thread", 1) as pool:
            values = [f"{n}" for n in range(30)]
            assert list(map_ordered(pool, swap, values, chunksize=chunksize)) == ["outer"] * 30
            assert list(pool.map(swap, values, chunksize=chunksize)) == ["outer"] * 30
        assert variable.get() == "outer"

    in_new_context(main)


# -- time limits ----------------------------------------------------------------------------


def test_a_hung_task_fails_on_time(hold: Hold) -> None:
    with make_executor("thread", 1, task_timeout=SHORT) as pool:
        future = pool.submit(hold, "never seen")
        error = future.exception(LONG)
        assert type(error) is TaskTimeoutError
        assert isinstance(error, TimeoutError)
        assert error.limit_s == SHORT
        assert "'never seen'" in error.task
        assert "task_timeout of 0.3 s" in str(error)
        assert hold.threads[0].is_alive()
        assert not future.running()
        assert not future.cancel()
        assert pool.submit(tasks.square, 3).result() == 9


def test_capacity_is_kept(hold: Hold) -> None:
    barrier = threading.Barrier(4)
    with make_executor("thread", 4) as pool:
        limited = pool.with_options(task_timeout=SHORT)
        hung = [limited.submit(hold) for _ in range(3)]
        assert all(isinstance(future.exception(LONG), TaskTimeoutError) for future in hung)
        assert all(thread.is_alive() for thread in hold.threads)
        # Neither fewer than before,
        together = [pool.submit(barrier.wait, LONG) for _ in range(4)]
        assert sorted(future.result() for future in together) == [0, 1, 2, 3]
        # nor more.
        most = threading.Semaphore(4)
        free = [pool.submit(most.acquire, False) for _ in range(4)]
        assert all(future.result() for future in free)


def test_capacity_is_not_exceeded_when_the_hung_come_back(
    make_hold: Callable[[], Hold],
) -> None:
    hung, running = make_hold(), make_hold()
    with make_executor("thread", 2) as pool:
        limited = pool.with_options(task_timeout=SHORT)
        late = [limited.submit(hung) for _ in range(2)]
        assert all(isinstance(future.exception(LONG), TaskTimeoutError) for future in late)
        hung.let_go()
        for thread in hung.threads:
            thread.join(LONG)
        futures = [pool.submit(running) for _ in range(3)]
        running.wait_started(2)
        assert [future.running() for future in futures] == [True, True, False]
        running.let_go()


def test_the_rest_of_a_chunk_runs(hold: Hold) -> None:
    def task(n: int) -> int:
        if n == 2:
            hold(n)
        return n

    with make_executor("thread", 1, task_timeout=SHORT) as pool:
        outcomes = list(map_outcomes(pool, task, range(6), chunksize=6, ordered=True))
        assert [outcome.ok for outcome in outcomes] == [n != 2 for n in range(6)]
        assert [outcome.value for outcome in outcomes] == [0, 1, None, 3, 4, 5]
        assert isinstance(outcomes[2].error, TaskTimeoutError)
        assert outcomes[2].worker == hold.threads[0].name
        assert {outcomes[1].worker, outcomes[2].worker} == {hold.threads[0].name}
        assert outcomes[3].worker != hold.threads[0].name


def test_several_of_a_chunk_hang(hold: Hold) -> None:
    def task(n: int) -> int:
        return int(hold(n)) if n % 2 else n

    with make_executor("thread", 2, task_timeout=SHORT) as pool:
        outcomes = list(map_outcomes(pool, task, range(6), chunksize=3, ordered=True))
    assert [outcome.ok for outcome in outcomes] == [True, False] * 3


def test_an_ordered_map_raises_the_time_out_in_its_place(hold: Hold) -> None:
    def task(n: int) -> int:
        return int(hold(n)) if n == 3 else n

    with make_executor("thread", 2) as pool:
        results = map_ordered(pool, task, itertools.count(), task_timeout=SHORT)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(TaskTimeoutError):
            next(results)
        assert list(results) == []


def test_the_limit_counts_from_the_start(make_hold: Callable[[], Hold]) -> None:
    """Tasks that have waited longer than the limit are not late."""
    blocker, late = make_hold(), make_hold()
    with make_executor("thread", 1) as pool:
        limited = pool.with_options(task_timeout=SHORT)
        pool.submit(blocker)
        blocker.wait_started()
        waiting = [limited.submit(tasks.square, n) for n in range(3)]
        with make_executor("thread", 1, task_timeout=SHORT) as other:
            # Its limit is over no sooner than theirs would be, had they started.
            assert isinstance(other.submit(late).exception(LONG), TaskTimeoutError)
        assert not any(future.done() for future in waiting)
        blocker.let_go()
        assert [future.result(LONG) for future in waiting] == [0, 1, 4]


@pytest.mark.parametrize(
    ("value", "ending"), [("a", "returned"), (KeyError("k"), "raised KeyError")]
)
def test_what_comes_too_late_is_dropped_and_logged(
    hold: Hold, caplog: pytest.LogCaptureFixture, value: object, ending: str
) -> None:
    caplog.set_level(logging.INFO, logger="poolkit")
    with make_executor("thread", 1, task_timeout=SHORT) as pool:
        future = pool.submit(hold, value)
        error = future.exception(LONG)
        hold.let_go()
        hold.threads[0].join(LONG)
        assert future.exception() is error
    messages = [record.getMessage() for record in caplog.records if record.name == "poolkit"]
    (message,) = [text for text in messages if "too late: dropped" in text]
    assert ending in message
    assert repr(value) in message


def test_too_many_abandoned_threads_break_the_pool(make_hold: Callable[[], Hold]) -> None:
    hung, blocker = make_hold(), make_hold()
    with make_executor("thread", 1, max_abandoned=1) as pool:
        limited = pool.with_options(task_timeout=SHORT)
        late = [limited.submit(hung) for _ in range(2)]
        running = pool.submit(blocker, "ran")
        pending = pool.submit(tasks.square, 3)
        assert all(isinstance(future.exception(LONG), TaskTimeoutError) for future in late)
        with pytest.raises(PoolBrokenError, match="max_abandoned=1"):
            pending.result(LONG)
        with pytest.raises(PoolBrokenError, match="max_abandoned=1"):
            pool.submit(tasks.square, 3)
        blocker.let_go()
        # Whether it had been started by then is open.
        assert running.exception(LONG) is None or isinstance(running.exception(), PoolBrokenError)
        hung.let_go()


@pytest.mark.parametrize("verb", [map_ordered, map_outcomes])
def test_an_item_of_a_chunk_can_be_given_up(
    verb: Callable[..., Any], make_hold: Callable[[], Hold]
) -> None:
    # With `map_outcomes` each item's times are taken down, with the other they are not.
    hold = make_hold()

    def hold_at_five(number: int) -> int:
        return number if number != 5 else hold(number)

    found: list[Any] = []

    def consume(results: Iterator[Any]) -> None:
        try:
            found.extend(results)
        except TaskAbortedError as error:
            found.append(error)

    with make_executor("thread", 1) as pool:
        results = verb(pool, hold_at_five, iter(range(10)), chunksize=10)
        consumer = threading.Thread(target=consume, args=(results,))
        consumer.start()
        hold.wait_started()
        backend = pool._link.backend
        (running,) = backend.running()
        assert running.batch.items[running.number] == (5,)
        error = TaskAbortedError("hold_at_five(5)")
        assert not backend.stop(running.batch, running.number + 1, error)
        assert backend.stop(running.batch, running.number, error)
        assert not backend.stop(running.batch, running.number, error)
        assert backend.statistics().abandoned == 1
        consumer.join(LONG)
        assert not consumer.is_alive()
        if verb is map_outcomes:
            assert [outcome.index for outcome in found if not outcome.ok] == [5]
            assert all(outcome.value == outcome.index for outcome in found if outcome.ok)
        else:
            assert found == [0, 1, 2, 3, 4, error]
        assert pool.submit(abs, -1).result() == 1


def test_abandoned_threads_that_end_do_not_count(make_hold: Callable[[], Hold]) -> None:
    with make_executor("thread", 1, max_abandoned=1, task_timeout=SHORT) as pool:
        for _ in range(4):
            hold = make_hold()
            assert isinstance(pool.submit(hold).exception(LONG), TaskTimeoutError)
            hold.let_go()
            hold.threads[0].join(LONG)
        assert pool.submit(tasks.square, 3).result() == 9


def test_shutdown_does_not_wait_for_abandoned_threads(hold: Hold) -> None:
    with make_executor("thread", 2, task_timeout=SHORT) as pool:
        futures = [pool.submit(hold) for _ in range(3)]
    assert all(isinstance(future.exception(0), TaskTimeoutError) for future in futures)
    assert all(thread.is_alive() for thread in hold.threads)


def test_a_time_out_frees_the_place_under_the_bound(hold: Hold) -> None:
    with make_executor("thread", 1, task_timeout=SHORT, max_pending=1, when_full="raise") as pool:
        for _ in range(3):
            assert isinstance(pool.submit(hold).exception(LONG), TaskTimeoutError)
        assert pool.submit(tasks.square, 2).result() == 4


def test_a_callback_of_a_late_task_may_use_the_pool(hold: Hold) -> None:
    results: list[int] = []
    called = threading.Event()

    with make_executor("thread", 1) as pool:

        def use(_future: object) -> None:
            results.append(pool.submit(tasks.square, 5).result(LONG))
            called.set()

        future = pool.with_options(task_timeout=SHORT).submit(hold)
        future.add_done_callback(use)
        assert called.wait(LONG)
    assert results == [25]


# -- ends -----------------------------------------------------------------------------------


def test_a_dropped_executor_finishes_its_work(hold: Hold) -> None:
    pool = make_executor("thread", 2)
    running = [pool.submit(hold, n) for n in range(2)]
    hold.wait_started(2)
    pending = [pool.submit(tasks.square, n) for n in range(10)]
    workers = list(hold.threads)
    del pool
    gc.collect()
    assert not any(future.done() for future in [*running, *pending])
    hold.let_go()
    assert [future.result(LONG) for future in running] == [0, 1]
    assert [future.result(LONG) for future in pending] == [n * n for n in range(10)]
    for thread in workers:
        thread.join(LONG)
        assert not thread.is_alive()


def test_the_threads_of_a_dropped_executor_end() -> None:
    with_idle = Watched(make_executor("thread", 2))
    with_idle.pool.submit(tasks.square, 2).result()
    with_idle.wait_idle()
    workers = with_idle.threads
    assert len(workers) == 1
    del with_idle
    gc.collect()
    workers[0].join(LONG)
    assert not workers[0].is_alive()


def test_a_view_keeps_its_pool() -> None:
    view = make_executor("thread", 1).with_options(max_pending=5)
    gc.collect()
    assert view.submit(tasks.square, 2).result(LONG) == 4
    view._parent.shutdown()  # type: ignore[union-attr]


def test_a_results_iterator_keeps_its_pool() -> None:
    results = map_ordered(make_executor("thread", 1), tasks.square, range(1000), max_pending=10)
    gc.collect()
    assert list(results) == [n * n for n in range(1000)]


def run_script(script: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-c", script],
        capture_output=True,
        timeout=LONG,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def test_exit_finishes_what_is_pending() -> None:
    script = """\
import threading, poolkit
pool = poolkit.make_executor("thread", 1)
main_is_over = threading.Event()
threading._register_atexit(main_is_over.set)  # runs before those that were registered earlier
pool.submit(main_is_over.wait)
for n in range(5):
    pool.submit(print, n)
print("main")
"""
    assert run_script(script).split() == ["main", "0", "1", "2", "3", "4"]


def test_exit_does_not_wait_for_abandoned_threads() -> None:
    script = """\
import threading, poolkit
pool = poolkit.make_executor("thread", 2)
hung = pool.with_options(task_timeout=0.1).submit(threading.Event().wait)
print(type(hung.exception()).__name__)
pool.submit(print, "last")
"""
    assert run_script(script).split() == ["TaskTimeoutError", "last"]


@pytest.mark.xfail(
    sys.version_info[:2] == (3, 12),
    strict=True,
    reason="3.12 starts no thread any more once the main thread has ended, so that nobody can "
    "replace a worker that is given up then",
)
def test_exit_keeps_time_limits() -> None:
    """What hangs when the main program ends is given up on time, and what is behind it runs."""
    script = """\
import sys, threading, poolkit
pool = poolkit.make_executor("thread", 1, task_timeout=0.3)
hung = pool.submit(threading.Event().wait)
write = sys.stdout.write  # `print` writes the end of a line by itself, and threads get between
hung.add_done_callback(lambda future: write(f"{type(future.exception()).__name__}\\n"))
last = pool.submit(write, "last\\n")
"""
    assert sorted(run_script(script).split()) == ["TaskTimeoutError", "last"]


def test_exit_with_an_unfinished_iterator() -> None:
    script = """\
import itertools, poolkit
results = poolkit.map_ordered("thread", abs, itertools.count())
print(next(results), next(results))
"""
    assert run_script(script).split() == ["0", "1"]


# -- what is let go -------------------------------------------------------------------------


class Thing:
    """Something that a weak reference can be made to."""

    def __init__(self, other: object = None) -> None:
        self.other = other

    def method(self, *args: object, keyword: object = None) -> "Thing":
        return Thing()


class Failure(Exception):
    pass


@pytest.mark.usefixtures("no_gc")
def test_nothing_of_the_last_task_is_kept() -> None:
    with watched_pool(1) as watched:
        owner, argument, keyword = Thing(), Thing(), Thing()
        refs = [weakref.ref(x) for x in (owner, argument, keyword)]
        future = watched.pool.submit(owner.method, argument, keyword=keyword)
        ref = weakref.ref(future.result())
        watched.wait_idle()
        del owner, argument, keyword
        assert [ref() for ref in refs] == [None] * 3, "nor by the future"
        assert ref() is not None
        del future
        assert ref() is None


@pytest.mark.usefixtures("no_gc")
def test_nothing_of_the_last_failure_is_kept() -> None:
    with watched_pool(1) as watched:

        def fail(argument: Thing) -> None:
            local = Thing(argument)
            raise Failure(local.__class__)

        argument = Thing()
        ref = weakref.ref(argument)
        future = watched.pool.submit(fail, argument)
        error = future.exception()
        assert error is not None
        error_ref = weakref.ref(error)
        watched.wait_idle()
        del argument, error
        assert error_ref() is not None
        del future
        assert error_ref() is None
        assert ref() is None


@pytest.mark.usefixtures("no_gc")
def test_a_raised_failure_is_no_cycle() -> None:
    with watched_pool(1) as watched:

        def fail() -> None:
            raise Failure

        future = watched.pool.submit(fail)
        watched.wait_idle()
        refs = []
        for _ in range(2):
            try:
                future.result()
            except Failure as error:
                refs.append(weakref.ref(error))
        del future
        assert refs[0]() is None


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize("chunksize", [1, 5])
def test_nothing_of_a_map_is_kept(chunksize: int) -> None:
    with watched_pool(1) as watched:
        things = [Thing() for _ in range(5)]
        refs = [weakref.ref(thing) for thing in things]
        results = map_ordered(watched.pool, Thing, things, chunksize=chunksize)
        values = list(results)
        refs += [weakref.ref(value) for value in values]
        watched.pool.submit(tasks.square, 2).result()  # whatever came before is over
        del things, values, results
        assert [ref() for ref in refs] == [None] * 10


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize("ending", ["end", "close"])
def test_an_iterator_that_has_ended_lets_its_input_go(ending: str) -> None:
    with make_executor("thread", 1) as pool:
        things = [Thing() for _ in range(5)]
        refs = [weakref.ref(thing) for thing in things]
        results = map_ordered(pool, repr, things)
        if ending == "close":
            results.close()
        else:
            list(results)
        pool.submit(tasks.square, 2).result()
        del things
        assert [ref() for ref in refs] == [None] * 5


@pytest.mark.usefixtures("no_gc")
def test_a_result_that_was_taken_is_not_kept_while_waiting_for_the_next(hold: Hold) -> None:
    refs: list[weakref.ref[Thing]] = []

    def task(n: int) -> Thing | None:
        if n:
            hold()
            return None
        return Thing()

    alive: list[bool] = []

    def look() -> None:
        hold.wait_started()
        alive.append(refs[0]() is not None)
        hold.let_go()

    with make_executor("thread", 1) as pool:
        results = map_ordered(pool, task, range(2), chunksize=1, max_pending=1)
        first = next(results)
        assert first is not None
        refs.append(weakref.ref(first))
        del first
        thread = threading.Thread(target=look)
        thread.start()
        assert next(results) is None
        thread.join()
    assert alive == [False]


@pytest.mark.usefixtures("no_gc")
def test_a_cancelled_task_is_let_go_at_once(hold: Hold) -> None:
    with make_executor("thread", 1) as pool:
        pool.submit(hold)
        hold.wait_started()
        thing = Thing()
        refs = [weakref.ref(thing)]
        futures: list[TaskFuture[Any]] = [
            pool.submit(thing.method),
            pool.submit(tasks.keywords, thing),
            pool.submit(tasks.keywords, keyword=thing),
        ]
        del thing
        assert refs[0]() is not None
        assert all(future.cancel() for future in futures)
        assert refs[0]() is None
        hold.let_go()


@pytest.mark.usefixtures("no_gc")
def test_an_abandoned_task_is_let_go_when_it_returns(make_hold: Callable[[], Hold]) -> None:
    hold = make_hold()
    with make_executor("thread", 1) as pool:
        thing = Thing()
        ref = weakref.ref(thing)
        # So that the thread that keeps the limits has more to watch.
        with make_executor("thread", 1, task_timeout=3600) as other:
            blocker = make_hold()
            other.submit(blocker)
            blocker.wait_started()
            future = pool.with_options(task_timeout=SHORT).submit(hold, thing)
            assert isinstance(future.exception(LONG), TaskTimeoutError)
            del thing, future
            hold.let_go()
            hold.threads[0].join(LONG)
            for thread in threading.enumerate():
                if thread.name == "poolkit-late-task":
                    thread.join(LONG)
            # The keeper itself may be about to return from having started that thread.
            until = time.monotonic() + LONG
            while ref() is not None and time.monotonic() < until:
                pass
            kept = ref() is not None
            blocker.let_go()
    assert not kept


# -- fork -----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_free_of_the_pool_and_the_parents_goes_on() -> None:
    script = """\
import multiprocessing, sys, threading, warnings, poolkit
warnings.simplefilter("ignore")
go, started = threading.Event(), threading.Event()

def hold():
    started.set()
    go.wait()

def child():
    try:
        pool.submit(abs, -1)
    except poolkit.PoolShutdownError:
        sys.exit(5)

pool = poolkit.make_executor("thread", 1, task_timeout=600, max_pending=9)
futures = [pool.submit(hold), pool.submit(abs, -3)]
started.wait()
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
go.set()
print(process.exitcode, futures[1].result(), pool.submit(abs, -4).result())
"""
    assert run_script(script).split() == ["5", "3", "4"]
