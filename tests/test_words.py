"""The small modules that everything else speaks with: errors, checks, descriptions, CPUs."""

import concurrent.futures
import copy
import functools
import math
import os
import pickle
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import poolkit
from poolkit import INHERIT, Outcome, PoolkitError, _cpu, available_cpus
from poolkit._checks import (
    check_callable,
    check_choice,
    check_initializer,
    check_positive_int,
    check_seconds,
)
from poolkit._describe import describe_call, function_name, short_repr

from . import tasks

ERRORS: list[tuple[PoolkitError, type[BaseException], dict[str, Any], str]] = [
    (
        poolkit.TaskTimeoutError("fetch('a')", 2.50),
        TimeoutError,
        {"task": "fetch('a')", "limit_s": 2.5},
        "fetch('a') ran longer than its task_timeout of 2.5 s",
    ),
    (
        poolkit.TaskAbortedError("fetch('a')"),
        PoolkitError,
        {"task": "fetch('a')"},
        "fetch('a') was aborted",
    ),
    (
        poolkit.DeadlockError(["f(1)", "g(2)"]),
        RuntimeError,
        {"tasks": ["f(1)", "g(2)"]},
        "these tasks wait for each other, without a time limit: f(1) -> g(2) -> f(1)",
    ),
    (
        poolkit.PoolShutdownError("thread pool 1"),
        RuntimeError,
        {"pool": "thread pool 1"},
        (
            "thread pool 1 has been shut down and takes no new tasks; "
            "submit before its 'with' block ends, or make another executor"
        ),
    ),
    (
        poolkit.WorkerCrashedError("f(1)", 4711, -9),
        concurrent.futures.BrokenExecutor,
        {"task": "f(1)", "pid": 4711, "exit_code": -9, "worker": None},
        "f(1) did not finish: its worker (process 4711) was killed by SIGKILL",
    ),
    (
        poolkit.PoolBrokenError("thread pool 1", "its initializer failed"),
        concurrent.futures.BrokenExecutor,
        {"pool": "thread pool 1", "reason": "its initializer failed"},
        "thread pool 1 is broken: its initializer failed",
    ),
    (
        poolkit.TaskSerializationError("the task", "no way", "Don't."),
        pickle.PicklingError,
        {"what": "the task", "reason": "no way", "remedy": "Don't."},
        "the task can't be sent between processes: no way. Don't.",
    ),
    (
        poolkit.RemoteTaskError("m.Odd", "gone", "Traceback ..."),
        PoolkitError,
        {"type_name": "m.Odd", "message": "gone", "traceback": "Traceback ..."},
        "m.Odd: gone",
    ),
    (
        poolkit.QueueFullError("thread pool 1", 7),
        queue.Full,
        {"pool": "thread pool 1", "max_pending": 7},
        (
            "thread pool 1 already holds max_pending=7 unresolved tasks; "
            "retry later, or use when_full='block'"
        ),
    ),
    (
        poolkit.UnsupportedError("inline", "max_workers=2", "use one"),
        NotImplementedError,
        {"kind": "inline", "what": "max_workers=2", "instead": "use one"},
        "the 'inline' kind does not support max_workers=2; use one",
    ),
]


def test_every_error_is_tried_here() -> None:
    public = [getattr(poolkit, name) for name in poolkit.__all__ if name.endswith("Error")]
    assert {type(error) for error, *_ in ERRORS} == {*public} - {PoolkitError}


@pytest.mark.parametrize(
    ("error", "cousin", "attributes", "message"),
    ERRORS,
    ids=[type(error).__name__ for error, *_ in ERRORS],
)
def test_errors_travel_whole(
    error: PoolkitError,
    cousin: type[BaseException],
    attributes: dict[str, Any],
    message: str,
) -> None:
    protocols = range(pickle.HIGHEST_PROTOCOL + 1)
    pickled = [pickle.loads(pickle.dumps(error, protocol)) for protocol in protocols]
    for arrived in (error, copy.copy(error), copy.deepcopy(error), *pickled):
        assert type(arrived) is type(error)
        assert isinstance(arrived, cousin)
        assert isinstance(arrived, PoolkitError)
        assert str(arrived) == message
        assert arrived.args == error.args
        assert arrived.__dict__ == attributes


def test_notes_travel_with_an_error() -> None:
    error = poolkit.PoolBrokenError("pool", "it is")
    error.add_note("seen on Monday")
    arrived = pickle.loads(pickle.dumps(error))
    assert arrived.__notes__ == ["seen on Monday"]
    assert arrived.reason == "it is"


def test_errors_can_be_derived_from() -> None:
    error = pickle.loads(pickle.dumps(OwnError(3)))
    assert type(error) is OwnError
    assert error.number == 3
    assert str(error) == "own is broken: number 3"


class OwnError(poolkit.PoolBrokenError):
    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__("own", f"number {number}")


# -- checks ---------------------------------------------------------------------------------


class Index:
    """As numpy's integers are."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


def test_positive_int() -> None:
    assert check_positive_int("n", 1) == 1
    assert check_positive_int("n", 10**30) == 10**30
    number = check_positive_int("n", Index(3))
    assert number == 3
    assert type(number) is int


@pytest.mark.parametrize("value", [True, False, "2", 1.0, 1.5, None, [], b"1", math.nan])
def test_no_int(value: Any) -> None:
    with pytest.raises(TypeError) as caught:
        check_positive_int("n", value)
    assert str(caught.value) == f"n must be an int greater than 0, not {value!r}"


@pytest.mark.parametrize("value", [0, -1, -(10**30), Index(-5)])
def test_not_positive(value: Any) -> None:
    number = value.__index__()
    with pytest.raises(ValueError, match=f"^n must be greater than 0, not {number}$"):
        check_positive_int("n", value)


@pytest.mark.parametrize(("value", "seconds"), [(1, 1.0), (0.001, 0.001), (1e6, 1e6)])
def test_seconds(value: float, seconds: float) -> None:
    number = check_seconds("t", value)
    assert number == seconds
    assert type(number) is float
    assert check_seconds("t", math.inf) is None


def test_seconds_none_and_zero() -> None:
    assert check_seconds("t", None) is None
    assert check_seconds("t", 0, allow_zero=True) == 0
    with pytest.raises(ValueError, match="at least 0 seconds"):
        check_seconds("t", -0.1, allow_zero=True)


@pytest.mark.parametrize("value", [0, 0.0, -1, -math.inf, math.nan])
def test_seconds_out_of_range(value: float) -> None:
    with pytest.raises(ValueError, match=r"t must be more than 0 seconds .*None for no limit"):
        check_seconds("t", value)


@pytest.mark.parametrize("value", ["1", True, False, [], 1j, object, b"2"])
def test_seconds_of_a_wrong_type(value: Any) -> None:
    with pytest.raises(TypeError, match="t must be a number of seconds or None, not "):
        check_seconds("t", value)


def test_callable() -> None:
    check_callable("fn", len)
    with pytest.raises(TypeError, match=r"fn must be callable, not 16 \(pass the function itself"):
        check_callable("fn", tasks.square(4))
    with pytest.raises(TypeError) as caught:
        check_callable("fn", "x" * 10_000)
    assert len(str(caught.value)) < 200


def test_choice() -> None:
    check_choice("c", "a", ("a", "b"))
    wrong: list[object] = ["x", None, [], 1]
    for value in wrong:
        with pytest.raises(ValueError, match="c must be 'a' or 'b', not "):
            check_choice("c", value, ("a", "b"))


def test_initializer() -> None:
    check_initializer(None, ())
    check_initializer(print, (1,))
    with pytest.raises(TypeError, match="initializer must be callable"):
        check_initializer(3, ())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"initargs must be a tuple, not \[1\]"):
        check_initializer(print, [1])


# -- descriptions ---------------------------------------------------------------------------


class Hostile:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __repr__(self) -> str:
        raise self._error


class Loud:
    def __init__(self, text: Any) -> None:
        self._text = text

    def __repr__(self) -> Any:
        return self._text


class Odd(list[int]):
    def __len__(self) -> int:
        raise RecursionError


def cycle() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


HARD_TO_SHOW: list[object] = [
    "x" * 10**6,
    b"x" * 10**6,
    "line\n" * 100,
    list(range(10**5)),
    [["deep"] * 100] * 100,
    dict.fromkeys(range(1000)),
    {"key" * 1000: "value" * 1000},
    set(range(1000)),
    10**4299,
    10**10_000,
    cycle(),
    Loud("first\n\tsecond"),
    Loud("y" * 10**6),
    Loud(None),
    Hostile(ValueError("no")),
    Hostile(SystemExit(1)),
    Hostile(RecursionError()),
    Odd(),
    {Hostile(ValueError()): 1, 2: Hostile(ValueError())},
]


@pytest.mark.parametrize("value", HARD_TO_SHOW, ids=map(str, range(len(HARD_TO_SHOW))))
def test_short_repr_is_one_short_line(value: object) -> None:
    text = short_repr(value)
    assert 0 < len(text) <= 72
    assert "\n" not in text


def test_short_repr() -> None:
    assert short_repr("https://example.org/") == "'https://example.org/'"
    assert short_repr([1, 2, 3]) == "[1, 2, 3]"
    assert short_repr(Hostile(ValueError())).startswith("<Hostile")


def outer() -> Callable[[], None]:
    def inner() -> None: ...

    return inner


class Caller:
    def __call__(self) -> None: ...

    def method(self) -> None: ...


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (tasks.square, "square"),
        (len, "len"),
        (functools.partial(functools.partial(tasks.add, 1), b=2), "add"),
        (outer(), "outer.<locals>.inner"),
        (Caller(), "Caller"),
        (Caller().method, "Caller.method"),
        (Caller, "Caller"),
        (lambda: 0, "<lambda>"),
    ],
)
def test_function_name(fn: Callable[..., Any], name: str) -> None:
    assert function_name(fn) == name


def test_a_name_that_is_no_text() -> None:
    fn = Caller()
    fn.__qualname__ = 3  # type: ignore[attr-defined]
    assert function_name(fn) == "Caller"


def test_describe_call() -> None:
    assert describe_call(tasks.square, (3,)) == "square(3)"
    assert describe_call(tasks.add, (1,), {"b": "x"}) == "add(1, b='x')"
    assert describe_call(tasks.keywords, range(6)) == "keywords(0, 1, 2, 3, …)"
    assert describe_call(outer(), ()) == "outer.<locals>.inner()"
    assert len(describe_call(tasks.keywords, ["x" * 1000] * 9, dict.fromkeys("abcdefg"))) < 500


# -- CPUs -----------------------------------------------------------------------------------


@pytest.fixture
def own_group(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Set what this process's control groups are, on a machine of 16 CPUs; None: no such file."""
    monkeypatch.setattr(_cpu, "_affinity", lambda: 16)
    read_file = _cpu._read
    content: str | None = None

    def read(path: str) -> str:
        if path != "/proc/self/cgroup":
            return read_file(path)
        if content is None:
            raise FileNotFoundError(path)
        return content

    monkeypatch.setattr(_cpu, "_read", read)

    def set_content(text: str | None) -> None:
        nonlocal content
        content = text

    return set_content


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


OwnGroup = Callable[[str | None], None]


@pytest.mark.parametrize(
    ("limit", "cpus"),
    [
        ("max 100000", 16),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("1000 100000", 1),
        ("9999900 100000", 16),
        ("", 16),
        ("nonsense", 16),
        ("1 2 3", 16),
    ],
)
def test_version_2_at_the_root(own_group: OwnGroup, tmp_path: Path, limit: str, cpus: int) -> None:
    own_group("0::/\n")
    write(tmp_path, cpu__max=limit)
    assert available_cpus(cgroup_root=str(tmp_path)) == cpus


def test_version_2_takes_the_smallest_limit_on_the_way(own_group: OwnGroup, tmp_path: Path) -> None:
    own_group("0::/a/b/c\n")
    write(tmp_path / "a" / "b" / "c", cpu__max="max 100000")
    write(tmp_path / "a" / "b", cpu__max="300000 100000")
    write(tmp_path / "a", cpu__max="500000 100000")
    write(tmp_path / "other", cpu__max="100000 100000")
    assert available_cpus(cgroup_root=str(tmp_path)) == 3
    write(tmp_path / "a", cpu__max="200000 100000")
    assert available_cpus(cgroup_root=str(tmp_path)) == 2, "read anew at each call"


def test_version_2_ignores_what_lies_outside_the_root(own_group: OwnGroup, tmp_path: Path) -> None:
    own_group("0::/a\n")
    write(tmp_path, cpu__max="100000 100000")
    assert available_cpus(cgroup_root=str(tmp_path / "root")) == 16


@pytest.mark.parametrize("name", ["cpu", "cpu,cpuacct"])
def test_version_1(own_group: OwnGroup, tmp_path: Path, name: str) -> None:
    own_group(f"5:memory:/m\n4:{name}:/jobs/7\n")
    write(tmp_path / name / "jobs" / "7", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    write(tmp_path / name / "jobs", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    write(tmp_path / "memory" / "m", cpu__cfs_quota_us="1", cpu__cfs_period_us="100000")
    assert available_cpus(cgroup_root=str(tmp_path)) == 3


def test_version_1_in_a_container_that_sees_only_its_own(
    own_group: OwnGroup, tmp_path: Path
) -> None:
    own_group("4:cpu,cpuacct:/docker/0123\n")
    write(tmp_path / "cpu", cpu__cfs_quota_us="400000", cpu__cfs_period_us="100000")
    assert available_cpus(cgroup_root=str(tmp_path)) == 4


def test_no_control_groups(own_group: OwnGroup, tmp_path: Path) -> None:
    own_group(None)
    assert available_cpus(cgroup_root=str(tmp_path)) == 16
    assert available_cpus(cgroup_root=str(tmp_path / "missing")) == 16
    write(tmp_path, cpu__max="600000 100000")
    assert available_cpus(cgroup_root=str(tmp_path)) == 6


def test_affinity_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {1, 5, 6}, raising=False)
    assert available_cpus(cgroup_root=str(tmp_path)) == 3
    monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)
    assert available_cpus(cgroup_root=str(tmp_path)) == 5
    monkeypatch.setattr(os, "process_cpu_count", lambda: None, raising=False)
    assert available_cpus(cgroup_root=str(tmp_path)) == 1
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert available_cpus(cgroup_root=str(tmp_path)) == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus(cgroup_root=str(tmp_path)) == 1


def test_this_machine() -> None:
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


# -- outcomes and options -------------------------------------------------------------------


def test_outcome() -> None:
    good = Outcome(0, (2,), 4, None, attempts=1, worker="w", queued_s=0.1, run_s=0.2)
    assert good.ok
    assert good.unwrap() == 4
    assert pickle.loads(pickle.dumps(good)) == good
    with pytest.raises(AttributeError):
        good.value = 5  # type: ignore[misc]

    error = KeyError("x")
    bad: Outcome[int] = Outcome(
        1, (3,), None, error, attempts=3, worker="", queued_s=0.0, run_s=0.0
    )
    assert not bad.ok
    with pytest.raises(KeyError) as caught:
        bad.unwrap()
    assert caught.value is error

    empty: Outcome[None] = Outcome(2, (), None, None, attempts=1, worker="", queued_s=0, run_s=0)
    assert empty.ok
    assert empty.unwrap() is None


def test_inherit_is_one_of_its_kind() -> None:
    assert repr(INHERIT) == "INHERIT"
    assert pickle.loads(pickle.dumps(INHERIT)) is INHERIT
    assert copy.deepcopy(INHERIT) is INHERIT
