"""`FaultPlan`: what is struck, what is spared, what is on record; on every kind."""

import concurrent.futures
import functools
import gc
import os
import pickle
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import poolkit
import poolkit.testing
from poolkit import (
    DeadlockError,
    PoolBrokenError,
    PoolExecutor,
    PoolShutdownError,
    RemoteTaskError,
    Retry,
    TaskGroup,
    TaskSerializationError,
    TaskTimeoutError,
    UnsupportedError,
    WorkerCrashedError,
    current_task,
    make_executor,
    map_batches,
    map_ordered,
    map_outcomes,
)
from poolkit.testing import (
    FaultCall,
    FaultPlan,
    InjectedFault,
    ManualExecutor,
    SimulatedExecutor,
    override_executors,
)

from .. import tasks
from ..tasks import GateKeeper, square

pytestmark = pytest.mark.timeout(60)

KINDS = ["inline", "thread", "process", "stdlib-thread", "stdlib-process"]

kinds = pytest.mark.parametrize("kind", KINDS)
threads_too = pytest.mark.parametrize("kind", ["thread", "stdlib-thread"])


def workers_of(kind: str, count: int = 2) -> Executor:
    """Make an executor to put a plan around; the caller shuts it down."""
    if kind == "stdlib-thread":
        return concurrent.futures.ThreadPoolExecutor(count)
    if kind == "stdlib-process":
        return concurrent.futures.ProcessPoolExecutor(count)
    return make_executor(kind, None if kind == "inline" else count)


def on_record(plan: FaultPlan) -> list[tuple[int, int, str]]:
    return [(one.number, one.attempt, one.what) for one in plan.injected]


def named(number: int) -> Any:
    """Return a predicate, for what can be told by arguments only."""
    return lambda call: call.args == (number,)


# -- each fault on each kind ----------------------------------------------------------------


@kinds
@pytest.mark.parametrize("chunksize", [1, 4])
def test_each_fault_by_task_number(kind: str, chunksize: int) -> None:
    plan = (
        FaultPlan()
        .fail(OSError("disk full"), task=3)
        .time_out(task=1)
        .crash(task=2)
        .delay(0.001, task=[0, 3])
        .unpicklable_result(task=4)
    )
    with workers_of(kind) as workers, plan.around(workers) as pool:
        outcomes = list(map_outcomes(pool, square, range(6), chunksize=chunksize, ordered=True))
    errors = [type(outcome.error) for outcome in outcomes]
    assert errors[:2] == [type(None), TaskTimeoutError]
    assert errors[2:] == [WorkerCrashedError, OSError, TaskSerializationError, type(None)]
    assert [outcome.args for outcome in outcomes] == [(n,) for n in range(6)]
    assert [outcomes[0].value, outcomes[5].value] == [0, 25]
    for number in range(1, 5):
        notes: list[str] = getattr(outcomes[number].error, "__notes__", [])
        assert any(f"square({number}) (item {number}, attempt 1" in note for note in notes)
    assert sorted(on_record(plan)) == [
        (0, 1, "delay"),
        (1, 1, "time_out"),
        (2, 1, "crash"),
        (3, 1, "delay"),
        (3, 1, "fail"),
        (4, 1, "unpicklable_result"),
    ]
    (failed,) = (one for one in plan.injected if one.what == "fail")
    assert (failed.fn, failed.args, dict(failed.kwargs)) == (square, (3,), {})


@kinds
def test_submit_with_keywords(kind: str) -> None:
    plan = FaultPlan().fail(ValueError, when=lambda call: call.kwargs == {"b": 2})
    with workers_of(kind) as workers, plan.around(workers) as pool:
        struck, spared = pool.submit(tasks.add, 1, b=2), pool.submit(tasks.add, 1, b=3)
        assert spared.result() == 4
        error = struck.exception()
        assert type(error) is ValueError
        assert "add(1, b=2)" in error.__notes__[0]
    assert on_record(plan) == [(0, 1, "fail")]


def test_a_crash_on_processes_is_real() -> None:
    plan = FaultPlan().crash(task=5)
    with plan.around("process", 1) as pool:
        before = pool.submit(tasks.worker_id).result()[0]
        outcomes = list(map_outcomes(pool, square, range(10), chunksize=10, ordered=True))
        after = pool.submit(tasks.worker_id).result()[0]
    error = outcomes[4].error
    assert isinstance(error, WorkerCrashedError)
    assert (error.pid, error.signal_name, error.task) == (before, "SIGKILL", "square(4)")
    assert before != after
    assert [outcome.index for outcome in outcomes if not outcome.ok] == [4]


@pytest.mark.parametrize("kind", ["inline", "thread"])
def test_a_crash_elsewhere_looks_the_same(kind: str) -> None:
    with FaultPlan().crash(task=0).around(kind) as pool:
        error = pool.submit(square, 3).exception()
        assert isinstance(error, WorkerCrashedError)
        assert (error.signal_name, error.task) == ("SIGKILL", "square(3)")


@pytest.mark.parametrize("kind", ["inline", "thread", "process", "stdlib-thread"])
def test_a_time_out_with_a_limit(kind: str) -> None:
    """Nothing but the pool's own means ends the call, where it has some; and nothing hangs."""
    with workers_of(kind, 1) as workers, FaultPlan().time_out(task=1).around(workers) as pool:
        limited = pool.with_options(task_timeout=1.0)
        outcomes = list(map_outcomes(limited, square, range(4), chunksize=4, ordered=True))
        assert [outcome.value for outcome in outcomes] == [0, None, 4, 9]
        error = outcomes[1].error
        assert isinstance(error, TaskTimeoutError)
        assert (error.limit_s, error.task) == (1.0, "square(1)")
        hung = outcomes[1].run_s
        assert hung < 1.0 if kind == "inline" else hung >= 1.0


@pytest.mark.parametrize("kind", ["thread", "process", "stdlib-thread"])
def test_what_is_behind_a_hung_task_is_struck_all_the_same(kind: str) -> None:
    plan = FaultPlan().time_out(task=1).fail(ValueError, task=3)
    with workers_of(kind, 1 if kind != "stdlib-thread" else 2) as workers:
        with plan.around(workers, task_timeout=1.0) as pool:
            outcomes = list(map_outcomes(pool, square, range(5), chunksize=5, ordered=True))
    errors = [type(outcome.error) for outcome in outcomes]
    assert errors == [type(None), TaskTimeoutError, type(None), ValueError, type(None)]


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_hung_task_can_be_aborted(kind: str) -> None:
    with FaultPlan().time_out(task=0).around(kind, 1) as pool:
        future = pool.with_options(task_timeout=40).submit(square, 1)
        while not future.running():
            threading.Event().wait(0.001)
        with concurrent.futures.ThreadPoolExecutor(1) as helper:
            # Not 40 s: a call that finds nobody to stop goes on until the limit ends it.
            assert helper.submit(future.abort).result(timeout=20) in ("killed", "abandoned")
        assert isinstance(future.exception(), poolkit.TaskAbortedError)
        assert pool.submit(square, 2).result() == 4


@kinds
def test_a_spoilt_result_is_of_a_call_that_was_made(kind: str, tmp_path: Any) -> None:
    plan = FaultPlan().unpicklable_result(task=0)
    with workers_of(kind) as workers, plan.around(workers) as pool:
        error = pool.submit(tasks.count_call, tmp_path, "call").exception()
        assert isinstance(error, TaskSerializationError)
        assert error.what == "the result 0"
        assert "FaultPlan" in error.reason
        assert pool.submit(tasks.count_call, tmp_path, "call").result() == 1


def test_an_error_that_can_not_travel_arrives_as_it_would() -> None:
    plan = FaultPlan().fail(tasks.LoadsBadlyError(1, 2), task=0)
    with plan.around("process", 1) as pool:
        assert isinstance(pool.submit(square, 1).exception(), RemoteTaskError)
    plan = FaultPlan().fail(tasks.LoadsBadlyError(1, 2), task=0)
    with plan.around("inline") as pool:
        assert isinstance(pool.submit(square, 1).exception(), tasks.LoadsBadlyError)


def test_each_task_has_an_error_of_its_own() -> None:
    template = OSError(28, "disk full")
    with FaultPlan().fail(template, rate=1).around("thread", 2) as pool:
        errors = [pool.submit(square, n).exception() for n in range(20)]
    assert len(set(map(id, errors))) == 20
    assert {(type(e), str(e), len(e.__notes__)) for e in errors if e} == {
        (OSError, "[Errno 28] disk full", 1)
    }
    assert template.__traceback__ is None


def test_a_delay_counts_under_the_time_limit() -> None:
    with FaultPlan().delay(600, task=0).around("thread", 1) as pool:
        future = pool.with_options(task_timeout=0.05).submit(square, 1)
        assert isinstance(future.exception(), TaskTimeoutError)
        assert pool.submit(square, 2).result() == 4


# -- whom ---------------------------------------------------------------------------------


def struck_by(rate: float, seed: int, kind: str = "inline", count: int = 200) -> set[int]:
    plan = FaultPlan(seed).fail(ValueError, rate=rate)
    with plan.around(kind) as pool:
        outcomes = list(map_outcomes(pool, square, range(count)))
    failed = {outcome.index for outcome in outcomes if not outcome.ok}
    assert failed == {one.number for one in plan.injected}
    return failed


def test_a_rate_strikes_the_same_tasks_in_each_run() -> None:
    first = struck_by(0.3, 7)
    assert 30 <= len(first) <= 90
    assert struck_by(0.3, 7) == struck_by(0.3, 7, "thread") == struck_by(0.3, 7, "process") == first
    assert struck_by(0.3, 8) != first
    assert struck_by(0, 7) == set()
    assert struck_by(1, 7) == set(range(200))


def test_lines_draw_independently() -> None:
    plan = FaultPlan().delay(0, rate=0.5).unpicklable_result(rate=0.5)
    with plan.around("inline") as pool:
        list(map_outcomes(pool, square, range(200)))
    by_what = {
        what: {one.number for one in plan.injected if one.what == what}
        for what in ("delay", "unpicklable_result")
    }
    assert by_what["delay"] != by_what["unpicklable_result"]


def test_numbers_go_on_from_verb_to_submit() -> None:
    plan = FaultPlan().fail(ValueError, task={4, 5, 6})
    with plan.around("thread", 2) as pool:
        assert [outcome.ok for outcome in map_outcomes(pool, square, range(3))] == [True] * 3
        assert pool.submit(square, 3).result() == 9
        assert isinstance(pool.submit(square, 4).exception(), ValueError)
        with pytest.raises(ValueError, match=r"total\(\[0, 1\]\)"):
            list(map_batches(pool, tasks.total, range(2), 2))  # one task
        assert isinstance(pool.with_options(retry=None).submit(square, 6).exception(), ValueError)
    assert [one.args for one in plan.injected] == [(4,), ([0, 1],), (6,)]


def test_a_plan_around_two_pools_counts_for_each() -> None:
    plan = FaultPlan().fail(ValueError, task=0)
    with plan.around("inline") as one, plan.around("inline") as other:
        assert isinstance(one.submit(square, 1).exception(), ValueError)
        assert isinstance(other.submit(square, 1).exception(), ValueError)
        assert one.submit(square, 2).result() == 4


def test_of_several_faults_the_first_line_counts() -> None:
    plan = FaultPlan().crash(task=0).fail(ValueError, task=[0, 1]).crash(task=1)
    with plan.around("inline") as pool:
        assert isinstance(pool.submit(square, 1).exception(), WorkerCrashedError)
        assert isinstance(pool.submit(square, 1).exception(), ValueError)
    assert on_record(plan) == [(0, 1, "crash"), (1, 1, "fail")]


def test_a_predicate_that_raises() -> None:
    def broken(call: FaultCall) -> bool:
        raise LookupError(call.number)

    with FaultPlan().crash(when=broken).around("thread", 1) as pool:
        with pytest.raises(LookupError):
            pool.submit(square, 1)
        with pytest.raises(LookupError):
            list(map_ordered(pool, square, [1]))


@pytest.mark.parametrize("kind", ["inline", "thread", "process", "stdlib-thread"])
@pytest.mark.parametrize(("attempts", "ok"), [(1, True), (2, True), (3, False), (None, False)])
def test_retries_get_past_a_fault(kind: str, attempts: int | None, ok: bool) -> None:
    plan = FaultPlan().crash(task=1, attempts=attempts)
    with workers_of(kind) as workers, plan.around(workers) as pool:
        patient = pool.with_options(retry=Retry(attempts=3, wait=0))
        outcomes = list(map_outcomes(patient, square, range(4), chunksize=4, ordered=True))
        assert [outcome.ok for outcome in outcomes] == [True, ok, True, True]
        assert outcomes[1].attempts == min(3, (attempts or 3) + 1)
    assert on_record(plan) == [(1, n + 1, "crash") for n in range(min(3, attempts or 3))]


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_a_later_attempt_can_be_struck_alone(kind: str) -> None:
    plan = FaultPlan().fail(OSError, when=lambda call: call.attempt < 4, attempts=2)
    with plan.around(kind, retry=Retry(attempts=4, wait=0)) as pool:
        assert pool.submit(attempt_here).result() == 3
    assert on_record(plan) == [(0, 1, "fail"), (0, 2, "fail")]
    plan = (
        FaultPlan().fail(OSError, task=0).crash(when=lambda call: call.attempt == 2, attempts=None)
    )
    with plan.around(kind, retry=Retry(attempts=4, wait=0)) as pool:
        assert pool.submit(attempt_here).result() == 3
    assert on_record(plan) == [(0, 1, "fail"), (0, 2, "crash")]


def attempt_here() -> int:
    return current_task().attempt


# -- shut down under the feet --------------------------------------------------------------


@kinds
def test_shut_down_under_the_feet(kind: str) -> None:
    plan = FaultPlan().shut_down(task=2)
    with workers_of(kind) as workers:
        with plan.around(workers) as pool:
            futures = [pool.submit(square, n) for n in range(2)]
            for _ in range(2):
                with pytest.raises(PoolShutdownError):
                    pool.submit(square, 2)
            assert [future.result() for future in futures] == [0, 1]
        assert workers.submit(square, 5).result() == 25
    assert on_record(plan) == [(2, 1, "shut_down")]


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_shut_down_in_the_middle_of_a_verb(kind: str) -> None:
    with FaultPlan().shut_down(task=5).around(kind) as pool:
        seen: list[int] = []
        with pytest.raises(PoolShutdownError):
            seen.extend(map_ordered(pool, square, range(10), chunksize=2))
        with pytest.raises(PoolShutdownError):
            pool.submit(square, 1)


def test_shut_down_can_cancel_what_is_pending(gate: GateKeeper) -> None:
    plan = FaultPlan().shut_down(task=2, cancel_futures=True).fail(ValueError, task=1)
    with plan.around("thread", 1) as pool:
        running = pool.submit(gate.gate.hold, "done")
        gate.wait_started()
        pending = pool.submit(square, 1)
        with pytest.raises(PoolShutdownError):
            pool.submit(square, 2)
        assert pending.cancelled()
        gate.open()
        assert running.result() == "done"
    assert on_record(plan) == [(2, 1, "shut_down")]


# -- whose workers ---------------------------------------------------------------------------


@kinds
def test_the_executor_is_left_open(kind: str) -> None:
    with workers_of(kind) as workers:
        for _ in range(2):
            with FaultPlan().fail(ValueError, task=0).around(workers) as pool:
                assert isinstance(pool.submit(square, 1).exception(), ValueError)
                assert workers.submit(square, 2).result() == 4
            with pytest.raises(PoolShutdownError):
                pool.submit(square, 1)
            assert workers.submit(square, 3).result() == 9


def test_a_pool_by_name_has_workers_of_its_own() -> None:
    before = threading.active_count()
    with FaultPlan().around("thread", 3, thread_name_prefix="faulty") as pool:
        assert (pool.kind, pool.max_workers) == ("thread", 3)
        assert pool.submit(threading.current_thread).result().name.startswith("faulty")
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_closing_the_workers_closes_the_pool(gate: GateKeeper) -> None:
    workers = make_executor("thread", 1)
    pool = FaultPlan().around(workers)
    future = pool.submit(gate.gate.hold, 7)
    gate.wait_started()
    workers.shutdown(wait=False)
    with pytest.raises(PoolShutdownError):
        pool.submit(square, 1)
    gate.open()
    workers.shutdown()
    assert future.result() == 7


def test_observers_bounds_and_options_are_those_of_a_pool() -> None:
    told: list[str] = []
    plan = FaultPlan().fail(OSError, task=0)
    with plan.around(
        "thread",
        1,
        observers=[lambda event: told.append(event.what)],
        retry=Retry(wait=0),
        max_pending=1,
        when_full="raise",
    ) as pool:
        assert pool.submit(square, 2).result() == 4
    assert told == ["submitted", "started", "retried", "started", "finished"]


@kinds
def test_groups_and_maps(kind: str) -> None:
    plan = FaultPlan().fail(KeyError("x"), when=named(3))
    with workers_of(kind) as workers, plan.around(workers) as pool:
        with TaskGroup(pool) as group:
            future = group.submit(square, 5)
        assert future.result() == 25
        with pytest.raises(ExceptionGroup) as caught, TaskGroup(pool) as group:
            group.submit(square, 3)
        assert caught.group_contains(KeyError)
        assert list(pool.map(square, range(3))) == [0, 1, 4]
        with pytest.raises(KeyError):
            list(pool.map(square, [3]))


def test_plans_around_each_other() -> None:
    inner, outer = FaultPlan().fail(ValueError, task=1), FaultPlan().crash(task=[0])
    for kind in ("inline", "thread", "process"):
        with workers_of(kind) as workers, inner.around(workers) as one, outer.around(one) as pool:
            outcomes = list(map_outcomes(pool, square, range(4), chunksize=4, ordered=True))
            errors = [type(outcome.error) for outcome in outcomes]
            assert errors == [WorkerCrashedError, ValueError, type(None), type(None)]
    assert {(one.fn, one.args) for one in inner.injected} == {(square, (1,))}


# -- taken back, and kept ---------------------------------------------------------------------


def cancel_soon(future: Future[Any]) -> bool:
    """Cancel what has not started; in another thread, as that may never return if it is lost."""
    cancelled: Future[bool] = Future()
    threading.Thread(target=lambda: cancelled.set_result(future.cancel()), daemon=True).start()
    try:
        return cancelled.result(timeout=20)
    except TimeoutError:
        return False


@pytest.mark.parametrize("kind", KINDS[1:])
def test_what_is_taken_back_is_struck_out(kind: str, gate: GateKeeper) -> None:
    plan = FaultPlan().fail(ValueError, task=[1, 4])
    with workers_of(kind, 1) as workers, plan.around(workers) as pool:
        running = pool.submit(gate.gate.hold)
        gate.wait_started()
        pending = [pool.submit(square, n) for n in range(1, 6)]
        assert {one.number for one in plan.injected} == {1, 4}
        try:
            assert cancel_soon(pending[3])
            assert cancel_soon(pending[4])
            assert {one.number for one in plan.injected} == {1}
        finally:
            gate.open()
        assert isinstance(pending[0].exception(), ValueError)
        running.result()
    assert on_record(plan) == [(1, 1, "fail")]


@pytest.mark.parametrize("kind", ["process", "stdlib-process"])
def test_what_was_sent_ahead_can_be_taken_back(kind: str, gate: GateKeeper) -> None:
    plan = FaultPlan().fail(ValueError, task=1)
    with workers_of(kind, 1) as workers, plan.around(workers) as pool:
        running = pool.submit(gate.gate.hold)
        gate.wait_started()
        # Of processes of the standard library, more than one is sent ahead, and can't come back.
        ahead = [pool.submit(square, n) for n in range(1, 4)]
        which = 0 if kind == "process" else 2
        try:
            assert cancel_soon(ahead[which])
        finally:
            gate.open()
        running.result()
    assert on_record(plan) == ([] if kind == "process" else [(1, 1, "fail")])


def test_what_is_refused_is_struck_out() -> None:
    def broken() -> None:
        raise LookupError

    plan = FaultPlan().fail(ValueError, task=1)
    with plan.around("thread", 1, initializer=broken) as pool:
        assert isinstance(pool.submit(square, 0).exception(), PoolBrokenError)
        with pytest.raises(PoolBrokenError):
            pool.submit(square, 1)
    assert plan.injected == []


class Cargo:
    """Something that can be watched."""


def test_nothing_is_kept_of_what_was_taken_back(gate: GateKeeper) -> None:
    with FaultPlan().delay(0, when=lambda call: False).around("thread", 1) as pool:
        running = pool.submit(gate.gate.hold)
        gate.wait_started()
        cargo = Cargo()
        watched = weakref.ref(cargo)
        pending = pool.submit(isinstance, cargo, Cargo)
        del cargo
        assert pending.cancel()
        gc.collect()
        assert watched() is None
        gate.open()
        running.result()


@pytest.mark.parametrize("kind", ["inline", "thread"])
def test_nothing_is_kept_of_what_was_spared(kind: str) -> None:
    with FaultPlan().fail(ValueError, task=1).around(kind) as pool:
        cargo = Cargo()
        watched = weakref.ref(cargo)
        pool.submit(isinstance, cargo, Cargo).result()
        del cargo
        pool.submit(square, 1).exception()
        pool.submit(square, 2).result()
        gc.collect()
        assert watched() is None


# -- waiting inside tasks ---------------------------------------------------------------------


def wait_by_result(pool: PoolExecutor, numbers: range) -> list[BaseException | None]:
    return [future.exception() for future in [pool.submit(square, n) for n in numbers]]


def wait_by_wait(pool: PoolExecutor, numbers: range) -> list[BaseException | None]:
    futures = [pool.submit(square, n) for n in numbers]
    assert not poolkit.wait(futures).not_done
    return [future.exception() for future in futures]


def wait_by_verb(pool: PoolExecutor, numbers: range) -> list[BaseException | None]:
    return [outcome.error for outcome in map_outcomes(pool, square, numbers, ordered=True)]


Ways = Callable[[PoolExecutor, range], list[BaseException | None]]


@threads_too
@pytest.mark.parametrize("way", [wait_by_result, wait_by_wait, wait_by_verb])
@pytest.mark.timeout(20)
def test_waiting_in_a_task_of_one_worker(kind: str, way: Ways) -> None:
    """Nothing locks up, and what runs on the waiter's stack, or first, is struck all the same."""
    plan = FaultPlan().fail(ValueError, when=named(2)).delay(0, rate=0.5)
    with workers_of(kind, 1) as workers, plan.around(workers) as pool:
        for _ in range(3):
            errors = pool.submit(way, pool, range(5)).result()
            assert [type(error) for error in errors] == [type(None)] * 2 + [ValueError] + [
                type(None)
            ] * 2
        assert pool.statistics().waiting == 0


@pytest.mark.timeout(20)
def test_waiting_in_a_retried_task_of_one_worker() -> None:
    plan = FaultPlan().crash(when=named(2), attempts=2)
    with plan.around("thread", 1, retry=Retry(wait=0)) as pool:
        assert pool.submit(wait_by_result, pool, range(5)).result() == [None] * 5
    assert [one.what for one in plan.injected] == ["crash"] * 2


def wait_timed(pool: PoolExecutor, numbers: range) -> list[BaseException | None]:
    """Wait by `result`, as it were untimed, but for what would otherwise wait for ever."""
    return [future.exception(timeout=20) for future in [pool.submit(square, n) for n in numbers]]


@threads_too
@pytest.mark.parametrize("way", [wait_timed, wait_by_result, wait_by_wait, wait_by_verb])
@pytest.mark.timeout(40)
def test_tasks_may_wait_for_those_of_the_pool_behind_and_in_front(kind: str, way: Ways) -> None:
    """In any order, though all share one worker."""
    inner, outer = FaultPlan().fail(ValueError, when=named(2)), FaultPlan().crash(when=named(1))
    with workers_of(kind, 1) as executor, make_executor(executor) as behind:
        with inner.around(behind) as middle, outer.around(middle) as front:
            expected = {
                behind: [type(None)] * 3,
                middle: [type(None), type(None), ValueError],
                front: [type(None), WorkerCrashedError, ValueError],
            }
            for first in expected:
                for second, errors in expected.items():
                    found = first.submit(way, second, range(3)).result()
                    assert [type(error) for error in found] == errors
            assert behind.statistics().waiting == 0


@threads_too
@pytest.mark.timeout(40)
def test_a_task_may_wait_for_tasks_of_several_pools_at_once(kind: str) -> None:
    with workers_of(kind, 1) as executor, make_executor(executor) as behind:
        with FaultPlan().fail(ValueError, when=named(3)).around(behind) as front:

            def wait_for_both() -> int:
                futures = [pool.submit(square, n) for n in (2, 3) for pool in (behind, front)]
                return sum(not f.exception() for f in poolkit.wait(futures, timeout=20).done)

            assert [pool.submit(wait_for_both).result() for pool in (behind, front)] == [3, 3]


@pytest.mark.timeout(40)
def test_a_waiting_task_does_not_spare_a_further_attempt(gate: GateKeeper) -> None:
    """It has what it waits for run at once; not as the user knows it, though."""
    plan = FaultPlan().fail(OSError, when=named(2), attempts=None)

    def wait_for_another() -> BaseException | None:
        struck = pool.submit(square, 2)
        blocking.append(pool.submit(gate.gate.hold))  # between the attempts, in the other thread
        gate.wait_started()
        while len(plan.injected) < 2:
            threading.Event().wait(0.001)
        try:
            return struck.exception(timeout=20)
        finally:
            gate.open()

    blocking: list[Future[Any]] = []
    with workers_of("stdlib-thread") as workers:
        with plan.around(workers, retry=Retry(attempts=2, wait=0)) as pool:
            assert isinstance(pool.submit(wait_for_another).result(), OSError)
            blocking[0].result()


@pytest.mark.timeout(40)
def test_a_waiting_task_does_not_spare_what_is_on_its_way() -> None:
    """What is in the books already may still be looked at by a predicate."""
    looking = threading.Event()

    def strikes(call: FaultCall) -> bool:
        if call.fn is square:
            looking.set()
            while not pool.statistics().waiting:
                threading.Event().wait(0.001)
        return call.fn is square

    def wait_for_all() -> None:
        assert looking.wait(20)
        view.shutdown()

    with FaultPlan().fail(ValueError, when=strikes).around("thread", 1) as pool:
        view = pool.with_options()
        waiting = pool.submit(wait_for_all)
        assert isinstance(view.submit(square, 1).exception(), ValueError)
        waiting.result()


@pytest.mark.timeout(20)
def test_a_callback_may_wait() -> None:
    with FaultPlan().around("thread", 1) as pool:
        answers: Future[int] = Future()
        future = pool.submit(square, 1)
        future.add_done_callback(lambda _: answers.set_result(pool.submit(square, 4).result()))
        assert answers.result() == 16


@pytest.mark.timeout(40)
@pytest.mark.parametrize("first", ["behind", "front"])
@pytest.mark.parametrize("second", ["behind", "front"])
def test_a_callback_of_processes_must_not_wait(first: str, second: str, gate: GateKeeper) -> None:
    answers: Future[BaseException | None] = Future()
    with make_executor("process", 1) as behind, FaultPlan().around(behind) as front:
        pools = {"behind": behind, "front": front}

        def callback(_future: Future[Any]) -> None:
            try:
                pools[second].submit(square, 4).result(timeout=20)
            except BaseException as error:
                answers.set_result(error)

        future = pools[first].submit(gate.gate.hold)
        future.add_done_callback(callback)
        gate.open()
        assert isinstance(answers.result(timeout=30), UnsupportedError)


@pytest.mark.timeout(40)
def test_a_callback_of_processes_may_shut_down_and_does_not_wait(gate: GateKeeper) -> None:
    with FaultPlan().delay(0, rate=1).around("process", 2) as pool:
        answers: Future[BaseException | None] = Future()

        def callback(_future: Future[int]) -> None:
            try:
                pool.shutdown()
                answers.set_result(None)
            except BaseException as error:
                answers.set_result(error)

        running = pool.submit(gate.gate.hold, "done")
        gate.wait_started()
        pool.submit(square, 1).add_done_callback(callback)
        try:
            assert answers.result(timeout=20) is None
            assert not running.done()
        finally:
            gate.open()
    assert running.result() == "done"


@pytest.mark.timeout(20)
def test_a_cycle_is_told() -> None:
    futures: list[Future[Any]] = []
    ready = threading.Event()

    def wait_for(other: int) -> Any:
        ready.wait()
        return futures[other].result()

    with FaultPlan().delay(0, rate=1).around("thread", 2) as pool:
        futures += [pool.submit(wait_for, 1), pool.submit(wait_for, 0)]
        ready.set()
        errors = [future.exception() for future in futures]
    assert DeadlockError in {type(error) for error in errors}


# -- in virtual time ------------------------------------------------------------------------

HOUR = 3600.0
hourly = Retry(attempts=3, wait=HOUR, max_wait=HOUR, jitter=False)


def manual() -> ManualExecutor:
    return ManualExecutor(auto_run=True)


def simulated() -> SimulatedExecutor:
    return SimulatedExecutor(3)


def simulated_alone() -> SimulatedExecutor:
    return SimulatedExecutor(3, max_workers=1)


Virtual = Callable[[], ManualExecutor | SimulatedExecutor]
virtual = pytest.mark.parametrize("make", [manual, simulated, simulated_alone])


@virtual
@pytest.mark.parametrize("chunksize", [1, 4])
def test_faults_in_virtual_time(make: Virtual, chunksize: int) -> None:
    plan = (
        FaultPlan()
        .delay(HOUR, task=[0, 4])
        .crash(task=1)
        .fail(OSError("disk full"), task=2)
        .unpicklable_result(task=3)
        .time_out(task=5)
    )
    with make() as workers, plan.around(workers) as pool:
        limited = pool.with_options(task_timeout=2 * HOUR)
        outcomes = list(map_outcomes(limited, square, range(7), chunksize=chunksize, ordered=True))
        assert workers.elapsed == (2 if make is simulated else 4) * HOUR
    errors = [type(outcome.error) for outcome in outcomes]
    assert errors[:3] == [type(None), WorkerCrashedError, OSError]
    assert errors[3:] == [TaskSerializationError, type(None), TaskTimeoutError, type(None)]
    assert [outcome.run_s for outcome in outcomes] == [HOUR, 0, 0, 0, HOUR, 2 * HOUR, 0]
    assert len(plan.injected) == 6


@virtual
def test_a_delay_beyond_the_limit_in_virtual_time(make: Virtual) -> None:
    plan = FaultPlan().delay(2 * HOUR, task=0)
    with make() as workers, plan.around(workers, task_timeout=HOUR) as pool:
        error = pool.submit(square, 1).exception()
        assert isinstance(error, TaskTimeoutError)
        assert pool.submit(square, 2).result() == 4


@virtual
@pytest.mark.parametrize("what", ["crash", "time_out", "fail"])
def test_pauses_between_attempts_in_virtual_time(make: Virtual, what: str) -> None:
    plan = FaultPlan()
    plan = plan.fail(OSError, task=1) if what == "fail" else getattr(plan, what)(task=1, attempts=2)
    with make() as workers, plan.around(workers, task_timeout=60, retry=hourly) as pool:
        outcomes = list(map_outcomes(pool, square, range(4), chunksize=2, ordered=True))
        attempts = 2 if what == "fail" else 3
        assert [outcome.value for outcome in outcomes] == [0, 1, 4, 9]
        assert [outcome.attempts for outcome in outcomes] == [1, attempts, 1, 1]
        spent = (attempts - 1) * (HOUR + (60 if what == "time_out" else 0))
        assert workers.elapsed == pytest.approx(spent)
        assert pool.submit(attempt_here).result() == 1
        plan.crash(task=[5, 6], attempts=None)
        futures = [pool.submit(attempt_here), pool.submit(attempt_here)]
        assert {type(future.exception()) for future in futures} == {WorkerCrashedError}
        assert workers.elapsed == pytest.approx(spent + (4 if make is manual else 2) * HOUR)


@virtual
@pytest.mark.parametrize("way", [wait_by_result, wait_by_wait, wait_by_verb])
def test_waiting_in_a_task_in_virtual_time(make: Virtual, way: Ways) -> None:
    plan = FaultPlan().fail(ValueError, when=named(2)).delay(HOUR, rate=0.5)
    with make() as workers, plan.around(workers) as pool:
        for first, second in [(pool, pool), (workers, pool), (pool, workers)]:
            errors = first.submit(way, second, range(3)).result()
            struck = ValueError if second is pool else type(None)
            assert [type(error) for error in errors] == [type(None), type(None), struck]


def test_a_manual_executor_runs_what_it_is_told_to() -> None:
    plan = FaultPlan().crash(task=1).delay(HOUR, task=2)
    with ManualExecutor() as workers, plan.around(workers) as pool:
        futures = [pool.submit(square, n) for n in range(4)]
        assert len(workers.pending) == 4
        workers.run(1)
        assert isinstance(futures[1].exception(), WorkerCrashedError)
        workers.run(1)
        assert workers.elapsed == HOUR
        assert futures[2].result() == 4
        assert futures[3].cancel()
        assert not futures[0].done()
        workers.run_all()
        assert futures[0].result() == 0


def test_around_what_stands_in_for_a_pool() -> None:
    plan = FaultPlan().crash(task=0).delay(HOUR, task=1)
    with override_executors(SimulatedExecutor), plan.around("process", 2, retry=hourly) as pool:
        assert pool.max_workers == 2
        outcomes = list(map_outcomes(pool, square, range(3), ordered=True))
        assert [outcome.value for outcome in outcomes] == [0, 1, 4]
        assert [outcome.attempts for outcome in outcomes] == [2, 1, 1]


def simulated_faults(seed: int, plan_seed: int) -> tuple[Any, ...]:
    """Run tasks that submit others, so that the order, which gives numbers, is the seed's."""
    plan = FaultPlan(plan_seed).crash(rate=0.2).fail(OSError, rate=0.2).delay(HOUR, rate=0.2)

    def submit_others(number: int) -> list[int]:
        poolkit.testing.sleep(1)
        futures = [pool.submit(square, 10 * number + n) for n in range(3)]
        return [number for number, future in enumerate(futures) if future.exception()]

    with SimulatedExecutor(seed) as workers, plan.around(workers) as pool:
        views = pool.with_options(retry=hourly)
        futures = [views.submit(submit_others, n) for n in range(8)]
        errors = [future.exception() for future in futures]
        return (
            [(one.number, one.attempt, one.what, one.args) for one in plan.injected],
            [type(error) for error in errors],
            workers.elapsed,
        )


def test_a_simulation_gives_the_same_faults_for_the_same_seeds() -> None:
    first = simulated_faults(1, 7)
    assert len(first[0]) > 5
    assert all(simulated_faults(1, 7) == first for _ in range(3))
    others = [simulated_faults(seed, 7) for seed in range(2, 6)]
    assert any(other != first for other in others)
    assert simulated_faults(1, 8) != first


# -- names ----------------------------------------------------------------------------------


def what_befell(one: InjectedFault) -> str:
    return one.what


def test_what_is_public_says_so_and_travels() -> None:
    for each in (FaultPlan, FaultCall, InjectedFault):
        assert (each.__module__, each.__qualname__) == ("poolkit.testing", each.__name__)
        assert getattr(poolkit.testing, each.__name__) is each
    call = FaultCall(3, 1, square, (2,), {})
    assert pickle.loads(pickle.dumps(call)) == call
    plan = FaultPlan().fail(ValueError, task=0)
    with plan.around("process", 1) as pool:
        assert isinstance(pool.submit(square, 1).exception(), ValueError)
        (one,) = plan.injected
        assert pickle.loads(pickle.dumps(one)) == one
        assert pool.submit(what_befell, one).result() == "fail"


# -- bad arguments ------------------------------------------------------------------------


def yes(call: FaultCall) -> bool:
    return True


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, r"crash\(\) needs exactly one of task=, when= and rate=.*0 were given"),
        ({"task": 1, "rate": 0.5}, TypeError, "2 were given"),
        ({"task": -1}, ValueError, "at least 0"),
        ({"task": True}, TypeError, "task must be"),
        ({"task": "1"}, TypeError, "task must be"),
        ({"task": []}, TypeError, "task must be"),
        ({"task": 1.5}, TypeError, "task must be"),
        ({"when": 3}, TypeError, "when must be callable"),
        ({"rate": 1.5}, ValueError, "from 0 to 1"),
        ({"rate": float("nan")}, ValueError, "from 0 to 1"),
        ({"rate": "0.5"}, TypeError, "from 0 to 1"),
        ({"rate": object()}, TypeError, "from 0 to 1"),
        ({"when": yes, "attempts": 0}, ValueError, "attempts must be greater than 0"),
        ({"tasks": 1}, TypeError, r"crash\(\) got an unexpected keyword argument 'tasks'"),
    ],
)
def test_bad_lines(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    plan = FaultPlan()
    with pytest.raises(error, match=message):
        plan.crash(**arguments)
    assert "lines=0" in repr(plan)


def test_bad_arguments() -> None:
    plan = FaultPlan()
    bad: Any = "ValueError"
    with pytest.raises(TypeError, match="an exception or its class"):
        plan.fail(bad, task=1)
    with pytest.raises(TypeError, match="where the class needs arguments"):
        plan.fail(UnicodeDecodeError, task=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'attempts'"):
        plan.shut_down(task=1, attempts=2)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="seconds must be"):
        plan.delay(-1, task=1)
    with pytest.raises(ValueError, match="seconds must be a number"):
        plan.delay(float("inf"), task=1)
    with pytest.raises(TypeError, match="seed must be an int"):
        FaultPlan(bad)
    with pytest.raises(TypeError, match="kind must be a name or an Executor"):
        plan.around(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown kind"):
        plan.around("thraed")
    assert repr(plan) == "<FaultPlan: seed=0, lines=0, injected=0>"


# -- any plan ---------------------------------------------------------------------------------

numbers = st.integers(0, 30)
who = st.one_of(
    st.fixed_dictionaries({"task": st.sets(numbers, min_size=1, max_size=8)}),
    st.fixed_dictionaries({"rate": st.floats(0, 1)}),
)
lines = st.tuples(st.sampled_from(["fail", "crash", "time_out", "spoil", "delay"]), who)

ERRORS = {
    "fail": OSError,
    "crash": WorkerCrashedError,
    "time_out": TaskTimeoutError,
    "unpicklable_result": TaskSerializationError,
}


def plan_of(seed: int, given_lines: list[tuple[str, dict[str, Any]]]) -> FaultPlan:
    plan = FaultPlan(seed)
    for what, whom in given_lines:
        if what == "fail":
            plan.fail(OSError("struck"), **whom)
        elif what == "crash":
            plan.crash(**whom)
        elif what == "time_out":
            plan.time_out(**whom)
        elif what == "spoil":
            plan.unpicklable_result(**whom)
        else:
            plan.delay(0, **whom)
    return plan


@pytest.fixture(scope="module")
def some_pools() -> Iterator[dict[str, PoolExecutor]]:
    """One pool of each kind for all examples."""
    with (
        make_executor("inline") as inline,
        make_executor("thread", 3) as thread,
        make_executor("process", 2) as process,
    ):
        yield {"inline": inline, "thread": thread, "process": process}


def count_end(ended: Counter[int], number: int, _future: Future[int]) -> None:
    ended[number] += 1


def check_any_plan(
    workers: PoolExecutor, plan: FaultPlan, chunksize: Any, count: int, by_submit: bool
) -> None:
    with plan.around(workers) as pool:
        ended: Counter[int] = Counter()
        errors: dict[int, type[BaseException]] = {}
        if by_submit:
            futures = [pool.submit(square, n) for n in range(count)]
            for number, future in enumerate(futures):
                future.add_done_callback(functools.partial(count_end, ended, number))
            results = [
                (number, future.exception(), None if future.exception() else future.result())
                for number, future in enumerate(futures)
            ]
        else:
            outcomes = list(map_outcomes(pool, square, range(count), chunksize=chunksize))
            ended.update(outcome.index for outcome in outcomes)
            results = [(outcome.index, outcome.error, outcome.value) for outcome in outcomes]
        for number, error, value in results:
            if error is None:
                assert value == number * number
            else:
                errors[number] = type(error)
    assert ended == Counter(range(count))
    fatal = [one for one in plan.injected if one.what != "delay"]
    assert errors == {one.number: ERRORS[one.what] for one in fatal}
    assert len(fatal) == len(errors)
    assert all(one.args == (one.number,) for one in plan.injected)


@pytest.mark.parametrize("kind", ["inline", "thread"])
@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 1000),
    given_lines=st.lists(lines, max_size=4),
    chunksize=st.sampled_from([1, 3, "auto"]),
    count=numbers,
    by_submit=st.booleans(),
)
def test_any_plan(
    some_pools: dict[str, PoolExecutor],
    kind: str,
    seed: int,
    given_lines: list[tuple[str, dict[str, Any]]],
    chunksize: Any,
    count: int,
    by_submit: bool,
) -> None:
    check_any_plan(some_pools[kind], plan_of(seed, given_lines), chunksize, count, by_submit)


@settings(deadline=None, max_examples=6)
@given(
    seed=st.integers(0, 1000),
    rate=st.floats(0, 0.3),
    chunksize=st.sampled_from([1, 3, "auto"]),
    by_submit=st.booleans(),
)
def test_any_plan_on_processes(
    some_pools: dict[str, PoolExecutor], seed: int, rate: float, chunksize: Any, by_submit: bool
) -> None:
    plan = plan_of(seed, [(what, {"rate": rate}) for what in ("delay", "crash", "fail", "spoil")])
    check_any_plan(some_pools["process"], plan, chunksize, 20, by_submit)


def test_a_crash_never_kills_the_parent() -> None:
    from poolkit.testing._fault_calls import Die

    with pytest.raises(RuntimeError, match="this is the parent"):
        Die(os.getpid()).before()
