"""Running what is counted: in an interpreter of its own, which a tool watches."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


class UnavailableError(Exception):
    """A tool is missing, or can't do its work here."""


def run(tool: Sequence[str], module: str, arguments: Sequence[str] = ()) -> tuple[str, str]:
    """Run a module of this package under a tool, or under none.

    Args:
        tool: The tool's command line, to which that of the interpreter is added.
        module: The module's name.
        arguments: Its ``sys.argv[1:]``.

    Returns:
        What it wrote to its standard output and its standard error.

    Raises:
        RuntimeError: It failed.
    """
    command = [*tool, sys.executable, "-W", "ignore", "-m", f"{__package__}.{module}", *arguments]
    # An environment of always the same size and content; hashes that are always the same.
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-20:])
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{last}")
    return done.stdout, done.stderr
