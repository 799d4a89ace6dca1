"""Large buffers travel in segments of shared memory: whole, safely, and leaving nothing behind."""

import array
import contextlib
import gc
import importlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from poolkit import (
    Retry,
    TaskSerializationError,
    WorkerCrashedError,
    make_executor,
    map_ordered,
    map_outcomes,
    map_unordered,
)
from poolkit.backends.process import lending

from ..tasks import GateKeeper, keywords
from . import cargo, tasks
from .cargo import Block, Sheet
from .census import LIMIT, descriptors
from .helpers import (
    Innocents,
    MakePool,
    StartScript,
    crash_of,
    kill_parent_at_each,
    kill_worker_at_each,
)

np: Any = None
with contextlib.suppress(ImportError):  # here, as it starts a thread that stays
    np = importlib.import_module("numpy")

pytestmark = pytest.mark.timeout(100)

SIZE: Final = 1 << 20
NAME: Final = "poolkit-buffers"

same = b"#" * SIZE


def sheet(number: int, size: int = SIZE) -> Sheet:
    return Sheet(bytearray([number]) * size)


def segments(pid: int | str = "self") -> int:
    """Count a process' descriptors of segments."""
    return sum(NAME in target for target in descriptors(pid))


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what comes by itself, for as long as anything may take."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "it has not come"
        time.sleep(0.005)


# -- whole ----------------------------------------------------------------------------------


VALUES: Final[dict[str, Any]] = {
    "bytes": os.urandom(SIZE),
    "bytearray": bytearray(os.urandom(SIZE)),
    "text": "é" * SIZE,
    "array": array.array("d", range(SIZE // 8)),
    "nested bytes": [same, same, {"in": (same, 1)}],
    "dictionary": {"a": bytearray(SIZE), "b": os.urandom(SIZE), "c": None},
    "buffer, copied": Block(os.urandom(SIZE)),
    "buffer": sheet(7),
    "buffer to be read only": Sheet(os.urandom(SIZE)),
    "buffer of floats": Sheet(array.array("d", range(SIZE // 8))),
    "buffers of all sizes": [Sheet(b""), sheet(3), Sheet(b"small"), sheet(4, 3 * SIZE)],
    "many buffers": [sheet(number, 300_000) for number in range(20)],
    "many small things": [list(range(200_000))],
    "just too small": Sheet(bytes((1 << 18) - 1)),
    "just large enough": Sheet(bytes(1 << 18)),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_what_arrives_is_what_was_sent(make_pool: MakePool, value: Any) -> None:
    pool = make_pool(1)
    result = pool.submit(cargo.echo, value).result()
    assert type(result) is type(value)
    assert result == value
    (outcome,) = map_outcomes(pool, cargo.echo, [value])
    assert outcome.unwrap() == value
    assert pool.submit(keywords, value, key=value).result() == ((value,), {"key": value})


def test_an_object_that_is_sent_twice_in_one_task_stays_one(make_pool: MakePool) -> None:
    data = bytearray(SIZE)
    one, two, (three,) = make_pool(1).submit(cargo.echo, [data, data, [data]]).result()
    assert one is two is three


@pytest.mark.skipif(np is None, reason="needs numpy")
@pytest.mark.parametrize("order", ["C", "F", "strided", "read only", "0-d", "empty", "records"])
def test_arrays_of_numpy(make_pool: MakePool, order: str) -> None:
    values = np.arange(512 * 512, dtype=float).reshape(512, 512)
    sent = {
        "C": lambda: values,
        "F": lambda: np.asfortranarray(values),
        "strided": lambda: values[::2, ::-3],
        "read only": lambda: np.frombuffer(values.tobytes()).reshape(512, 512),
        "0-d": lambda: np.array(3.5),
        "empty": lambda: np.zeros((0, 5)),
        "records": lambda: np.zeros(100_000, dtype=[("a", "i4"), ("b", "f8")]),
    }[order]()
    for result in (
        make_pool(1).submit(cargo.echo, sent).result(),
        make_pool(1).submit(cargo.echo, [sent]).result()[0],
    ):
        assert result.dtype == sent.dtype
        assert result.shape == sent.shape
        assert (result == sent).all()
        assert result.flags.writeable == sent.flags.writeable


def test_large_buffers_are_mapped_in_both_directions(make_pool: MakePool) -> None:
    """Or this module tests nothing."""
    pool = make_pool(1)
    assert pool.submit(cargo.is_mapped, sheet(1)).result()
    assert pool.submit(cargo.make_sheet, 1, SIZE).result().is_mapped
    assert not pool.submit(cargo.is_mapped, Sheet(bytes(1000))).result()


# -- safely -----------------------------------------------------------------------------------


def test_a_buffer_can_be_changed_after_submit(make_pool: MakePool, gate: GateKeeper) -> None:
    pool = make_pool(1)
    held = pool.submit(gate.gate.hold)
    gate.wait_started()
    mine, data = sheet(1), bytearray(SIZE)
    futures = [pool.submit(cargo.number, mine), pool.submit(cargo.echo, data)]
    mine.data[:] = b"\2" * SIZE
    data[:] = b"\3" * SIZE
    gate.open()
    assert held.result() is None
    assert futures[0].result() == 1
    assert futures[1].result() == bytes(SIZE)


def test_what_arrives_can_be_written_to_and_is_the_receivers_own(make_pool: MakePool) -> None:
    pool = make_pool(2)
    mine = sheet(5)
    for _ in range(4):
        theirs = pool.submit(cargo.overwrite, mine).result()
        assert cargo.number(theirs) == 0
        theirs.data[:] = b"\6" * SIZE
        assert cargo.number(mine) == 5
        assert cargo.number(pool.submit(cargo.echo, mine).result()) == 5
        assert cargo.number(theirs) == 6


@pytest.mark.parametrize("workers", [1, 2])
def test_memory_with_views_on_it_is_not_used_again(make_pool: MakePool, workers: int) -> None:
    pool = make_pool(workers)
    mine = [pool.submit(cargo.make_sheet, number, SIZE).result() for number in range(20)]
    for number, other in enumerate(map_ordered(pool, cargo.echo, map(sheet, [99] * 150))):
        assert cargo.number(other) == 99
        if number % 10 == 0:
            assert [cargo.number(each) for each in mine] == list(range(20))


def test_memory_with_views_on_it_in_a_worker_is_not_used_again(make_pool: MakePool) -> None:
    pool = make_pool(1)
    futures = [pool.submit(cargo.keep, sheet(number)) for number in range(80)]
    assert [future.result() for future in futures] == list(range(80))
    for other in map_ordered(pool, cargo.echo, map(sheet, [99] * 150)):
        assert cargo.number(other) == 99
    assert pool.submit(cargo.numbers_kept).result() == list(range(80))


def test_views_outlive_their_pool(make_pool: MakePool) -> None:
    with make_executor("process", 2) as pool:
        sheets = list(map_ordered(pool, cargo.make_sheet, range(30), [SIZE] * 30))
        pool.kill_workers()
    with make_executor("process", 2) as pool:
        for other in map_ordered(pool, cargo.make_sheet, [99] * 60, [SIZE] * 60):
            assert cargo.number(other) == 99
    assert [cargo.number(each) for each in sheets] == list(range(30))


def test_what_a_forked_child_has_inherited_stays_as_it_was(make_pool: MakePool) -> None:
    pool = make_pool(1)
    sheets = [pool.submit(cargo.make_sheet, number, SIZE).result() for number in range(4)]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(writer)
            os.read(reader, 1)
            code = 0 if [cargo.number(each) for each in sheets] == list(range(4)) else 2
        finally:
            os._exit(code)
    os.close(reader)
    sheets.clear()
    for _ in range(30):
        assert cargo.number(pool.submit(cargo.make_sheet, 99, SIZE).result()) == 99
    os.close(writer)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_views_in_a_cycle_that_the_collector_finds(make_pool: MakePool) -> None:
    """What its finalizers read is still there."""
    pool = make_pool(1)
    seen: list[int] = []

    class Node:
        def __init__(self, number: int) -> None:
            self.sheet = pool.submit(cargo.make_sheet, number, SIZE).result()
            self.me = self

        def __del__(self) -> None:
            for _ in range(6):
                pool.submit(cargo.make_sheet, 99, SIZE).result()
            seen.append(cargo.number(self.sheet))

    for number in range(3):
        node = Node(number)
        del node
        gc.collect()
    assert seen == [0, 1, 2]


# -- where there is no room --------------------------------------------------------------------

NO_ROOM = """\
import os
import resource

from poolkit import make_executor, map_outcomes
from tests.faults import cargo

SIZE = 1 << 20


def check(pool):
    futures = [pool.submit(cargo.echo, cargo.make_sheet(n, SIZE)) for n in range(8)]
    futures += [pool.submit(cargo.make_sheet, n, SIZE) for n in range(8, 16)]
    assert [cargo.number(future.result()) for future in futures] == list(range(16))
    sheets = [cargo.make_sheet(n, SIZE) for n in range(9)]
    for outcome in map_outcomes(pool, cargo.echo, sheets, chunksize=3):
        assert cargo.number(outcome.unwrap()) == outcome.index
    data = bytearray(SIZE)
    assert pool.submit(cargo.echo, [data, data]).result() == [data, data]
    assert not pool.submit(cargo.overwrite, cargo.make_sheet(1, SIZE)).result().data[0]


if __name__ == "__main__":
    {limit}
    print("done")
"""

FULL_MEMORY = """
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, SIZE // 2))
    with make_executor("process", 2) as pool:
        assert not pool.submit(cargo.is_mapped, cargo.make_sheet(1, SIZE)).result()
        check(pool)
"""

NO_DESCRIPTORS = """
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    with make_executor("process", 2) as pool:
        check(pool)
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        check(pool)
        for descriptor in taken:
            os.close(descriptor)
        check(pool)
"""

NO_DESCRIPTORS_IN_WORKERS = """
    def leave_none():
        resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
        try:
            while True:
                os.dup(0)
        except OSError:
            pass

    with make_executor("process", 2, start_method="fork", initializer=leave_none) as pool:
        check(pool)
"""

NO_ADDRESSES = """
    kept = []
    with make_executor("process", 2) as pool:
        for n in range(400):  # more than may be mapped at once where that takes a descriptor
            kept.append(pool.submit(cargo.make_sheet, n % 200, SIZE // 4).result())
        assert [cargo.number(sheet) for sheet in kept] == [n % 200 for n in range(400)]
        check(pool)
"""


@pytest.mark.parametrize(
    "limit",
    [FULL_MEMORY, NO_DESCRIPTORS, NO_DESCRIPTORS_IN_WORKERS, NO_ADDRESSES],
    ids=["memory", "descriptors", "a worker's descriptors", "mappings"],
)
def test_without_room_for_segments_the_socket_has_it_all(
    start_script: StartScript, limit: str
) -> None:
    script = start_script(NO_ROOM.replace("{limit}", limit))
    script.check()
    assert script.output == "done\n"


INTERACTIVE = """\
from poolkit import make_executor

class Local:
    def __init__(self, data):
        self.data = data

def echo(value):
    return value

with make_executor("process", 1) as pool:
    for value in (b"x" * (1 << 20), bytearray(1 << 20)):
        assert pool.submit(echo, value).result() == value
    assert pool.submit(echo, [Local(bytes(1 << 20))]).result()[0].data == bytes(1 << 20)
    assert pool.submit(echo, (Local(1), bytes(1 << 20))).result()[1] == bytes(1 << 20)
print("done")
"""


def test_large_values_with_an_interactive_main(start_script: StartScript) -> None:
    pytest.importorskip("cloudpickle")
    script = start_script(INTERACTIVE, how="-c")
    script.check()
    assert script.output == "done\n"


# -- whoever dies -----------------------------------------------------------------------------


def run_scenario(start_method: str) -> list[Any]:
    """Send segments to and fro; return results and errors."""
    with make_executor("process", 2, start_method=start_method, kill_grace=0.1) as pool:
        futures = [pool.submit(cargo.echo, sheet(number)) for number in range(4)]
        chunk = map_outcomes(pool, cargo.echo, map(sheet, range(4, 10)), chunksize=3)
        endings = [outcome.error or outcome.value for outcome in _by_index(chunk)]
        return [future.exception() or future.result() for future in futures] + endings


def _by_index(outcomes: Iterator[Any]) -> list[Any]:
    return sorted(outcomes, key=lambda outcome: outcome.index)


def check(endings: list[Any], *, crashes: int) -> None:
    crashed = [each for each in endings if isinstance(each, WorkerCrashedError)]
    assert len(crashed) <= crashes
    for number, ending in enumerate(endings):
        assert ending in crashed or cargo.number(ending) == number


def test_a_worker_killed_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = kill_worker_at_each(
        itertools.count(1),
        tmp_path,
        monkeypatch,
        lambda: check(run_scenario("fork"), crashes=1),
    )
    assert step > 20, "the steps are not counted"


def test_the_parent_killed_at_any_step(tmp_path: Path) -> None:
    step = kill_parent_at_each(tmp_path, lambda: check(run_scenario("fork"), crashes=0))
    assert step > 20, "the steps are not counted"


def test_a_death_costs_its_own_task(make_pool: MakePool, innocents: Innocents) -> None:
    pool = make_pool()
    with innocents(pool):
        for _ in range(3):
            deadly = [sheet(1), cargo.DeadlyArgument(7)]
            others = [pool.submit(cargo.echo, sheet(number)) for number in range(5)]
            assert crash_of(pool.submit(cargo.echo, deadly)).exit_code == 7
            assert [cargo.number(other.result()) for other in others] == list(range(5))


def test_what_was_sent_is_sent_again_as_it_was(
    make_pool: MakePool, tmp_path: Path, start_method: str
) -> None:
    """A task that is tried again, in another process, on what the first has overwritten."""
    pool = make_pool(2, start_method=start_method)
    retrying = pool.with_options(retry=Retry(attempts=3, wait=0, jitter=False))
    mine = sheet(8)
    future = retrying.submit(cargo.spoil_and_die, mine, tmp_path / "died")
    mine.data[:] = b"\1" * SIZE
    assert future.result() == 8


# -- leaving nothing behind ---------------------------------------------------------------------


def test_thousands_of_transfers_leave_nothing(make_pool: MakePool, gate: GateKeeper) -> None:
    pool = make_pool(1)
    pid, _ = pool.submit(tasks.pid_and_group).result()
    most = 0
    for result in map_unordered(pool, cargo.echo, (sheet(1, 1 << 18) for _ in range(3000))):
        del result
        most = max(most, segments(), segments(pid))
    assert most <= 130
    assert pool.submit(tasks.pid_and_group).result()[0] == pid
    # What is kept for the next transfer is given back when there is none.
    wait_until(lambda: segments() + segments(pid) == 0)
    assert cargo.number(pool.submit(cargo.echo, sheet(2)).result()) == 2


def test_an_endless_input_of_arrays_takes_bounded_memory(make_pool: MakePool) -> None:
    pool = make_pool(2)
    pulled = most = 0

    def generate() -> Iterator[Sheet]:
        nonlocal pulled
        while True:
            pulled += 1
            yield sheet(1, 4 * SIZE)

    results = map_unordered(pool, cargo.number, generate())
    for yielded in range(100):
        assert next(results) == 1
        most = max(most, pulled - yielded)
    results.close()
    assert most < 40, "chunks must not be of 2 ms, but of 8 MiB"


def test_items_that_were_not_run_leave_nothing(make_pool: MakePool, gate: GateKeeper) -> None:
    pool = make_pool(1)
    held = pool.submit(gate.gate.hold)
    gate.wait_started()
    futures = [pool.submit(cargo.echo, sheet(number)) for number in range(20)]
    assert segments() >= 20
    assert all(future.cancel() for future in futures)
    gate.open()
    assert held.result() is None
    wait_until(lambda: segments() == 0)


def test_one_of_a_chunk_that_cannot_be_pickled_fails_alone(make_pool: MakePool) -> None:
    items = [sheet(1), [sheet(2), len], [sheet(3), threading.Lock()], 4]
    outcomes = map_outcomes(make_pool(1), cargo.echo, items, chunksize=4)
    by_index = _by_index(outcomes)
    assert [outcome.ok for outcome in by_index] == [True, True, False, True]
    assert cargo.number(by_index[0].value) == 1
    assert isinstance(by_index[2].error, TaskSerializationError)


def test_no_view_of_a_task_that_can_not_be_sent_is_left_to_the_collector(
    make_pool: MakePool,
) -> None:
    content = bytearray(SIZE)
    argument = Sheet(content)
    gc.disable()
    try:
        with pytest.raises(TaskSerializationError) as caught:
            make_pool(1).submit(keywords, argument, key=threading.Lock())
        argument.data.release()
        content.append(0)  # a BufferError, if there is a view
    finally:
        gc.enable()
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("room", [True, False], ids=["segment", "no segment"])
def test_no_view_of_a_chunk_that_fails_in_part_is_left_to_the_collector(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    """It crashes CPython 3.11 and 3.12, if it clears a view before a `PickleBuffer` on it."""
    if not room:

        def fill(*_: object) -> None:
            raise OSError("no memory")

        monkeypatch.setattr(lending.Store, "fill", fill)
    contents = [bytearray(SIZE) for _ in range(3)]
    sheets = [Sheet(content) for content in contents]
    # From a generator: where the length is known, chunks are smaller towards the end.
    items = (item for item in [sheets[0], [sheets[1], len], [sheets[2], threading.Lock()]])
    gc.disable()
    try:
        pool = make_pool(1)
        outcomes = _by_index(map_outcomes(pool, cargo.echo, items, chunksize=3))
        for each in sheets:
            each.data.release()
        for content in contents:
            content.append(0)  # a BufferError, if there is a view
    finally:
        gc.enable()
    assert [outcome.ok for outcome in outcomes] == [True, True, False]
