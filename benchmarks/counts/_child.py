"""Running what is counted: in an interpreter of its own, which a tool watches."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
LIMIT: Final = 300.0
"""Seconds that anything may take: ten times what it does, or it hangs."""


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
        RuntimeError: It failed, or hangs.
    """
    command = [*tool, sys.executable, "-W", "ignore", "-m", f"{__package__}.{module}", *arguments]
    # An environment of always the same size and content; hashes that are always the same.
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=LIMIT)
        problem = f"ended with {process.returncode}" if process.returncode else ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its copies, too, which hold the pipes
        output, errors = process.communicate()
        problem = f"took more than {LIMIT:.0f} s"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if problem:
        last = "\n".join(errors.splitlines()[-20:])
        raise RuntimeError(f"{' '.join(command)} {problem}:\n{last}")
    return output, errors
