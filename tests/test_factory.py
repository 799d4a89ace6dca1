"""The switch: every kind, every wrong argument, and what is registered or installed."""

import concurrent.futures
import importlib.metadata
import itertools
import math
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import poolkit
from poolkit import (
    PoolExecutor,
    UnsupportedError,
    _factory,
    make_executor,
    map_ordered,
    map_outcomes,
    map_unordered,
    register_executor,
)
from poolkit._map import ResultIterator

from . import tasks


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """Whatever a test does with the switch, no thread and no process stays behind."""
    threads = set(threading.enumerate())
    processes = set(multiprocessing.active_children())
    yield
    assert set(threading.enumerate()) <= threads
    assert set(multiprocessing.active_children()) <= processes


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no kind outlive its test."""
    monkeypatch.setattr(_factory, "_registered", {})


# -- kinds ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "known_as", "workers"),
    [
        ("inline", "inline", None),
        ("inline", "inline", 1),
        ("thread", "thread", 3),
        ("io", "thread", 3),
        ("process", "process", 2),
        ("cpu", "process", 2),
    ],
)
def test_kinds_and_intents(kind: str, known_as: str, workers: int | None) -> None:
    with make_executor(kind, workers) as pool:
        assert isinstance(pool, Executor)
        assert pool.kind == known_as
        assert pool.max_workers == (workers or 1)
        assert pool.submit(tasks.square, 3).result() == 9
        assert known_as in repr(pool)
    assert "shut down" in repr(pool)


def test_default_workers() -> None:
    cpus = poolkit.available_cpus()
    with make_executor("process") as pool:
        assert pool.max_workers == cpus
    with make_executor("thread") as pool:
        assert pool.max_workers == min(32, cpus + 4)


def test_an_index_will_do_for_an_int() -> None:
    class Index:
        def __index__(self) -> int:
            return 3

    with make_executor("thread", Index()) as pool:  # type: ignore[arg-type]
        assert pool.max_workers == 3


def test_pools_have_names_of_their_own() -> None:
    with make_executor("thread", 1) as one, make_executor("thread", 1) as other:
        assert repr(one) != repr(other)


@pytest.mark.parametrize(
    ("kind", "nearest"),
    [
        ("thraed", "thread"),
        ("Thread", "thread"),
        ("threads", "thread"),
        ("PROCESS", "process"),
        ("proces", "process"),
        ("in-line", "inline"),
    ],
)
def test_unknown_kind_suggests_the_nearest(kind: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"unknown kind '{kind}'. Did you mean '{nearest}'?"):
        make_executor(kind)


@pytest.mark.parametrize("kind", ["", "xyzzy", "12345"])
def test_unknown_kind_lists_the_known(kind: str) -> None:
    register_executor("grid", Recorder())
    with pytest.raises(ValueError, match="unknown kind") as caught:
        make_executor(kind)
    message = str(caught.value)
    for known in ("cpu", "grid", "inline", "io", "process", "thread"):
        assert known in message
    assert "Did you mean" not in message


@pytest.mark.parametrize("kind", [None, 3, b"thread", ["thread"], ThreadPoolExecutor])
def test_kind_of_a_wrong_type(kind: Any) -> None:
    with pytest.raises(TypeError, match="kind must be a name or an Executor, not "):
        make_executor(kind)
    with pytest.raises(TypeError, match="must be an executor or a kind's name, not "):
        map_unordered(kind, tasks.square, [1])


# -- options --------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"max_workers": 0}, ValueError, "max_workers must be greater than 0, not 0"),
    ({"max_workers": -1}, ValueError, "max_workers must be greater than 0, not -1"),
    ({"max_workers": 1.5}, TypeError, "max_workers must be an int greater than 0, not 1.5"),
    ({"max_workers": "2"}, TypeError, "max_workers must be an int greater than 0, not '2'"),
    ({"max_workers": True}, TypeError, "max_workers must be an int greater than 0, not True"),
    ({"task_timeout": 0}, ValueError, "task_timeout must be more than 0 seconds"),
    ({"task_timeout": -1.5}, ValueError, "task_timeout must be more .*, not -1.5"),
    ({"task_timeout": math.nan}, ValueError, "task_timeout must be more .*, not nan"),
    ({"task_timeout": "x"}, TypeError, "task_timeout must be a number of seconds .*, not 'x'"),
    ({"task_timeout": True}, TypeError, "task_timeout must be a number of seconds"),
    ({"when_full": "drop"}, ValueError, "when_full must be 'block' or 'raise', not 'drop'"),
    ({"when_full": None}, ValueError, "when_full must be 'block' or 'raise', not None"),
    ({"max_pending": 0}, ValueError, "max_pending must be greater than 0, not 0"),
    ({"max_pending": 2.0}, TypeError, "max_pending must be an int greater than 0, not 2.0"),
    ({"max_pending": False}, TypeError, "max_pending must be an int greater than 0, not False"),
    ({"initializer": 3}, TypeError, "initializer must be callable, not 3"),
    ({"initargs": [1]}, TypeError, r"initargs must be a tuple, not \[1\]"),
    ({"initializer": print, "initargs": "x"}, TypeError, "initargs must be a tuple, not 'x'"),
    ({"max_worker": 3}, TypeError, "does not know the option 'max_worker'"),
]


@pytest.mark.parametrize(
    ("options", "error", "message"), WRONG, ids=[str(options) for options, *_ in WRONG]
)
@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_wrong_options(
    kind: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = threading.active_count()
    with pytest.raises(error, match=message) as caught:
        make_executor(kind, **options)
    assert not isinstance(caught.value, UnsupportedError)
    assert threading.active_count() == before
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    WRONG[5:-4],
    ids=[str(options) for options, *_ in WRONG[5:-4]],
)
def test_wrong_options_of_adapted_executors_and_views(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with ThreadPoolExecutor(1) as other, make_executor("thread", 1) as pool:
        with pytest.raises(error, match=message):
            make_executor(other, **options)
        with pytest.raises(error, match=message):
            make_executor(pool, **options)
        if options != {"when_full": None}:
            with pytest.raises(error, match=message):
                pool.with_options(**options)
        assert other.submit(tasks.square, 2).result() == 4
        assert pool.submit(tasks.square, 2).result() == 4


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("inline", "options of this kind: none"),
        ("thread", "options of this kind: thread_name_prefix, max_abandoned"),
        (
            "process",
            "max_tasks_per_child, max_worker_memory, kill_grace",
        ),
        ("io", "options of this kind: thread_name_prefix, max_abandoned"),
    ],
)
def test_an_unknown_option_is_named(kind: str, known: str) -> None:
    with pytest.raises(TypeError, match=rf"make_executor\('{kind}'\) .* 'no_such'; .*{known}$"):
        make_executor(kind, no_such=1)


def test_an_option_of_another_kind_is_unknown() -> None:
    with pytest.raises(TypeError, match="'start_method'"):
        make_executor("thread", start_method="spawn")
    with pytest.raises(TypeError, match="'max_abandoned'"):
        make_executor("process", max_abandoned=3)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("inline", {"max_workers": 2}, "'inline' kind does not support max_workers=2"),
    ],
)
def test_what_a_kind_can_not_do(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        make_executor(kind, **options)


def test_no_verb_gives_a_time_limit_to_a_kind_without() -> None:
    with ProcessPoolExecutor(1) as other, make_executor(other) as pool:
        with pytest.raises(UnsupportedError, match="task_timeout=1"):
            pool.with_options(task_timeout=1)
        with pytest.raises(UnsupportedError, match="task_timeout=1"):
            map_unordered(pool, tasks.square, [1], task_timeout=1)
        with pytest.raises(UnsupportedError, match="task_timeout=1"):
            map_unordered(other, tasks.square, [1], task_timeout=1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_workers": 3}, "max_workers"),
        ({"initializer": print}, "initializer"),
        ({"thread_name_prefix": "x"}, "thread_name_prefix"),
        ({"max_workers": 3, "start_method": "spawn"}, "max_workers and start_method"),
    ],
)
def test_an_existing_executor_has_its_workers(options: dict[str, Any], named: str) -> None:
    with ThreadPoolExecutor(1) as other, make_executor("thread", 1) as pool:
        with pytest.raises(UnsupportedError, match=f"'ThreadPoolExecutor' .* support {named};"):
            make_executor(other, **options)
        with pytest.raises(UnsupportedError, match=f"'thread' .* support {named};"):
            make_executor(pool, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_abandoned": 0}, ValueError, "max_abandoned must be greater than 0, not 0"),
        ({"max_abandoned": "1"}, TypeError, "max_abandoned must be an int"),
    ],
)
def test_wrong_options_of_threads(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_executor("thread", **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start_method": "teleport"}, ValueError, "start_method must be one of .*spawn.*'tele"),
        ({"start_method": 3}, ValueError, "start_method must be one of .*, not 3"),
        (
            {"start_method": "spawn", "mp_context": multiprocessing.get_context("spawn")},
            ValueError,
            "start_method or mp_context, not both",
        ),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be greater than 0"),
        ({"max_tasks_per_child": True}, TypeError, "max_tasks_per_child must be an int"),
        ({"max_worker_memory": 0}, ValueError, "max_worker_memory must be greater than 0"),
        ({"max_worker_memory": "1G"}, TypeError, "max_worker_memory must be an int"),
        ({"kill_grace": -1}, ValueError, "kill_grace must be at least 0"),
        ({"kill_grace": "1"}, TypeError, "kill_grace must be a number of seconds"),
        (
            {"max_tasks_per_child": 1, "start_method": "fork"},
            ValueError,
            "max_tasks_per_child",
        ),
    ],
)
def test_wrong_options_of_processes(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_executor("process", **options)


@pytest.mark.parametrize("how", ["start_method", "mp_context"])
def test_how_processes_start(how: str) -> None:
    option: Any = "spawn" if how == "start_method" else multiprocessing.get_context("spawn")
    with make_executor("process", 1, **{how: option}) as pool:
        assert pool.submit(start_method).result() == "spawn"


def start_method() -> str | None:
    return multiprocessing.get_start_method(allow_none=True)


def test_processes_are_not_forked_from_threads() -> None:
    with make_executor("process", 1) as pool:
        assert pool.submit(start_method).result() != "fork"


@pytest.mark.parametrize("kind", ["inline", "thread"])
def test_workers_that_can_not_be_ended(kind: str) -> None:
    with make_executor(kind) as pool:
        with pytest.raises(UnsupportedError, match=r"terminate_workers\(\)"):
            pool.terminate_workers()
        with pytest.raises(UnsupportedError, match=r"kill_workers\(\)"):
            pool.kill_workers()
        assert pool.submit(tasks.square, 2).result() == 4


def test_a_view_does_not_end_the_workers_of_its_pool() -> None:
    with make_executor("process", 1) as pool:
        with pytest.raises(UnsupportedError, match="on the pool itself"):
            pool.with_options(task_timeout=5).kill_workers()
        assert pool.submit(tasks.square, 2).result() == 4


def test_processes_retire() -> None:
    with make_executor("process", 1, max_tasks_per_child=1) as pool:
        pids = {pool.submit(tasks.worker_id).result()[0] for _ in range(3)}
    assert len(pids) == 3


# -- initializers ---------------------------------------------------------------------------

_state: list[object] = []


def set_up(*args: object) -> None:
    _state[:] = args


def state(_x: object = None) -> list[object]:
    return list(_state)


def fail_to_set_up() -> None:
    raise OSError("no licence")


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_initializer(kind: str) -> None:
    with make_executor(kind, 1, initializer=set_up, initargs=(1, "two")) as pool:
        assert pool.submit(state).result() == [1, "two"]
        assert list(pool.map(state, range(3))) == [[1, "two"]] * 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", ["inline", "thread"])
def test_a_failing_initializer_breaks_the_pool(kind: str) -> None:
    with make_executor(kind, 1, initializer=fail_to_set_up) as pool:
        for _ in range(3):
            with pytest.raises(poolkit.PoolBrokenError, match="initializer failed") as caught:
                pool.submit(tasks.square, 1).result()
            assert isinstance(caught.value.__cause__, OSError)


# -- registered and installed kinds ---------------------------------------------------------


class Recorder:
    """A factory that remembers what it was called with and what it made."""

    def __init__(self) -> None:
        self.calls: list[tuple[int | None, dict[str, Any]]] = []
        self.made: list[ThreadPoolExecutor] = []

    def __call__(self, max_workers: int | None, **options: Any) -> Executor:
        self.calls.append((max_workers, dict(options)))
        options.pop("colour", None)
        self.made.append(ThreadPoolExecutor(max_workers, **options))
        return self.made[-1]


def is_open(pool: Executor) -> bool:
    try:
        return pool.submit(tasks.square, 2).result() == 4
    except RuntimeError:
        return False


def test_a_registered_kind() -> None:
    factory = Recorder()
    register_executor("grid", factory)
    with make_executor("grid", 2, max_pending=5) as pool:
        assert pool.kind == "grid"
        assert pool.max_workers == 2
        assert pool.submit(tasks.square, 3).result() == 9
        assert sorted(map_unordered(pool, tasks.square, range(20))) == [n * n for n in range(20)]
        assert is_open(factory.made[0])
    assert not is_open(factory.made[0]), "a pool that the switch has made is the switch's own"
    assert factory.calls == [(2, {})]


def test_a_registered_kind_gets_its_options() -> None:
    factory = Recorder()
    register_executor("grid", factory)
    make_executor("grid", colour="red").shutdown()
    make_executor("grid", 1, initializer=set_up, initargs=(7,)).shutdown()
    assert factory.calls == [
        (None, {"colour": "red"}),
        (1, {"initializer": set_up, "initargs": (7,)}),
    ]


def test_a_registered_class() -> None:
    register_executor("std", ThreadPoolExecutor)  # type: ignore[arg-type]
    with make_executor("std", 2, thread_name_prefix="mine") as pool:
        assert pool.submit(lambda: threading.current_thread().name).result() == "mine_0"
    with pytest.raises(TypeError, match="no_such"):
        make_executor("std", no_such=1)


def test_a_registered_kind_works_by_name_in_a_verb() -> None:
    factory = Recorder()
    register_executor("grid", factory)
    assert list(poolkit.map_ordered("grid", tasks.square, range(5))) == [0, 1, 4, 9, 16]
    assert len(factory.made) == 1
    assert not is_open(factory.made[0])


def test_a_pool_made_in_vain_is_shut_down() -> None:
    factory = Recorder()
    register_executor("grid", factory)
    with pytest.raises(ValueError, match="max_pending"):
        make_executor("grid", max_pending=0)
    assert not any(map(is_open, factory.made))


@pytest.mark.parametrize("name", ["thread", "process", "inline", "io", "cpu"])
def test_built_in_names_are_taken(name: str) -> None:
    with pytest.raises(ValueError, match=f"the kind '{name}' exists already"):
        register_executor(name, Recorder())


def test_a_name_stands_for_one_factory() -> None:
    factory = Recorder()
    register_executor("grid", factory)
    register_executor("grid", factory)
    with pytest.raises(ValueError, match="the kind 'grid' exists already"):
        register_executor("grid", Recorder())
    make_executor("grid").shutdown()
    assert len(factory.calls) == 1


@pytest.mark.parametrize("name", ["", "two words", "-x", ".", "grid\n"])
def test_names_are_words(name: str) -> None:
    with pytest.raises(ValueError, match="name must be a word"):
        register_executor(name, Recorder())


@pytest.mark.parametrize("name", [None, 3, b"grid"])
def test_names_are_text(name: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="name must be"):
        register_executor(name, Recorder())


def test_factories_are_callable() -> None:
    with pytest.raises(TypeError, match="factory must be callable"):
        register_executor("grid", None)  # type: ignore[arg-type]


@pytest.mark.parametrize("made", [None, 3, ThreadPoolExecutor])
def test_a_factory_that_makes_no_executor(made: Any) -> None:
    def make(max_workers: int | None, **options: Any) -> Executor:
        return made  # type: ignore[no-any-return]

    register_executor("grid", make)
    with pytest.raises(TypeError, match=r"the factory of the grid pool .* is no Executor"):
        make_executor("grid")


def test_what_a_factory_raises_is_raised() -> None:
    def refuse(max_workers: int | None, **options: Any) -> Executor:
        raise ConnectionError("no grid")

    register_executor("grid", refuse)
    with pytest.raises(ConnectionError, match="no grid"):
        make_executor("grid")


INSTALLED = """\
from concurrent.futures import ThreadPoolExecutor

def make(max_workers, **options):
    return ThreadPoolExecutor(max_workers, thread_name_prefix="installed")

raise_at_import = 1
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a distribution with an entry point, as pip would."""

    def install_module(name: str) -> None:
        module = f"module_of_{name}"
        (tmp_path / f"{module}.py").write_text(INSTALLED)
        folder = tmp_path / f"{module}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[poolkit.executors]\n{name} = {module}:make\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    monkeypatch.syspath_prepend(tmp_path)
    return install_module


def test_an_installed_kind(install: Callable[[str], None]) -> None:
    install("cluster")
    assert "module_of_cluster" not in sys.modules
    with make_executor("cluster", 1) as pool:
        assert pool.kind == "cluster"
        name = pool.submit(lambda: threading.current_thread().name).result()
        assert name == "installed_0"
    with pytest.raises(ValueError, match="Did you mean 'cluster'"):
        make_executor("clutser")


@pytest.mark.skipif(
    sys.version_info >= (3, 14) and find_spec("sample_kind") is None,
    reason="the sample is not installed",
)
def test_a_kind_from_an_installed_package() -> None:
    """The package is in tests/sample_kind; it is installed with what the tests need."""
    with make_executor("crew", 3, captain="ahab", max_pending=10) as pool:
        assert (pool.kind, pool.max_workers) == ("crew", 3)
        assert pool.submit(lambda: threading.current_thread().name).result().startswith("ahab-")
        assert list(map_ordered(pool, abs, range(-5, 0))) == [5, 4, 3, 2, 1]
    assert not [t for t in threading.enumerate() if t.name.startswith("ahab")]
    with pytest.raises(TypeError, match="skipper"):
        make_executor("crew", skipper="ahab")


def test_registering_goes_before_installing(install: Callable[[str], None]) -> None:
    install("cluster2")
    factory = Recorder()
    register_executor("cluster2", factory)
    make_executor("cluster2").shutdown()
    assert len(factory.calls) == 1


def test_installed_kinds_are_not_loaded_in_vain(
    install: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("cluster3")
    with pytest.raises(ValueError, match="cluster3, cpu"):
        make_executor("unheard-of")
    assert "module_of_cluster3" not in sys.modules

    def refuse(**_: Any) -> None:
        raise AssertionError("looked at the installed packages for a built-in kind")

    monkeypatch.setattr(importlib.metadata, "entry_points", refuse)
    make_executor("thread").shutdown()


# -- whose pool it is -----------------------------------------------------------------------


def test_an_adapted_executor_stays_open() -> None:
    with ThreadPoolExecutor(2) as other:
        with make_executor(other) as pool:
            assert pool.kind == "adapted ThreadPoolExecutor"
            assert pool.max_workers == 2
            future = pool.submit(tasks.square, 3)
        assert future.result() == 9
        with pytest.raises(poolkit.PoolShutdownError):
            pool.submit(tasks.square, 3)
        assert is_open(other)
        assert sorted(map_unordered(other, tasks.square, range(5))) == [0, 1, 4, 9, 16]
        assert is_open(other)


def test_an_adapted_executor_that_is_closed() -> None:
    other = ThreadPoolExecutor(1)
    other.shutdown()
    pool = make_executor(other)
    with pytest.raises(poolkit.PoolShutdownError):
        pool.submit(tasks.square, 1)
    pool.shutdown()


def test_an_executor_without_a_size() -> None:
    class Direct(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            future: concurrent.futures.Future[Any] = concurrent.futures.Future()
            future.set_result(fn(*args, **kwargs))
            return future

    with make_executor(Direct()) as pool:
        assert pool.max_workers == poolkit.available_cpus()
        assert pool.submit(tasks.square, 3).result() == 9
        assert list(map_unordered(pool, tasks.square, [2])) == [4]


def close(results: ResultIterator[Any]) -> None:
    results.close()


def leave(results: ResultIterator[Any]) -> None:
    with results:
        next(results)


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
@pytest.mark.parametrize("ending", [list, close, leave])
def test_the_own_pool_of_a_verb_ends_with_the_iteration(
    kind: str, ending: Callable[[ResultIterator[Any]], object]
) -> None:
    threads = set(threading.enumerate())
    results = map_unordered(kind, tasks.square, range(20))
    ending(results)
    assert set(threading.enumerate()) <= threads
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_the_own_pool_of_a_verb_ends_with_a_failure(kind: str) -> None:
    outcomes = list(map_outcomes(kind, tasks.fail, range(3)))
    assert len(outcomes) == 3
    workers = set(threading.enumerate()) - {threading.main_thread()}
    with pytest.raises(KeyError):
        list(map_unordered(kind, tasks.fail, itertools.count()))
    # A failure is raised at once; what runs is not waited for, but ends by itself.
    for thread in set(threading.enumerate()) - workers - {threading.main_thread()}:
        thread.join()
    for process in multiprocessing.active_children():
        process.join()


def test_no_pool_is_made_for_wrong_arguments() -> None:
    made = Recorder()
    register_executor("grid", made)
    wrong: list[dict[str, Any]] = [{"chunksize": 0}, {"max_pending": "x"}, {"timeout": -1}]
    for options in wrong:
        with pytest.raises((TypeError, ValueError), match=next(iter(options))):
            map_unordered("grid", tasks.square, [1], **options)
    assert made.calls == []
    with pytest.raises(ValueError, match="task_timeout"):
        map_unordered("grid", tasks.square, [1], task_timeout=0)
    assert not any(map(is_open, made.made))


def test_repr_names_kind_and_workers() -> None:
    with make_executor("thread", 2) as pool:
        assert isinstance(pool, PoolExecutor)
        assert "thread" in repr(pool)
        assert "max_workers=2" in repr(pool)
        assert "view" in repr(pool.with_options(max_pending=1))
