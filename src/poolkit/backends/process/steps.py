"""The steps of the protocol, for tests that kill a process at each of them.

Outside of such tests a step costs a look at a None. With ``POOLKIT_KILL_WORKER_AT=7:/tmp/done``
in the environment, say, the first worker that takes its seventh step kills itself with SIGKILL
there, and marks that by making the file, so that its successors live. ``POOLKIT_KILL_PARENT_AT``
does the same to a parent, which counts steps of its own.
"""

import os
import signal
from collections.abc import Callable
from typing import Literal


def counter(role: Literal["WORKER", "PARENT"]) -> Callable[[], None] | None:
    """Return what to call at each step of this role; None outside of the tests."""
    wanted = os.environ.get(f"POOLKIT_KILL_{role}_AT")
    if wanted is None:
        return None
    at, _, path = wanted.partition(":")
    left = int(at)

    def reached() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)

    return reached
