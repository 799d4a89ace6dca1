"""Run a sample in a process of its own, and end that and all that it started.

A pool that hangs or crashes is to be seen as such in the results, and must neither stop the
comparison nor disturb the next sample. So each sample has a limit on its time, and whatever it
leaves behind is killed. That is found as descendants: orphans become children of this process, so
that also those are found that left their session. Elsewhere than on Linux, it is the session only.
Samples are taken one at a time, and nothing else may have children meanwhile.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from _sample import ANSWER

HERE = Path(__file__).parent
PR_SET_CHILD_SUBREAPER = 36  # of <sys/prctl.h>
TRIES = 10
GRACE = 3.0  # seconds for a resource tracker to remove what the others left


class Sample(NamedTuple):
    """What a child said, or why it said nothing."""

    values: Any = None
    problem: str = ""


def run(code: str, arguments: Sequence[str], limit: float) -> Sample:
    """Run code in a fresh interpreter that imports from this directory.

    Args:
        code: What to run; it ends in `_sample.answer`. Given as ``-c``, so that no pool takes the
            main program for one that its workers have to run.
        arguments: Its ``sys.argv[1:]``.
        limit: Seconds that it may take.

    Returns:
        The figures, or the problem: out of time, ended with no answer, or an error.
    """
    prepare()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        said, output = Path(folder, "answer.json"), Path(folder, "output")
        paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
        environment = {
            ANSWER: str(said),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "TMPDIR": folder,  # some leave files there
        }
        problem = ""
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                problem = f"hangs: > {limit:.0f} s"
            finally:
                process.kill()
                process.wait()
                end_all(process.pid)
        if problem:
            return Sample(problem=problem)
        if said.exists():
            return Sample(**json.loads(said.read_text()))
        lines = output.read_text(errors="replace").strip().splitlines() or [""]
        return Sample(problem=f"crashes: exit code {process.returncode}; {lines[-1][:150]}")


def end_all(session: int) -> None:
    """Kill what a sample left behind; resource trackers only if they don't end by themselves."""
    for _ in range(TRIES):  # what is killed may just have started another one
        others = [process for process in left(session) if not is_tracker(process)]
        if not others:
            break
        end(others)
    else:
        raise RuntimeError(f"can't be killed: {others}")
    _, staying = psutil.wait_procs(left(session), GRACE)
    end(staying)
    reap()


def left(session: int) -> list[psutil.Process]:
    """Return the processes of a sample that still live."""
    reap()
    found = set(psutil.Process().children(recursive=True))
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if os.getsid(process.pid) == session:
                found.add(process)
    return [process for process in found if lives(process)]


def lives(process: psutil.Process) -> bool:
    """Say whether a process has not ended."""
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def is_tracker(process: psutil.Process) -> bool:
    """Say whether a process only removes what others leave behind."""
    with contextlib.suppress(psutil.Error):
        return "resource_tracker" in " ".join(process.cmdline())
    return False


def end(processes: Sequence[psutil.Process]) -> None:
    """Kill processes, and wait for their end."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, GRACE)


def prepare() -> None:
    """Become the parent of all orphans, where that can be had; clean up also when terminated."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def reap() -> None:
    """Take notice of the end of adopted children, which would stay as zombies."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
