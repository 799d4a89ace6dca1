"""The interpreter kind: what is its own; what it shares with threads is tested there."""

import builtins
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from poolkit import (
    PoolBrokenError,
    TaskAbortedError,
    TaskSerializationError,
    TaskTimeoutError,
    UnsupportedError,
    current_task,
    make_executor,
    map_ordered,
    map_outcomes,
)
from poolkit.testing._contract.gate import GateKeeper as ContractGate
from poolkit.testing._contract_tasks import identity

from . import tasks

needs_interpreters = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="needs concurrent.interpreters"
)

# Seconds after which a hung task is given up; it hangs until the test lets it go.
SHORT = 0.3
# Seconds that no test ever takes.
LONG = 30.0


def interpreters() -> set[int]:
    """Return the numbers of all interpreters of this process."""
    module: Any = import_module("concurrent.interpreters")
    return {interpreter.id for interpreter in module.list_all()}


def interpreter_id(_x: object = None) -> int:
    module: Any = import_module("concurrent.interpreters")
    number: int = module.get_current().id
    return number


def remember(name: str, value: object) -> None:
    setattr(builtins, name, value)


def recall(name: str) -> object:
    return getattr(builtins, name, None)


def refuse(text: str) -> None:
    raise LookupError(text)


def say(text: str) -> None:
    print(text, end="")


def total_of(items: list[int]) -> int:
    return sum(items)


def held_total_of(gate: tasks.Gate, items: list[int]) -> int:
    gate.hold()
    return sum(items)


def about_current_task(_x: object = None) -> tuple[bool, int, bool]:
    task = current_task()
    assert task.deadline is not None
    return 0 < task.deadline - time.monotonic() <= LONG, task.attempt, task.cancelled


def wait_and_tell(told: Path) -> None:
    """Wait until given up, then say so by a FIFO, whose reader waits."""
    with told.open("wb", buffering=0) as file:
        file.write(b"s")
        file.write(b"c" if current_task().wait(LONG) else b"n")


class Weak:
    """Something that pickle takes by reference to its class."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Weak) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[tasks.GateKeeper]:
    keeper = tasks.GateKeeper(tasks.Gate.make(tmp_path / "gate"))
    yield keeper
    keeper.close()


@pytest.fixture
def none_left() -> Iterator[None]:
    """Check that no interpreter is left behind; an abandoned one goes when its call returns."""
    before = interpreters()
    yield
    end = time.monotonic() + LONG
    while interpreters() - before:
        assert time.monotonic() < end, "an interpreter was left open"
        time.sleep(0)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="of older versions")
def test_older_pythons_get_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UnsupportedError, match=r"3\.14 or newer.*process.*thread"):
        make_executor("interpreter")


@needs_interpreters
@pytest.mark.usefixtures("none_left")
class TestWorkers:
    def test_each_worker_has_an_interpreter_of_its_own(self, gate: tasks.GateKeeper) -> None:
        before = interpreters()
        with make_executor("interpreter", 2) as pool:
            assert interpreters() == before  # none before it is needed
            held = pool.submit(gate.gate.hold)
            gate.wait_started()
            numbers = {pool.submit(interpreter_id).result(LONG) for _ in range(20)}
            gate.open()
            numbers |= {*map_ordered(pool, interpreter_id, range(20), chunksize=5)}
            assert held.result(LONG) is None
            assert numbers == interpreters() - before
            assert 1 <= len(numbers) <= 2

    def test_modules_last_from_task_to_task_and_are_nobody_elses(self) -> None:
        with make_executor("interpreter", 1) as pool:
            pool.submit(remember, "poolkit_test", 5).result(LONG)
            assert pool.submit(recall, "poolkit_test").result(LONG) == 5
        assert recall("poolkit_test") is None

    def test_dropping_the_pool_closes_them(self) -> None:
        pool = make_executor("interpreter", 2)
        assert pool.submit(tasks.square, 3).result(LONG) == 9
        del pool

    def test_the_same_modules_are_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "only_found_there.py").write_text("def f(x):\n    return x + 1\n")
        monkeypatch.syspath_prepend(tmp_path)
        module = import_module("only_found_there")
        with make_executor("interpreter", 1) as pool:
            assert pool.submit(module.f, 1).result(LONG) == 2

    def test_the_initializer_runs_in_each(self) -> None:
        initargs = ("poolkit_test", [1, 2])
        with make_executor("interpreter", 2, initializer=remember, initargs=initargs) as pool:
            found = list(map_ordered(pool, recall, ["poolkit_test"] * 8, chunksize=1))
        assert found == [[1, 2]] * 8
        assert recall("poolkit_test") is None

    def test_an_initializer_that_raises_breaks_the_pool_and_is_its_cause(self) -> None:
        with make_executor("interpreter", 2, initializer=refuse, initargs=("no",)) as pool:
            error = pool.submit(tasks.square, 1).exception(LONG)
            assert isinstance(error, PoolBrokenError)
            assert isinstance(error.__cause__, LookupError)
            assert error.__cause__.args == ("no",)
            with pytest.raises(PoolBrokenError):
                pool.submit(tasks.square, 1)

    def test_an_initializer_that_cant_be_sent_is_refused_at_once(self) -> None:
        with pytest.raises(TaskSerializationError):
            make_executor("interpreter", initializer=remember, initargs=(threading.Lock(),))

    def test_outcomes_name_the_worker(self) -> None:
        with make_executor("interpreter", 1, thread_name_prefix="crew") as pool:
            workers = {outcome.worker for outcome in map_outcomes(pool, tasks.square, range(9))}
        assert workers == {"crew_0"}

    def test_what_tasks_print_comes_out(self, capfd: pytest.CaptureFixture[str]) -> None:
        with make_executor("interpreter", 1) as pool:
            pool.submit(say, "from inside").result(LONG)
        assert "from inside" in capfd.readouterr().out

    def test_thousands_of_items(self) -> None:
        before = interpreters()
        with make_executor("interpreter", 2) as pool:
            values = map_ordered(pool, tasks.square, iter(range(20_000)))
            assert all(value == n * n for n, value in enumerate(values))
            futures = [pool.submit(tasks.square, n) for n in range(2_000)]
            assert [future.result(LONG) for future in futures] == [n * n for n in range(2_000)]
            assert len(interpreters() - before) <= 2


@needs_interpreters
@pytest.mark.usefixtures("none_left")
class TestCrossing:
    @pytest.mark.parametrize(
        "value",
        [None, True, 10**30, -0.0, 1j, "\ud800é", b"x" * 100_000, (1, (2,)), [1], {"a": 1}],
        ids=lambda value: repr(value)[:12].encode("ascii", "replace").decode(),
    )
    def test_values_arrive_as_they_were(self, value: object) -> None:
        with make_executor("interpreter", 1) as pool:
            arrived = pool.submit(identity, value).result(LONG)
            mapped = list(map_ordered(pool, identity, [value] * 3, chunksize=3))
        assert (arrived, type(arrived), repr(arrived)) == (value, type(value), repr(value))
        assert mapped == [value] * 3

    def test_objects_and_exceptions_are_values(self) -> None:
        with make_executor("interpreter", 1) as pool:
            assert pool.submit(identity, Weak(3)).result(LONG) == Weak(3)
            assert pool.submit(tasks.returned_error, 3).result(LONG).args == (3,)

    def test_arguments_are_as_they_were_when_submitted(self, gate: tasks.GateKeeper) -> None:
        items = [1, 2, 3]
        with make_executor("interpreter", 1) as pool:
            held = pool.submit(held_total_of, gate.gate, items)
            waiting = pool.submit(total_of, items)
            gate.wait_started()
            items.append(100)
            gate.open()
            assert (held.result(LONG), waiting.result(LONG)) == (6, 6)

    def test_an_error_shows_where_it_arose_and_none_of_our_frames(self) -> None:
        with make_executor("interpreter", 1) as pool:
            error = pool.submit(tasks.fail, 7).exception(LONG)
        assert isinstance(error, KeyError)
        assert error.args == (7,)
        assert error.__traceback__ is None
        assert "raise KeyError(x)" in str(error.__cause__)
        assert "tests" in error.__notes__[0] or "fail(7)" in error.__notes__[0]

    def test_what_cant_be_sent_fails_alone(self) -> None:
        lock: Any = threading.Lock()
        with make_executor("interpreter", 2) as pool:
            outcomes = list(map_outcomes(pool, identity, [1, lock, 3], ordered=True))
            assert [outcome.ok for outcome in outcomes] == [True, False, True]
            assert isinstance(outcomes[1].error, TaskSerializationError)
            back = pool.submit(tasks.unpicklable).exception(LONG)
            assert isinstance(back, TaskSerializationError)
            with pytest.raises(TaskSerializationError, match="make one there"):
                pool.submit(identity, pool).result(LONG)
            future = pool.submit(tasks.square, 4)
            with pytest.raises(TaskSerializationError):
                pool.submit(identity, future).result(LONG)
            assert future.result(LONG) == 16

    @pytest.mark.skipif(importlib.util.find_spec("readline") is None, reason="needs readline")
    def test_a_module_that_refuses_says_what_to_do(self) -> None:
        with make_executor("interpreter", 1) as pool:
            error = pool.submit(import_module, "readline").exception(LONG)
            other = pool.submit(import_module, "poolkit_no_such_module").exception(LONG)
        assert type(error) is ImportError
        assert any('make_executor("process")' in note for note in error.__notes__)
        assert isinstance(other, ModuleNotFoundError)
        assert not any("make_executor" in note for note in other.__notes__)


@needs_interpreters
@pytest.mark.usefixtures("none_left")
class TestGivingUp:
    @pytest.mark.parametrize("chunksize", [1, 3])
    def test_current_task_knows_its_limit(self, chunksize: int) -> None:
        with make_executor("interpreter", 2, task_timeout=LONG) as pool:
            assert pool.submit(about_current_task).result(LONG) == (True, 1, False)
            told = list(map_ordered(pool, about_current_task, range(6), chunksize=chunksize))
        assert told == [(True, 1, False)] * 6

    def test_a_hung_task_costs_its_worker_only(self, gate: tasks.GateKeeper) -> None:
        before = interpreters()
        with make_executor("interpreter", 1) as pool:
            view = pool.with_options(task_timeout=SHORT)
            assert isinstance(view.submit(gate.gate.hold).exception(LONG), TaskTimeoutError)
            assert pool.statistics().abandoned == 1
            assert pool.submit(tasks.square, 3).result(LONG) == 9
            assert len(interpreters() - before) == 2  # as the hung call still needs its own
        gate.open()

    def test_a_hung_item_costs_no_other_item(self) -> None:
        with make_executor("interpreter", 2) as pool:
            warming, holding = ContractGate(LONG), ContractGate(LONG)
            warm = [pool.submit(warming.gate.hold_first, 0) for _ in range(2)]
            warming.wait_started(2)  # both have imported what the items need
            warming.close()
            assert [future.result(LONG) for future in warm] == [0, 0]
            view = pool.with_options(task_timeout=SHORT)
            hold_first = holding.gate.hold_first
            outcomes = list(map_outcomes(view, hold_first, range(6), chunksize=6, ordered=True))
        holding.close()
        assert [outcome.ok for outcome in outcomes] == [False, *[True] * 5]
        assert isinstance(outcomes[0].error, TaskTimeoutError)

    @pytest.mark.parametrize("how", ["abort", "late"])
    def test_the_task_is_told(self, tmp_path: Path, how: str) -> None:
        told = tmp_path / "told"
        os.mkfifo(told)
        with make_executor("interpreter", 1) as pool:
            view = pool.with_options(task_timeout=SHORT) if how == "late" else pool
            future = view.submit(wait_and_tell, told)
            with told.open("rb", buffering=0) as file:
                assert file.read(1) == b"s"
                if how == "abort":
                    assert future.abort() == "abandoned"
                assert file.read(1) == b"c"
            error = TaskTimeoutError if how == "late" else TaskAbortedError
            assert isinstance(future.exception(LONG), error)
            assert pool.submit(about_nothing).result(LONG) is False  # nobody told this one


def about_nothing() -> bool:
    return current_task().cancelled


SCRIPT = """
import sys, threading, time
print("imported", flush=True)
if {cloudpickle}:
    sys.modules["cloudpickle"] = None
sys.modules.pop("tests", None)

class Point:
    def __init__(self, x):
        self.x = x

def of_main(point):
    return Point(point.x + 1)

from poolkit import make_executor
pool = make_executor("interpreter", 1)
future = pool.submit(of_main, Point(1))
error = future.exception()
print(type(error).__name__, error or type(future.result()) is Point and future.result().x)
"""

HANG = """
import re, sys, threading, time
from poolkit import TaskTimeoutError, make_executor
from tests import test_interpreter

pool = make_executor("interpreter", 2, task_timeout=0.2)
futures = [pool.submit({task}) for _ in range(3)]
assert all(isinstance(f.exception(), TaskTimeoutError) for f in futures)
assert pool.with_options(task_timeout=None).submit(abs, -3).result() == 3
{ending}
"""

PENDING = """
from poolkit import make_executor
from tests import test_interpreter

pool = make_executor("interpreter", 2)
for number in range(10):
    pool.submit(test_interpreter.say, f"<{number}>")
"""


def loop_for_ever() -> None:
    while True:
        pass


def run_script(script: str | Path) -> "subprocess.CompletedProcess[str]":
    given = [str(script)] if isinstance(script, Path) else ["-c", script]
    return subprocess.run(
        [sys.executable, "-X", "dev", *given],
        capture_output=True,
        timeout=LONG,
        text=True,
        check=False,
    )


@needs_interpreters
class TestPrograms:
    @pytest.mark.parametrize(
        "task",
        ["time.sleep, 3600", "test_interpreter.loop_for_ever"],
        ids=["asleep", "in_a_loop"],
    )
    @pytest.mark.parametrize("ending", ["sys.exit(3)", "with pool: pass\nsys.exit(3)"])
    def test_hung_tasks_dont_hold_up_the_exit(self, task: str, ending: str) -> None:
        ended = run_script(HANG.format(task=task, ending=ending))
        assert (ended.returncode, ended.stderr) == (3, "")

    def test_pending_work_is_done_at_exit(self) -> None:
        ended = run_script(PENDING)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert all(f"<{number}>" in ended.stdout for number in range(10))

    def test_functions_of_main_need_cloudpickle_and_say_so(self, tmp_path: Path) -> None:
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.format(cloudpickle=True))
        ended = run_script(script)
        assert (ended.returncode, ended.stderr) == (0, "")
        first, second = ended.stdout.splitlines()
        assert first == "imported"  # once: no guard is needed
        assert second.startswith("TaskSerializationError")
        assert "pip install 'poolkit[cloudpickle]'" in second
        assert "__main__" in second

    @pytest.mark.skipif(importlib.util.find_spec("cloudpickle") is None, reason="needs cloudpickle")
    def test_with_cloudpickle_functions_of_main_just_work(self, tmp_path: Path) -> None:
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.format(cloudpickle=False))
        ended = run_script(script)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.splitlines() == ["imported", "NoneType 2"]
