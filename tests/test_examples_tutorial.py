"""The tutorial's scripts, each run as a person would run it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "examples" / "tutorial"
LIMIT = 60  # seconds, for scripts that need a few; reached only if one hangs

pytestmark = pytest.mark.timeout(LIMIT + 30)


def run(name: str) -> list[str]:
    """Return the lines that a script prints; it must end well and say nothing else."""
    done = subprocess.run(
        [sys.executable, SCRIPTS / name],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout.splitlines()


def test_as_completed():
    lines = run("as_completed.py")

    assert sorted(lines) == [
        "index.txt: 9000 bytes",
        "lost.txt failed: HTTP Error 404: Not Found",
        "map.txt: 7000 bytes",
        "menu.txt: 8000 bytes",
        "photo.txt: 9000 bytes",
    ]
    quick, slow = lines.index("index.txt: 9000 bytes"), lines.index("photo.txt: 9000 bytes")
    assert quick < slow, "each is printed as it completes, not in the order of the list"


def test_ordered_timeout():
    *lines, last = run("ordered_timeout.py")

    assert lines == [
        "0: this is page one",
        "1: this is page two",
        "2: TaskTimeoutError",
        "3: this is page four",
    ]
    assert re.fullmatch(r"\d+ s in all", last)


def test_chunks():
    lines = [line.split() for line in run("chunks.py")]

    assert [line[:3] for line in lines] == [
        [kind, f"chunksize={size}", "right"]
        for kind in ("thread", "process")
        for size in ("1", "256", "'auto'")
    ]


def test_swap():
    thread, process = run("swap.py")

    found = re.match(r"thread +(\d+ functions in \d+ files)  ", thread)
    assert found
    assert process.split()[0] == "process"
    assert f" {found[1]}  " in process
    assert not found[1].startswith("0 ")


def test_nested_wait():
    assert run("nested_wait.py") == [
        "standard library: TimeoutError()",
        "poolkit: argparse.py is longer than this.py",
    ]


def test_returned_future():
    assert run("returned_future.py") == [
        "the outer task's result is a future: True",
        "the inner task's result is a number: True",
    ]


def test_every_script_is_tested_and_shown():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    shown = {
        path.stem.replace("-", "_")
        for path in (SCRIPTS.parent.parent / "docs" / "tutorial").glob("*.md")
    }
    for script in SCRIPTS.glob("*.py"):
        assert script.stem in tested
        assert script.stem in shown
