"""What can't travel fails alone; what can, arrives whole."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from poolkit import RemoteTaskError, TaskSerializationError, make_executor

from ..tasks import GateKeeper, keywords, returned_error, square, unloadable, unpicklable
from . import cargo, tasks
from .census import LIMIT
from .helpers import Innocents, Mailbox, MakePool, StartScript, crash_of

pytestmark = pytest.mark.timeout(60)

LARGE = 50_000_000


def test_an_argument_that_cannot_be_pickled(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool()
    with innocents(pool), pytest.raises(TaskSerializationError, match="can't be sent"):
        pool.submit(cargo.echo, threading.Lock())


@pytest.mark.parametrize(
    ("task", "args"),
    [
        (cargo.echo, (cargo.BadAt("StopIteration"),)),
        (unpicklable, ()),
        (unloadable, ()),
        (cargo.bad_result, ("StopIteration",)),
    ],
    ids=["argument unpickled", "result pickled", "result unpickled", "result unpickled here"],
)
def test_a_journey_that_fails_is_that_tasks_error(
    make_pool: MakePool, innocents: Innocents, task: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    pool = make_pool()
    with innocents(pool):
        assert isinstance(pool.submit(task, *args).exception(), TaskSerializationError)


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "Abrupt"])
@pytest.mark.parametrize("task", [cargo.echo, cargo.bad_result])
def test_unpickling_may_raise_anything(
    make_pool: MakePool, innocents: Innocents, task: Callable[..., Any], kind: str
) -> None:
    """In the worker as in the parent, it ends neither the process nor the thread."""
    pool = make_pool()
    argument = cargo.BadAt(kind) if task is cargo.echo else kind
    with innocents(pool):
        assert pool.submit(task, argument).exception() is not None


def test_errors_that_cannot_travel_have_a_stand_in(
    make_pool: MakePool, innocents: Innocents
) -> None:
    pool = make_pool()
    with innocents(pool):
        error = pool.submit(cargo.raise_bad_error).exception()
    assert isinstance(error, RemoteTaskError)
    if "raise_bad_error" not in error.traceback:  # it could be unpickled in the worker only
        assert "not here" in str(error)


def test_errors_arrive_whole(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool()
    with innocents(pool):
        error: Any = pool.submit(cargo.lose, "keys").exception()
    assert type(error) is cargo.Lost
    assert error.args == ("keys", 7)
    assert (error.place, error.colour) == (7, "blue")
    assert "look under the sofa" in error.__notes__
    assert "in lose" in str(error.__cause__)
    assert "LookupError: no such shelf" in str(error.__cause__)
    causes = [cause for cause in causes_of(error) if type(cause) is LookupError]
    assert [cause.args for cause in causes] == [("no such shelf",)]


def causes_of(error: BaseException) -> Iterator[BaseException]:
    while error.__cause__ is not None:
        error = error.__cause__
        yield error


@pytest.mark.parametrize(
    "kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "StopIteration", "Abrupt"]
)
def test_errors_of_every_kind_are_the_tasks_own(
    make_pool: MakePool, innocents: Innocents, kind: str
) -> None:
    pool = make_pool()
    with innocents(pool):
        error = pool.submit(cargo.stop_abruptly, kind).exception()
    assert type(error).__name__ == kind
    assert error is not None
    assert error.args in ((3,), ("x",))


def test_a_returned_error_is_a_value(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool()
    with innocents(pool):
        value = pool.submit(returned_error, 1).result()
    assert type(value) is ValueError
    assert value.args == (1,)


def test_pools_and_futures_cannot_travel(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool()
    with innocents(pool):
        for unsendable in (pool, make_executor("inline").submit(square, 2)):
            with pytest.raises(TaskSerializationError):
                pool.submit(cargo.echo, unsendable)
        error = pool.submit(cargo.future_of_its_own).exception()
    assert isinstance(error, TaskSerializationError)


def test_every_keyword_reaches_the_function(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool()
    given = {"self": 1, "fn": 2, "batch": 3, "timeout": 4, "task_timeout": 5, "chunksize": 6}
    with innocents(pool):
        assert pool.submit(keywords, 0, **given).result() == ((0,), given)


def test_huge_messages_both_ways_at_once(make_pool: MakePool, innocents: Innocents) -> None:
    """A worker writes a result while the parent writes it the next task: neither may block."""
    pool = make_pool()
    blocks = [bytes([number]) * LARGE for number in range(2)]
    with innocents(pool, hold=False):
        futures = [pool.submit(cargo.echo, blocks[number % 2]) for number in range(6)]
        for number, future in enumerate(futures):
            assert future.result() == blocks[number % 2]


def test_huge_buffers_both_ways_at_once(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool()
    blocks = [cargo.Block(bytes([number]) * LARGE) for number in range(2)]
    with innocents(pool, hold=False):
        futures = [pool.submit(cargo.echo, blocks[number % 2]) for number in range(6)]
        for number, future in enumerate(futures):
            assert future.result() == blocks[number % 2]


@pytest.mark.parametrize("size", [1, 4096, 65_536, 212_992, 1 << 20])
def test_buffers_that_die_with_their_worker(
    make_pool: MakePool, innocents: Innocents, size: int
) -> None:
    """Whatever the buffers travel in is released when a side dies."""
    pool = make_pool()
    block = cargo.Block(bytes(size))
    with innocents(pool):
        for _ in range(3):
            assert crash_of(pool.submit(cargo.echo, (block, cargo.DeadlyArgument(1)))).exit_code
            assert pool.submit(cargo.echo, block).result() == block


def test_arguments_are_those_of_the_call(make_pool: MakePool, gate: GateKeeper) -> None:
    pool = make_pool(1)
    held = pool.submit(gate.gate.hold)
    gate.wait_started()
    numbers = [1, 2, 3]
    future = pool.submit(cargo.echo, numbers)
    numbers.clear()
    gate.open()
    assert held.result() is None
    assert future.result() == [1, 2, 3]


def test_a_worker_lets_go_of_arguments_before_it_waits(
    make_pool: MakePool, mailbox: Mailbox
) -> None:
    pool = make_pool(1)
    pid, _ = pool.submit(tasks.pid_and_group).result()
    assert pool.submit(tasks.pid_and_group, cargo.Traced(mailbox.path)).result()[0] == pid
    assert mailbox.read() == [pid]
    assert pool.submit(cargo.echo, cargo.Traced(mailbox.path)).result() is not None
    assert mailbox.read() == [pid]


def test_the_parent_lets_go_of_arguments_and_results(
    make_pool: MakePool, innocents: Innocents
) -> None:
    pool = make_pool()
    argument = cargo.Value()
    with innocents(pool):
        future = pool.submit(cargo.echo, argument)
        result = future.result()
        gone = [threading.Event(), threading.Event()]
        watched = [
            weakref.ref(argument, lambda _: gone[0].set()),
            weakref.ref(result, lambda _: gone[1].set()),
        ]
        del argument, result, future
        gc.collect()
        assert all(event.wait(LIMIT) for event in gone)
    assert [reference() for reference in watched] == [None, None]


INTERACTIVE = """\
import sys
from poolkit import TaskSerializationError, make_executor, map_ordered

def double(x):
    return 2 * x

def triple(x):
    return 3 * x

with make_executor("process", 2) as pool:
    innocent = pool.submit(abs, -7)
    sys.modules["cloudpickle"] = None  # as if it were not installed
    try:
        pool.submit(double, 1)
    except TaskSerializationError as error:
        print(error)
    del sys.modules["cloudpickle"]
    print(pool.submit(triple, 5).result(), list(map_ordered(pool, triple, range(3))))
    print(innocent.result(), pool.submit(abs, -8).result())
"""


@pytest.mark.parametrize("how", ["-c", "-"])
def test_functions_of_an_interactive_main_need_cloudpickle(
    start_script: StartScript, how: str
) -> None:
    script = start_script(INTERACTIVE, how=how)
    script.check()
    refusal, *rest = script.output.splitlines()
    assert "double" in refusal
    assert "pip install 'poolkit[cloudpickle]'" in refusal
    assert rest == ["15 [0, 3, 6]", "7 8"]


UNGUARDED = """\
import os
import sys

descriptor = os.open("runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(descriptor, b"x")
os.close(descriptor)
sys.modules["cloudpickle"] = {cloudpickle}

from poolkit import make_executor

def double(x):
    return 2 * x

pool = make_executor("process", 2)
print(pool.submit(double, 4).result(), pool.submit(abs, -3).result())
pool.shutdown()
"""


def test_a_function_that_was_replaced_is_not_called_by_its_name(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that starts later finds what took its place in the module."""

    def impostor(value: object) -> str:
        return f"not {value}"

    echo = cargo.echo
    impostor.__module__, impostor.__qualname__ = echo.__module__, echo.__qualname__
    pool = make_pool(1, start_method="fork")
    assert pool.submit(echo, 1).result() == 1
    monkeypatch.setattr(cargo, "echo", impostor)
    assert crash_of(pool.submit(tasks.exit_now, 1)).exit_code == 1
    assert pool.submit(echo, 2).result() == 2
    assert pool.submit(impostor, 3).result() == "not 3"


@pytest.mark.parametrize("installed", [False, True])
def test_a_script_without_a_guard_is_no_fork_bomb(
    start_script: StartScript, installed: bool
) -> None:
    """It says what is wrong, and ends; or just works."""
    cloudpickle = "__import__('cloudpickle')" if installed else "None"
    script = start_script(UNGUARDED.replace("{cloudpickle}", cloudpickle))
    if script.end() == 0:
        assert script.output.split() == ["8", "3"]
    else:
        assert 'if __name__ == "__main__"' in script.errors.replace("'", '"')
    assert len((script.folder / "runs").read_bytes()) <= 12
