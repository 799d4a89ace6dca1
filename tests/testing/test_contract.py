"""The published suite lets good executors pass, and finds out bad ones by the right test."""

import pytest

HEAD = """\
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from poolkit.testing._contract import ExecutorContract

"""

SUITE = """

class TestIt(ExecutorContract):
    def make_executor(self, **options):
        return It(2)
"""

GOOD = """
It = ThreadPoolExecutor
"""

LOSES_ERRORS = """
class It(ThreadPoolExecutor):
    def submit(self, fn, /, *args, **kwargs):
        future = Future()

        def run():
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except Exception:
                future.set_result(None)
            else:
                future.set_result(result)

        super().submit(run)
        return future
"""

MAPS_OUT_OF_ORDER = """
from concurrent.futures import as_completed

class It(ThreadPoolExecutor):
    def map(self, fn, *iterables, timeout=None, chunksize=1):
        futures = [self.submit(fn, *args) for args in zip(*iterables)]
        return (future.result() for future in as_completed(futures, timeout))
"""

RUNS_TWICE = """
class It(ThreadPoolExecutor):
    def submit(self, fn, /, *args, **kwargs):
        def run():
            fn(*args, **kwargs)
            return fn(*args, **kwargs)

        return super().submit(run)
"""

RUNS_WHAT_WAS_CANCELLED = """
from concurrent.futures import InvalidStateError

class It(ThreadPoolExecutor):
    def submit(self, fn, /, *args, **kwargs):
        future = Future()

        def run():
            if not future.cancelled():
                future.set_running_or_notify_cancel()
            try:
                result = fn(*args, **kwargs)
                future.set_result(result)
            except InvalidStateError:
                pass
            except BaseException as error:
                future.set_exception(error)

        super().submit(run)
        return future
"""

RESOLVES_WHAT_WAS_CANCELLED = """
class Resolved(Future):
    def cancel(self):
        cancelled = super().cancel()
        if cancelled:
            self._state = "FINISHED"
        return cancelled

class It(ThreadPoolExecutor):
    def submit(self, fn, /, *args, **kwargs):
        future = Resolved()

        def run():
            if future.done() or not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        super().submit(run)
        return future
"""

TAKES_CALLBACKS_ERRORS_FOR_THE_TASKS = """
class Careless(Future):
    def _invoke_callbacks(self):
        try:
            for callback in self._done_callbacks:
                callback(self)
        except Exception as error:
            self._exception = error

class It(ThreadPoolExecutor):
    def submit(self, fn, /, *args, **kwargs):
        future = Careless()

        def run():
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        super().submit(run)
        return future
"""

LEAVES_WITHOUT_WAITING = """
class It(ThreadPoolExecutor):
    def shutdown(self, wait=True, *, cancel_futures=False):
        super().shutdown(wait=False, cancel_futures=cancel_futures)
"""

STEALS_KEYWORDS = """
class It(ThreadPoolExecutor):
    def submit(self, fn, *args, **kwargs):
        return super().submit(fn, *args, **kwargs)
"""

ONE_AT_A_TIME = """
class It(ThreadPoolExecutor):
    def __init__(self, workers):
        super().__init__(1)
"""


# Bad executors are not worth waiting for, nor need they be adapted to be found out.
IMPATIENT = """
    patience = 0.2
"""
ITSELF_ONLY = ("-k", "itself")


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load none that happens to be installed: that takes longer than most of the tests."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def run(pytester: pytest.Pytester, module: str, *options: str) -> pytest.RunResult:
    """Run the suite on an executor, in a process of its own."""
    pytester.makepyfile(HEAD + module)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rfE", *options, timeout=100)


def failed(result: pytest.RunResult) -> set[str]:
    """Return which tests have failed, by name."""
    return {
        line.split("::")[2].split()[0].split("[")[0]
        for line in result.outlines
        if line.startswith(("FAILED ", "ERROR "))
    }


def test_a_good_executor_passes(pytester: pytest.Pytester) -> None:
    result = run(pytester, GOOD + SUITE)
    outcomes = result.parseoutcomes()
    assert set(outcomes) == {"passed", "skipped"}
    assert outcomes["passed"] > 180
    assert outcomes["skipped"] < 10


@pytest.mark.parametrize(
    ("executor", "found"),
    [
        (LOSES_ERRORS, {"test_an_exception_arrives_as_itself"}),
        (
            MAPS_OUT_OF_ORDER,
            {"test_map_keeps_the_order_when_later_items_are_done_first"},
        ),
        (RUNS_TWICE, {"test_each_task_runs_exactly_once"}),
        (RUNS_WHAT_WAS_CANCELLED, {"test_a_cancelled_task_never_runs"}),
        (
            RESOLVES_WHAT_WAS_CANCELLED,
            {"test_a_running_task_can_not_be_cancelled_and_a_waiting_one_can"},
        ),
        (TAKES_CALLBACKS_ERRORS_FOR_THE_TASKS, {"test_what_a_callback_raises_goes_no_further"}),
        (LEAVES_WITHOUT_WAITING, {"test_shutdown_waits_for_tasks_that_run"}),
        (STEALS_KEYWORDS, {"test_every_keyword_reaches_the_function"}),
        (ONE_AT_A_TIME, {"test_two_tasks_run_at_once"}),
    ],
    ids=[
        "loses errors",
        "maps out of order",
        "runs twice",
        "runs what was cancelled",
        "resolves what was cancelled",
        "takes callbacks' errors for the task's",
        "leaves without waiting",
        "steals keywords",
        "one at a time",
    ],
)
def test_a_bad_executor_is_found_out(
    pytester: pytest.Pytester, executor: str, found: set[str]
) -> None:
    result = run(pytester, executor + SUITE + IMPATIENT, *ITSELF_ONLY)
    names = failed(result)
    assert found <= names
    assert len(names) < 10, "each fault is found out by the tests that are about it"


def test_false_declarations_are_found_out(pytester: pytest.Pytester) -> None:
    claims = """
    pickles = True
    limits_tasks = False
    stops_tasks = False
    known_to_differ = {"test_no_such_thing": "who knows"}
"""
    names = "agree_with_each_other or says_of_itself or arrives_as"
    result = run(pytester, GOOD + SUITE + claims, "-k", names)
    assert failed(result) == {
        "test_the_declarations_agree_with_each_other",
        "test_the_executor_says_of_itself_what_is_declared",
        "test_what_is_given_arrives_as_declared",
    }


def test_an_executor_that_runs_in_its_caller_must_say_so(pytester: pytest.Pytester) -> None:
    module = """
from poolkit import make_executor

class TestInline(ExecutorContract):
    concurrent = False

    def make_executor(self, **options):
        return make_executor("inline", **options)
"""
    names = failed(run(pytester, module, "-k", "declared or where_and_when"))
    assert "test_the_executor_says_of_itself_what_is_declared" in names
    assert "test_where_and_when_tasks_run" in names


def test_one_executor_may_serve_many_tests(pytester: pytest.Pytester) -> None:
    module = """
made = []

class TestShared(ExecutorContract):
    share = True

    def make_executor(self, **options):
        made.append(ThreadPoolExecutor(2))
        return made[-1]

def test_how_many():
    assert len(made) == 1
    assert made[0]._shutdown
"""
    result = run(pytester, module, "-k", "submit_returns or mapping or how_many")
    outcomes = result.parseoutcomes()
    assert "failed" not in outcomes
    assert outcomes["passed"] == 3


def test_what_is_known_to_differ_is_skipped_with_the_reason(pytester: pytest.Pytester) -> None:
    differs = """
    known_to_differ = {"test_every_keyword_reaches_the_function": "it takes fn for itself"}
"""
    result = run(pytester, STEALS_KEYWORDS + SUITE + differs, "-rs", "-k", "every_keyword")
    assert result.parseoutcomes() == {"passed": 1, "skipped": 1, "deselected": 197}
    result.stdout.fnmatch_lines("*known to differ: it takes fn for itself*")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("class TestNothing(ExecutorContract): pass", "has to define make_executor"),
        (
            "class TestNone(ExecutorContract):\n    def make_executor(self, **options): pass",
            "returned None, which is no Executor",
        ),
    ],
)
def test_a_missing_executor_is_asked_for(
    pytester: pytest.Pytester, module: str, message: str
) -> None:
    result = run(pytester, module, "-k", "submit_returns")
    assert failed(result) == {"test_submit_returns_a_future_of_the_result"}
    result.stdout.fnmatch_lines(f"*{message}*")
