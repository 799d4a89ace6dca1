"""The pytest plugin: executors as fixtures, tests that leave nothing behind, and a watchdog.

pytest loads it wherever poolkit is installed. So it imports nothing of poolkit's before a test
uses it, and takes part in a test's run only if that is marked.

Fixtures:
    executor: A pool of each kind that the marker ``pool_kinds`` names, or else the setting
        ``poolkit_kinds``; shut down at the end.
    manual_executor: A `poolkit.testing.ManualExecutor`.
    simulated_executor: A `poolkit.testing.SimulatedExecutor`, whose seed is the option
        ``--poolkit-seed`` or else follows from the test's name; a failing test tells it.

Markers:
    pool_kinds(*kinds, **options): For ``executor``; the options are `poolkit.make_executor`'s.
    no_pool_leaks(threads=True, processes=True, executors=True, failures=True, grace=1.0): Fails
        the test if anything is left behind, from before its fixtures are set up until after
        they are torn down; what fixtures of a wider scope make does not count. The setting
        ``poolkit_no_leaks`` marks all tests that have no such marker of their own.
    pool_watchdog(seconds=30.0): Fails the test if its call takes longer, and says who waits for
        whom. ``timeout`` is another name for the seconds.

What a marked test leaves behind is known only after its teardown, so that is when pytest learns
of its outcome: a test that passes but leaks has failed, and one that failed by itself has what it
left in a section of its report.
"""

import sys
import zlib
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pytest

if TYPE_CHECKING:
    from . import PoolExecutor
    from .testing import ManualExecutor, SimulatedExecutor
    from .testing._leaks import LeakCheck
    from .testing._watchdog import Watchdog

_NAMES: Final = ("poolkit", "poolkit.pytest_plugin")
# How long the tasks of the fixture `executor` may go on after their test, in seconds.
_PATIENCE: Final = 5.0

_MARKERS: Final = (
    "pool_kinds(*kinds, **options): kinds of the fixture executor, and make_executor's options",
    (
        "no_pool_leaks(threads=True, processes=True, executors=True, failures=True, grace=1.0): "
        "fail the test if it leaves any of these behind, after so many seconds"
    ),
    "pool_watchdog(seconds=30.0): fail the test if it takes longer, and say who waits for whom",
)

_check_key: Final = pytest.StashKey["LeakCheck"]()
_watchdog_key: Final = pytest.StashKey["Watchdog"]()
_seed_key: Final = pytest.StashKey[int]()
_pool_key: Final = pytest.StashKey[Any]()
# How much is told of what happened in a simulated executor.
_MOST_LINES: Final = 30
_state_key: Final = pytest.StashKey[str]()
"""What has become of a test that is checked for leaks: "failed", "passed" or "leaky"."""


def pytest_plugin_registered(plugin: object, plugin_name: str, manager: Any) -> None:
    """Let ``-p poolkit.pytest_plugin`` and the entry point both stand; pytest refuses that."""
    if plugin is sys.modules[__name__]:
        for name in _NAMES:
            if name != plugin_name and not manager.is_blocked(name):
                manager.set_blocked(name)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the settings."""
    parser.getgroup("poolkit").addoption(
        "--poolkit-seed",
        type=int,
        metavar="N",
        help="seed of the fixture simulated_executor; by default it follows from the test's name",
    )
    parser.addini(
        "poolkit_kinds",
        "kinds of executor that the fixture executor makes",
        type="args",
        default=["inline", "thread"],
    )
    parser.addini(
        "poolkit_no_leaks",
        "whether every test is marked no_pool_leaks",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    for line in _MARKERS:
        config.addinivalue_line("markers", line)


# -- executors --------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each kind, where `executor` is ours and the test has not chosen itself."""
    if "executor" in metafunc.fixturenames and _is_ours(metafunc):
        marker = metafunc.definition.get_closest_marker("pool_kinds")
        kinds = (marker.args if marker else ()) or metafunc.config.getini("poolkit_kinds")
        metafunc.parametrize("executor", kinds, ids=[str(kind) for kind in kinds], indirect=True)


def _is_ours(metafunc: pytest.Metafunc) -> bool:
    for marker in metafunc.definition.iter_markers("parametrize"):
        names: Any = marker.args[0] if marker.args else marker.kwargs.get("argnames", ())
        names = names.split(",") if isinstance(names, str) else names
        if "executor" in [str(name).strip() for name in names]:
            return False
    for definition in reversed(metafunc._arg2fixturedefs.get("executor", ())):
        if definition.func.__module__ == __name__:
            return True
        if "executor" not in definition.argnames:  # else it is a face of the one before
            return False
    return False


@pytest.fixture
def executor(request: pytest.FixtureRequest) -> "Iterator[PoolExecutor]":
    """Make a pool of each kind that ``pool_kinds`` or ``poolkit_kinds`` names."""
    from . import make_executor

    kind: Any = getattr(request, "param", None)
    if kind is None:
        pytest.fail("take the fixture executor as an argument: it has several kinds", False)
    marker: pytest.Mark | None = request.node.get_closest_marker("pool_kinds")
    options: dict[str, Any] = {**marker.kwargs} if marker else {}
    if kind == "inline":  # which has none, so that it can stand beside the others
        options.pop("max_workers", None)
    try:
        pool = make_executor(kind, **options)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise pytest.fail.Exception(f"fixture executor: {error}", pytrace=False) from None
    yield pool
    unended = _end(pool)
    if unended:
        tasks = "".join(f"\n  {task}" for task in unended)
        pytest.fail(
            f"tasks of the fixture executor went on for {_PATIENCE:g} s after their test, and "
            f"were stopped:{tasks}",
            pytrace=False,
        )


def _end(pool: "PoolExecutor") -> list[str]:
    """Shut a pool down, if need be by force; return what had to be stopped."""
    import threading

    def end() -> None:
        pool.shutdown(wait=True)

    # In another thread: a task that hangs must not hang the session.
    thread = threading.Thread(target=end, name="poolkit-shutdown", daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if not thread.is_alive():
        return []
    link = pool._link
    running = [batch.describe(number) for batch, number, _ in link.backend.running()]
    pool._cancel()
    link.cancel_and_stop(link.scopes[0])
    thread.join(_PATIENCE)
    return running or ["what has ended, but for the callbacks of its futures"]


@pytest.fixture
def manual_executor() -> "Iterator[ManualExecutor]":
    """Make an executor whose tasks run when the test says so."""
    from .testing import ManualExecutor

    pool = ManualExecutor()
    yield pool
    pool.end()


@pytest.fixture
def simulated_executor(request: pytest.FixtureRequest) -> "Iterator[SimulatedExecutor]":
    """Make an executor that interleaves its tasks by a seed; a failing test's report names it."""
    from .testing import SimulatedExecutor

    seed: int | None = request.config.getoption("--poolkit-seed")
    if seed is None:
        seed = zlib.crc32(request.node.nodeid.encode())
    request.node.stash[_seed_key] = seed
    pool = request.node.stash[_pool_key] = SimulatedExecutor(seed)
    yield pool
    pool.end()


# -- marked tests -----------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start what the test's markers ask for, before its fixtures."""
    watchdog = item.get_closest_marker("pool_watchdog")
    leaks = item.get_closest_marker("no_pool_leaks")
    if watchdog is not None:
        item.stash[_watchdog_key] = _make_watchdog(item, *watchdog.args, **watchdog.kwargs)
    if leaks is not None or item.config.getini("poolkit_no_leaks"):
        check = _make_check(leaks)
        item.stash[_check_key] = check
        item.stash[_state_key] = ""
        check.start()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Generator[None, object, object]:
    """Have nothing noted of what outlives the test."""
    origins = sys.modules.get("poolkit.testing._origins")
    if origins is None or fixturedef.scope == "function":
        return (yield)
    with origins.muted():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run the test under its watchdog."""
    watchdog = item.stash.get(_watchdog_key, None)
    if watchdog is None:
        return (yield)
    from .testing._watchdog import Expired

    result: object = None
    try:
        with watchdog.watch():
            result = yield
    except BaseException as error:
        users_own = isinstance(error, KeyboardInterrupt) and not isinstance(error, Expired)
        if watchdog.dump is None or users_own:
            raise
    if watchdog.dump is not None:
        raise pytest.fail.Exception(watchdog.dump, pytrace=False)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Look what the test has left, once its fixtures have been torn down."""
    check = item.stash.get(_check_key, None)
    if check is None:
        return (yield)
    from .testing._leaks import PoolLeakError, describe_leaks

    failed = item.stash.get(_state_key, "") == "failed"
    try:
        try:
            result = yield
        except BaseException:
            failed = True
            raise
        finally:
            leaks = check.find()
            if leaks and failed:
                item.add_report_section("teardown", "pool leaks", describe_leaks(leaks))
    finally:
        check.stop()
    if leaks and not failed:
        item.stash[_state_key] = "leaky"
        raise pytest.fail.Exception(f"pool leaks: {PoolLeakError(leaks)}", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Stop noting, even if the session was interrupted."""
    try:
        return (yield)
    finally:
        check = item.stash.get(_check_key, None)
        if check is not None:
            check.stop()
            del item.stash[_check_key]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the seed to the report of a failure, and say when the outcome is known."""
    report = yield
    seed = item.stash.get(_seed_key, None)
    if report.failed and seed is not None:
        text = f"poolkit seed: {seed}, replay with --poolkit-seed={seed}"
        text = "\n  ".join([text, *item.stash[_pool_key].log[-_MOST_LINES:]])
        report.sections.append(("poolkit seed", text))
    if _check_key in item.stash:
        _note_state(item, report)
    return report


def _note_state(item: pytest.Item, report: Any) -> None:
    """Carry in the report, as far as xdist's controller, what `pytest_report_teststatus` needs."""
    state = item.stash.get(_state_key, "")
    if report.when == "teardown":
        if state == "leaky" or (state == "passed" and report.passed):
            report.poolkit_state = state
    elif report.failed:
        item.stash[_state_key] = "failed"
    elif report.when == "call" and report.passed and not hasattr(report, "wasxfail"):
        item.stash[_state_key] = "passed"
        report.poolkit_state = "unknown"


def pytest_report_teststatus(report: Any) -> tuple[str, str, str] | None:
    """Let the outcome of a test that is checked for leaks count when it is known."""
    states = {
        "unknown": ("", "", ""),
        "passed": ("passed", ".", "PASSED"),
        "leaky": ("failed", "F", "FAILED"),
    }
    return states.get(getattr(report, "poolkit_state", ""))


def _make_watchdog(item: pytest.Item, *args: Any, **kwargs: Any) -> "Watchdog":
    from .testing._watchdog import DEFAULT_SECONDS, Watchdog

    def announce(text: str) -> None:
        capture = item.config.pluginmanager.get_plugin("capturemanager")
        if capture is not None:
            capture.suspend_global_capture(in_=False)
        print(f"\n{item.nodeid}: {text}", file=sys.stderr, flush=True)
        if capture is not None:
            capture.resume_global_capture()

    known = ("seconds", "timeout")
    unknown = [name for name in kwargs if name not in known]
    if unknown or len(args) + len(kwargs) > 1:
        _refuse("pool_watchdog", f"it takes the seconds alone, not {_call(args, kwargs)}", *known)
    try:
        seconds = next(iter((*args, *kwargs.values())), DEFAULT_SECONDS)
        return Watchdog(seconds, announce=announce)
    except (TypeError, ValueError) as error:
        _refuse("pool_watchdog", error, *known)


def _make_check(marker: "pytest.Mark | None") -> "LeakCheck":
    from .testing._leaks import KNOWN, LeakCheck

    kwargs: Mapping[str, Any] = {} if marker is None else marker.kwargs
    args = () if marker is None else marker.args
    if args or any(name not in KNOWN for name in kwargs):
        _refuse("no_pool_leaks", f"it does not take {_call(args, kwargs)}", *KNOWN)
    try:
        return LeakCheck(**kwargs)
    except (TypeError, ValueError) as error:
        _refuse("no_pool_leaks", error, *KNOWN)


def _call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    given = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
    return f"({', '.join(given)})"


def _refuse(marker: str, reason: object, *known: str) -> NoReturn:
    """Fail a test whose marker makes no sense."""
    arguments = ", ".join(known)
    text = f"marker {marker}: {reason}; its arguments are {arguments}"
    raise pytest.fail.Exception(text, pytrace=False)
