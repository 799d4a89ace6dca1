"""The lifeline: how a worker ends with its parent, whatever either of them is doing.

The worker has the reading end of a pipe, of which only the parent has the writing end, and into
which nobody writes. When the parent is gone, the kernel sends SIGKILL to the worker's process
group. A thread of the worker's could not do that while C code holds the interpreter's lock.
"""

import contextlib
import os
import select
import signal
import sys
import threading


def lead_group() -> bool:
    """Make this process the leader of a group of its own; say whether it is."""
    if not hasattr(os, "setpgid"):
        return False
    with contextlib.suppress(OSError):  # a leader of a session can't, and is one already
        os.setpgid(0, 0)
    return os.getpgrp() == os.getpid()


def end_with(lifeline: int, *, leads_group: bool) -> None:
    """Have this process and its group killed when the other end of `lifeline` is closed.

    Args:
        lifeline: The reading end; it has to stay open.
        leads_group: Whether the whole group may be killed.
    """
    if sys.platform != "linux":
        threading.Thread(
            target=_wait_and_end, args=(lifeline, leads_group), name="poolkit-lifeline", daemon=True
        ).start()
        return
    import fcntl

    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpid() if leads_group else os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    # Before this the kernel told nobody; from now on it will.
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    if poll.poll(0):
        _end(leads_group)


def _wait_and_end(lifeline: int, leads_group: bool) -> None:
    with contextlib.suppress(OSError):
        os.read(lifeline, 1)
    _end(leads_group)


def _end(leads_group: bool) -> None:
    if leads_group:
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
