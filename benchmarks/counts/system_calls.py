"""System calls for each thousand tasks on processes, as strace lists them.

How many there are depends on who is quicker, for the most part. What hardly does is how often
tasks and results are sent. So that is one count, and all calls are another, with much tolerance:
it notices a call more for each task, or a wake-up, where there should be none.
"""

import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from . import _child

GROUP: Final = "system calls per 1,000 tasks"
_SENDS: Final = {"sendto", "sendmsg", "write", "writev"}
# Of each single task, and of tasks in chunks: by so much did the medians of runs ever differ from
# each other, and half as much again.
_TOLERANCES: Final = {"messages": (0.02, 0.15), "all": (0.15, 1.0)}
_SINGLE: Final = ("map:", "submit:")

_CALL: Final = re.compile(r"\d+ +(\w+)\((.*)")
_MARK: Final = re.compile(r'-1, "(?:begin (\d+) (.*)|end)", \d+')
_WAKE_UP: Final = re.compile(r'\d+, "[^"]", 1\b')


def tolerance_of(name: str) -> float:
    """Return by how much a count may grow."""
    return _TOLERANCES[name.rpartition(": ")[2]][not name.startswith(_SINGLE)]


def measure() -> dict[str, float]:
    """Count the calls of each errand: the medians of some rounds.

    Raises:
        UnavailableError: There is no strace, or it may not look at processes here.
    """
    tool = shutil.which("strace")
    if tool is None:
        raise _child.UnavailableError("strace is not installed")
    trial = [tool, "-f", "-o", "/dev/null", "true"]
    if subprocess.run(trial, capture_output=True, check=False).returncode:
        raise _child.UnavailableError("strace may not trace processes here")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "calls")
        _child.run([tool, "-f", "-q", "-s", "60", "-o", str(path)], "errands")
        with path.open(encoding="utf-8", errors="replace") as lines:
            rounds = count(lines)
    return {name: statistics.median(values) for name, values in rounds.items()}


def count(lines: Iterable[str]) -> dict[str, list[float]]:
    """Count calls between marks, for each thousand tasks; see `errands` for the marks.

    Returns:
        For each errand, the counts of its rounds: all calls, and sends of more than one byte,
        which are not there to wake somebody up.
    """
    rounds: dict[str, list[float]] = {}
    name, tasks, messages, calls = "", 0, 0, 0
    for line in lines:
        found = _CALL.match(line)
        if found is None:  # a signal, an exit, or the second half of a call
            continue
        call, arguments = found.groups()
        if call == "write" and (mark := _MARK.match(arguments)) is not None:
            if name:
                rounds.setdefault(f"{name}: messages", []).append(messages / tasks * 1000)
                rounds.setdefault(f"{name}: all", []).append(calls / tasks * 1000)
            name, tasks, messages, calls = mark[2] or "", int(mark[1] or 0), 0, 0
            continue
        calls += 1
        messages += call in _SENDS and _WAKE_UP.match(arguments) is None
    return rounds
