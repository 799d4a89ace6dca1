"""System calls for each thousand tasks on processes, as strace lists them.

How many calls there are depends on who is quicker; how many bytes are sent does not, and how often
something is sent hardly does. So these are three counts. That of all calls has so much tolerance
that it only notices when a task, or a chunk, takes calls that it did not take before.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from . import _child

GROUP: Final = "system calls per 1,000 tasks"
_SENDS: Final = {"sendto", "sendmsg", "write", "writev"}
# Of single tasks, and of tasks in chunks. In a dozen measurements, some of them beside processes
# that took half of the CPU, the largest was above the least by 0% of the bytes and of single tasks'
# sends, but for `map` (see below), 12% of chunks' sends (what is to be sent goes together if its
# reader is late), 20% of single tasks' calls and 26% of chunks' (who waits for the GIL, or for
# work, calls now and then). Beside more, single tasks need up to 42% fewer calls: counts are to be
# taken where nothing else runs.
_TOLERANCES: Final = {"bytes sent": (0.02, 0.02), "sends": (0.02, 0.75), "all": (0.3, 0.75)}
# Whose items are pulled while others run: how many of them go together is a matter of who is
# quicker. 5% of its bytes and sends.
_MORE_ROOM: Final = {"map: bytes sent": 0.1, "map: sends": 0.1}
_SINGLE: Final = ("map:", "submit:")
# Its results are used up so slowly that this is all a matter of who has the GIL: 70%.
_LEFT_OUT: Final = "map_outcomes: sends"

_CALL: Final = re.compile(r"\d+ +(\w+)\((.*)")
_MARK: Final = re.compile(r'-1, "(?:begin (\d+) (.*)|end)", \d+')
_LENGTH: Final = re.compile(r'(?:\d+, "(?:[^"\\]|\\.)*"(?:\.\.\.)?, |iov_len=)(\d+)')


def tolerance_of(name: str) -> float:
    """Return by how much a count may grow."""
    if name in _MORE_ROOM:
        return _MORE_ROOM[name]
    return _TOLERANCES[name.rpartition(": ")[2]][not name.startswith(_SINGLE)]


def measure() -> dict[str, float]:
    """Count the calls of each errand: the least of some rounds, as what disturbs them adds calls.

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
    return {name: min(values) for name, values in rounds.items() if name != _LEFT_OUT}


def count(lines: Iterable[str]) -> dict[str, list[float]]:
    """Count calls between marks, for each thousand tasks; see `errands` for the marks.

    Returns:
        For each errand, the counts of its rounds: of bytes sent, of sends, and of all calls.
        Single bytes count for neither of the first two: they wake somebody up.
    """
    rounds: dict[str, list[float]] = {}
    errand, tasks = "", 0
    counts = dict.fromkeys(_TOLERANCES, 0)
    for line in lines:
        found = _CALL.match(line)
        if found is None:  # a signal, an exit, or the second half of a call
            continue
        call, arguments = found.groups()
        if call == "write" and (mark := _MARK.match(arguments)) is not None:
            if errand:
                for what, number in counts.items():
                    rounds.setdefault(f"{errand}: {what}", []).append(number / tasks * 1000)
            errand, tasks = mark[2] or "", int(mark[1] or 0)
            counts = dict.fromkeys(_TOLERANCES, 0)
            continue
        counts["all"] += 1
        if call in _SENDS:
            length = sum(map(int, _LENGTH.findall(arguments)))
            if length > 1:
                counts["bytes sent"] += length
                counts["sends"] += 1
    return rounds
