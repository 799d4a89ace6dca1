"""The examples of the pages on testing: what has to fail fails, as those pages say, and no more."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from poolkit.testing import explore

EXAMPLES = Path(__file__).parent.parent / "examples" / "testing"
PAGES = Path(__file__).parent.parent / "docs" / "how-to"
LIMIT = 60  # seconds, for runs that need a few; reached only if one hangs

pytestmark = pytest.mark.timeout(LIMIT + 30)


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Run one test file of the examples in a process of its own."""

    def run_file(name: str, *, manager: str = "manager.py") -> pytest.RunResult:
        shutil.copy(EXAMPLES / name, pytester.path)
        shutil.copy(EXAMPLES / manager, pytester.path / "manager.py")
        loaded = "poolkit.pytest_plugin"  # installed or not
        return pytester.runpytest_subprocess("-p", loaded, name, timeout=LIMIT)

    return run_file


def assert_shows(result: pytest.RunResult, name: str) -> None:
    """Find the lines of a file one below the other.

    `...` in it stands for any text. How many orders it took is no promise.
    """
    text = re.sub(r"in order \d+ of", "in order ... of", (EXAMPLES / name).read_text("utf-8"))
    for part in text.split("\n...\n"):
        lines = part.removesuffix("...\n").splitlines()
        patterns = [line.replace("[", "[[]").replace("...", "*") + "*" for line in lines]
        result.stdout.fnmatch_lines(patterns, consecutive=True)


def test_each_test_finds_its_mistake(run):
    result = run("test_manager.py")
    result.assert_outcomes(failed=3)
    for name in ("lost_update.txt", "wrong_order.txt", "leak.txt"):
        assert_shows(result, name)


def test_no_test_finds_anything_in_the_mended_one(run):
    run("test_manager.py", manager="mended.py").assert_outcomes(passed=3)


COUNT = "        self.received += path.write_bytes(self.fetch(url))\n"
COUNT_AFTERWARDS = """\
        size = path.write_bytes(self.fetch(url))
        self.received += size
"""
STOP = """\
        paths = [future.result() for future in as_completed(futures)]
        pool.shutdown()
"""
STOP_IN_ANY_CASE = """\
        with pool:
            paths = [future.result() for future in as_completed(futures) if not future.exception()]
        [future.result() for future in futures]
"""
MISTAKES = {
    "test_every_byte_is_counted": (COUNT, COUNT_AFTERWARDS),
    "test_each_url_has_its_own_file": ("in as_completed(futures)", "in futures"),
    "test_failure_leaves_nothing_behind": (STOP, STOP_IN_ANY_CASE),
}


@pytest.mark.parametrize("test", MISTAKES)
def test_a_mended_mistake_makes_one_test_pass(pytester, run, test):
    before, after = MISTAKES[test]
    source = (EXAMPLES / "manager.py").read_text("utf-8")
    assert source.count(before) == 1
    mended = pytester.path / "one.py"
    mended.write_text(source.replace(before, after), encoding="utf-8")

    result = run("test_manager.py", manager=str(mended))

    result.assert_outcomes(passed=1, failed=2)
    assert f"FAILED test_manager.py::{test}" not in result.stdout.str()


@pytest.fixture
def managers(monkeypatch):
    """Return the two modules."""
    monkeypatch.syspath_prepend(EXAMPLES)
    yield import_module("manager"), import_module("mended")
    del sys.modules["manager"], sys.modules["mended"]


def fetch_at_once(url):
    content = url.encode()  # a line of its own: that is where another task may go on
    return content  # noqa: RET504


def test_lines_are_switch_points_enough(managers, tmp_path):
    def check(module):
        manager = module.DownloadManager(tmp_path, fetch_at_once)
        manager.download(["a/a", "b/bb"])
        assert manager.received == 7

    buggy, mended = managers
    assert explore(lambda: check(buggy)).complete, "without lines there is nothing to find"
    with pytest.raises(AssertionError, match="received"):
        explore(lambda: check(buggy), preempt="lines")
    explore(lambda: check(mended), preempt="lines", schedules=50)


def test_all_orders_of_the_mended_manager_are_tried(managers, tmp_path):
    _, mended = managers

    def check():
        mended.DownloadManager(tmp_path, fetch_at_once).download(["a/a", "b/bb"])

    assert explore(check).complete


def test_tests_are_short():
    module = ast.parse((EXAMPLES / "test_manager.py").read_text("utf-8"))
    tests = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    for name in MISTAKES:
        assert len(ast.unparse(tests[name]).splitlines()) < 10


def test_real_server():
    done = subprocess.run(
        [sys.executable, EXAMPLES / "real.py"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1", "no_proxy": "127.0.0.1"},
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (EXAMPLES / "real.txt").read_text("utf-8")


def test_one_test_runs_over_several_kinds(run):
    result = run("test_kinds.py")
    result.assert_outcomes(passed=3)


def test_leaks_and_hangs_are_found(run):
    result = run("test_left.py")
    result.assert_outcomes(failed=2)
    assert_shows(result, "test_left.txt")


def test_contract_of_an_executor(run):
    outcomes = run("test_contract.py").parseoutcomes()
    assert outcomes.pop("passed") > 50
    assert set(outcomes) <= {"skipped"}


def test_pages_include_every_example():
    pages = "".join((PAGES / name).read_text("utf-8") for name in ("testing.md", "test-doubles.md"))
    for path in EXAMPLES.iterdir():
        if path.is_file():
            assert f"../../examples/testing/{path.name}" in pages
