"""Instructions for each operation of a hot path, as callgrind counts them."""

import re
import shutil
from typing import Final

from . import _child

GROUP: Final = "instructions per operation"
_TOLERANCE: Final = 0.02


def tolerance_of(_: str) -> float:
    """Return by how much a count may grow; two measurements differ by a tenth of that, or less."""
    return _TOLERANCE


def measure() -> dict[str, float]:
    """Count the instructions of each path: those of N operations, less those of none, over N.

    Raises:
        UnavailableError: There is no valgrind.
    """
    tool = shutil.which("valgrind")
    if tool is None:
        raise _child.UnavailableError("valgrind is not installed")
    # Once without it: what fails does so soon, and all modules are compiled.
    _child.run([], "paths")
    callgrind = [tool, "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    output, log = _child.run(callgrind, "paths")
    collected = dict(re.findall(r"^==(\d+)== Collected : (\d+)", log, re.MULTILINE))
    counts: dict[str, float] = {}
    for line in output.splitlines():
        without, with_them, operations, name = line.split(" ", 3)
        spent = int(collected[with_them]) - int(collected[without])
        counts[name] = spent / int(operations)
    return counts
