"""The interpreter's own tests of `concurrent.futures` pass with poolkit's thread pool in it.

See `tests.cpython.runner`, which is what runs here.
"""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from . import runner


@pytest.fixture(scope="module")
def package() -> Path:
    """The directory of CPython's test package."""
    version = sys.version_info[:2]
    if version < (3, 13):
        pytest.skip("the table of tests to leave out starts with Python 3.13")
    try:
        spec = importlib.util.find_spec(runner.PACKAGE)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        missing = f"this Python has no {runner.PACKAGE}"
        if version == (3, 13):
            pytest.fail(missing)
        pytest.skip(missing)
    return Path(spec.origin).parent


def test_no_module_is_forgotten(package: Path) -> None:
    modules = {path.stem for path in package.glob("test_*.py")}
    assert modules - runner.OTHER_MODULES == set(runner.LEFT_OUT)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("module", runner.LEFT_OUT)
def test_module(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", runner.__name__, module],
            cwd=runner.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):  # it, and what it has left behind
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = output.read_text(encoding="utf-8", errors="replace")
    print(text)
    assert code == 0, text
    with capsys.disabled():
        print(f"\n{text.splitlines()[-1]}", end=" ")
