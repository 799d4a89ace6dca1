"""A Dask cluster of a pool's own, in a process of its own.

::

    OwnCluster ── stdin ──> scheduler and nannies ──> workers
         └────<── a file with the scheduler's address

That process, and so its workers, never import the user's script: functions of ``__main__`` travel
by value. A script needs no guard, therefore. Ctrl-C does not reach them, as they are a session of
their own, and ignore it. When this process ends, however that is, stdin does, and so they do.
"""

import contextlib
import importlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from .._errors import PoolBrokenError

# How long the cluster may take to end, in seconds, before it is killed.
GRACE: Final = 10.0

_START: Final = """
import json, sys
asked = json.loads(sys.stdin.readline())
sys.path[:] = asked["path"]
from poolkit.backends._dask_cluster import serve
serve(asked["workers"], asked["report"])
"""


class OwnCluster:
    """A cluster that was started here.

    Args:
        name: The pool, for people.
        workers: How many worker processes it has, of one thread each.
        config: Dask's configuration, as text for the environment.

    Raises:
        PoolBrokenError: It does not start.
    """

    def __init__(self, name: str, workers: int, config: str) -> None:
        path = [entry or str(Path.cwd()) for entry in sys.path]
        with tempfile.TemporaryDirectory(prefix="poolkit-") as folder:
            report = Path(folder, "report")
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START],
                stdin=subprocess.PIPE,
                env={**os.environ, "DASK_INTERNAL_INHERIT_CONFIG": config},
                start_new_session=True,
            )
            try:
                self._tell({"path": path, "workers": workers, "report": str(report)})
                self.address: str = self._wait_for(name, report)
            except BaseException:
                self._kill()
                raise

    def _tell(self, what: Any) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(what).encode() + b"\n")
            stdin.flush()

    def _wait_for(self, name: str, report: Path) -> str:
        while not report.exists():
            code = self._process.poll()
            if code is not None:
                raise PoolBrokenError(name, f"its cluster exited with code {code} when it started")
            time.sleep(0.01)
        said: dict[str, str] = json.loads(report.read_text())
        if "error" in said:
            raise PoolBrokenError(name, f"its cluster did not start: {said['error']}")
        return said["address"]

    def close(self) -> None:
        """End the cluster, and wait for that."""
        self._tell("end")  # the end of stdin might be held up by a forked child that has it, too
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        self._kill()

    def _kill(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        if self._process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
            self._process.wait()


def serve(workers: int, report: str) -> None:
    """Be the process of a cluster, until stdin says more, or ends.

    Args:
        workers: How many worker processes.
        report: The file to be written.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the workers inherit that
    said: dict[str, str] = {}
    cluster: Any = None
    scratch = ""
    try:
        scratch = _make_scratch()
        cluster = _start(workers)
        said["address"] = cluster.scheduler_address
    except Exception as error:
        said["error"] = " ".join(f"{type(error).__name__}: {error}".split())
    part = Path(f"{report}.part")
    with contextlib.suppress(OSError):  # nobody waits for it any more
        part.write_text(json.dumps(said))
        part.rename(report)
    if not sys.stdin.readline() and hasattr(os, "killpg"):  # the pool's process has died
        shutil.rmtree(scratch, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)
    if cluster is not None:
        # A worker that is told to end while it starts complains.
        patience = time.monotonic() + GRACE / 2
        while len(cluster.scheduler.workers) < workers and time.monotonic() < patience:
            time.sleep(0.01)
        cluster.close()
    shutil.rmtree(scratch, ignore_errors=True)


def _make_scratch() -> str:
    """Make a folder for all that is written to disk; where Dask is told to have it, if it is."""
    dask: Any = importlib.import_module("dask")
    wanted = dask.config.get("temporary-directory", None)
    scratch = tempfile.mkdtemp(prefix="poolkit-dask-", dir=wanted)
    dask.config.set({"temporary-directory": scratch})
    return scratch


def keep_workers() -> None:
    """Have Dask never give up on a worker of a local cluster, for good.

    By default, it looks 15 s after a death whether the worker is back, and ends what would start it
    anew if it is not. After two deaths within 15 s, it may look just when the second is mended.
    """
    dask: Any = importlib.import_module("dask")
    dask.config.set({"distributed.deploy.lost-worker-timeout": "365d"})


def _start(workers: int) -> Any:
    distributed: Any = importlib.import_module("distributed")
    keep_workers()
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        # There is a server for it in any case, which must not fight over a fixed port.
        dashboard_address="127.0.0.1:0",
        # What ran in a worker that died never runs again by itself.
        scheduler_kwargs={"dashboard": False, "allowed_failures": 0},
        silence_logs=logging.CRITICAL,
    )
