"""How worker processes are started; kept light, to be imported before all else."""

import contextlib
import multiprocessing
import os
import sys
from multiprocessing.context import BaseContext
from typing import Any, Final

_WORKER: Final = "poolkit.backends.process.worker"


def find_context(start_method: str | None, mp_context: Any) -> BaseContext:
    """Return the context that the options of the process kind ask for.

    Raises:
        ValueError: There is no such start method.
        TypeError: It is no context.
        RuntimeError: This process is a worker that is still importing the user's script.
    """
    if start_method is not None and mp_context is not None:
        raise ValueError("give start_method or mp_context, not both")
    methods = multiprocessing.get_all_start_methods()
    if start_method is not None and start_method not in methods:
        raise ValueError(f"start_method must be one of {', '.join(methods)}, not {start_method!r}")
    if mp_context is not None and not isinstance(mp_context, BaseContext):
        raise TypeError(
            f"mp_context must come from multiprocessing.get_context(), not be {mp_context!r:.80}"
        )
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "a worker that imports this script has come upon code that makes a pool of processes. "
            "What a script does, other than define things, must stand below "
            "if __name__ == '__main__':"
        )
    if mp_context is not None:
        return mp_context
    default = "forkserver" if "forkserver" in methods else "spawn"
    return multiprocessing.get_context(start_method or default)


def warm_up(start_method: str | None, mp_context: Any) -> None:
    """Start the server that forks the workers, if they are to come from there, and return.

    It takes some 50 ms to start, while the caller imports what else a pool needs. It is told to
    import what workers need, so that they have it from birth.
    """
    if find_context(start_method, mp_context).get_start_method() != "forkserver":
        return
    from multiprocessing import forkserver

    server = forkserver._forkserver
    modules = getattr(server, "_preload_modules", None)
    idle = getattr(server, "_forkserver_pid", 0) is None
    if isinstance(modules, list) and idle and _WORKER not in modules:
        forkserver.set_forkserver_preload([*modules, _WORKER, "_ctypes"])
    forkserver.ensure_running()


def forget_server() -> None:
    """In a forked child: have it start a server of its own, should it need one.

    The parent's is no child of this process, on which multiprocessing stumbles; and it lives as
    long as anybody holds this descriptor.
    """
    server: Any = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    descriptor = getattr(server, "_forkserver_alive_fd", None)
    if descriptor is not None:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None
