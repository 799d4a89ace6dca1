"""The interpreter's own tests of `concurrent.futures` pass with poolkit's pools in it.

See `tests.cpython.runner`, which is what runs here.
"""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import runner, test_adapted
from .left_out import TABLE

MODULES = [(family, module) for family in TABLE for module in TABLE[family]]


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


@pytest.mark.parametrize("family", TABLE)
def test_no_module_is_forgotten(package: Path, family: str) -> None:
    modules = {path.stem for path in package.glob("test_*.py")}
    assert modules - runner.OTHER_MODULES[family] == set(TABLE[family])


def test_what_takes_the_place_of_a_test_is_there() -> None:
    rows = [row for family, module in MODULES for row in TABLE[family][module].values()]
    ours = {row.instead for row in rows if row.instead is not None}
    assert ours <= set(vars(test_adapted))


@contextlib.contextmanager
def running(kind: str, module: str, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module's tests of a kind, and end what is left of that."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", runner.__name__, kind, module],
            cwd=runner.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(("family", "module"), MODULES)
def test_module(
    family: str, module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = [name for name, kind in runner.KINDS.items() if kind.family == family]
    with contextlib.ExitStack() as stack:  # a family's kinds side by side: they sleep a lot
        processes = [stack.enter_context(running(kind, module, tmp_path / kind)) for kind in kinds]
        codes = [process.wait() for process in processes]
    texts = [(tmp_path / kind).read_text(encoding="utf-8", errors="replace") for kind in kinds]
    print(*texts, sep="\n")
    assert not any(codes), "\n".join(texts)
    with capsys.disabled():
        print("", *(text.splitlines()[-1] for text in texts), sep="\n", end=" ")
