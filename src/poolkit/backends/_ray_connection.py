"""This process's connection to Ray, which all pools share, and the thread that owns it.

Invariants:

* Each message of a task holds its worker up until we have taken it. So a call begins only once we
  know that it will, and a task of which nothing was taken has begun nothing. What is taken, and
  what is revoked instead, is decided in one thread, without a pause.
* A stream that is dropped no longer holds its worker up. So it is kept until its task has ended.
* A process has one connection to Ray. The last pool ends it, unless it was there before. Somebody
  else may end it below us, which nobody tells; so we look now and then.
* What Ray starts ends with the *thread* that started it. So a thread of ours does, and stays. As
  it is not the main thread, Ray leaves the program's handler of SIGTERM alone.
"""

import asyncio
import contextlib
import importlib
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final

from .._errors import PoolBrokenError
from ._ray_start import LOCAL, check_address, join_cluster, no_client, start_cluster
from ._remote_engine import Listener, reason_of, unfit
from ._remote_worker import Message

# How often we look whether somebody has ended the connection, in seconds.
_LOOK: Final = 0.5
# How long tasks that were given up may take to end, in seconds, before we leave a cluster.
_PATIENCE: Final = 5.0


class RayTask:
    """A parcel that Ray has. Its connection's thread changes it."""

    def __init__(self, pool: str, stream: Any, listener: Listener) -> None:
        self.pool = pool
        """For people."""
        self.stream = stream
        self.listener = listener
        self.taken = False
        """Whether anything was taken from the stream, so that its calls have begun."""
        self.follower: asyncio.Task[None] | None = None


class RayConnection:
    """The connection; made by `connect`, ended by `leave`.

    Args:
        ray: The package.
        address: Of a cluster; None to use what the process is connected to, or to start one.
        cpus: How many CPUs one that is started here has.
    """

    def __init__(self, ray: Any, address: str | None, cpus: int) -> None:
        self.ray = ray
        self.users = 0
        self.is_local = False
        self.asked: str | None = None
        """The address that it was made with."""
        self.address: str | None = None
        """The cluster's own name for it."""
        self._folder: str | None = None
        self._owned = False
        self._identity: str | None = None
        # Only its thread uses the next four.
        self._tasks: set[RayTask] = set()
        self._burials: set[asyncio.Task[None]] = set()
        self._over = False
        self._watcher: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._serve, args=(ready, address, cpus), name="poolkit-ray", daemon=True
        )
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # unless it is Ctrl-C, the loop is closed
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            raise

    def is_alive(self) -> bool:
        """Whether it still is what the process is connected to."""
        return bool(self.ray.is_initialized()) and self._identity == self._identify()

    def _identify(self) -> str:
        return str(self.ray.get_runtime_context().get_worker_id())

    # -- coming and going -----------------------------------------------------------------------

    def _serve(self, ready: "Future[None]", address: str | None, cpus: int) -> None:
        loop = self._loop
        try:
            try:
                self._connect(address, cpus)
            except BaseException as error:
                ready.set_exception(error)
                return
            self._watcher = loop.create_task(self._watch())
            ready.set_result(None)
            loop.run_forever()
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left))
        finally:
            self._disconnect()
            loop.close()

    def _connect(self, address: str | None, cpus: int) -> None:
        ray = self.ray
        if not ray.is_initialized():
            address = address or os.environ.get("RAY_ADDRESS", LOCAL)
            check_address(address)
            self._owned = True
            self.asked = address
            self.is_local = address == LOCAL
            if self.is_local:
                self._folder = start_cluster(ray, cpus)
            else:
                join_cluster(ray, address)
        elif importlib.import_module("ray.util.client").ray.is_connected():
            raise no_client()
        self.address = ray.get_runtime_context().gcs_address
        self._identity = self._identify()

    def _disconnect(self) -> None:
        with contextlib.suppress(Exception):
            if self._owned and (self._identity is None or self.is_alive()):
                try:
                    self.ray.shutdown(wait_for_processes=True)
                except TypeError:  # it is too old to know that
                    self.ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def stop(self) -> None:
        """End the connection, if it is ours, and the thread."""

        async def finish() -> None:
            if self._burials and not self.is_local:
                await asyncio.wait(self._burials, timeout=_PATIENCE)
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(finish(), self._loop)
        self._thread.join()

    async def _watch(self) -> None:
        """Tell of the end of the connection, of which its tasks would never hear."""
        while self.is_alive():
            await asyncio.sleep(_LOOK)
        self._over = True
        for burial in self._burials:
            burial.cancel()
        for task in list(self._tasks):
            self._drop(task)
            task.listener.lost(self.lost(task.pool), died=False)

    def lost(self, pool: str) -> PoolBrokenError:
        """Return the error of a pool whose connection is not there any more."""
        return PoolBrokenError(pool, "its connection to Ray was ended, by ray.shutdown()")

    # -- tasks ----------------------------------------------------------------------------------

    def follow(self, task: RayTask) -> None:
        """Begin to pass on a task's messages."""
        self._loop.call_soon_threadsafe(self._begin, task)

    def bury(self, task: RayTask) -> None:
        """Pass nothing on any more, and stop the task whatever it does."""
        self._loop.call_soon_threadsafe(self._end, task)

    def begun(self, tasks: Sequence[RayTask]) -> list[bool]:
        """Say which tasks have begun. Waits for the thread, which may be about to note one."""

        async def look() -> list[bool]:
            return [task.taken for task in tasks]

        return asyncio.run_coroutine_threadsafe(look(), self._loop).result()

    def revoke(self, tasks: Sequence[RayTask]) -> list[bool]:
        """Take nothing from those of which nothing was taken; say which. Waits for the thread."""

        async def decide() -> list[bool]:
            for task in tasks:
                if not task.taken and task.follower is not None:
                    task.follower.cancel()
            return [not task.taken for task in tasks]

        return asyncio.run_coroutine_threadsafe(decide(), self._loop).result()

    def _begin(self, task: RayTask) -> None:
        if self._over:
            task.listener.lost(self.lost(task.pool), died=False)
            return
        self._tasks.add(task)
        task.follower = self._loop.create_task(self._follow(task))

    def _drop(self, task: RayTask) -> None:
        self._tasks.discard(task)
        assert task.follower is not None
        task.follower.cancel()

    def _end(self, task: RayTask) -> None:
        if task in self._tasks:
            self._drop(task)
            burial = self._loop.create_task(self._bury(task))
            self._burials.add(burial)
            burial.add_done_callback(self._burials.discard)

    async def _bury(self, task: RayTask) -> None:
        with contextlib.suppress(Exception):
            self.ray.cancel(task.stream, force=True)
            await task.stream.completed()

    async def _follow(self, task: RayTask) -> None:
        try:
            async for reference in task.stream:
                task.taken = True
                _pass_on(await reference, task.listener)
                del reference  # keep nothing alive while waiting for more
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failed(task, error)
        else:
            task.listener.finished()
        self._tasks.discard(task)

    def _failed(self, task: RayTask, error: BaseException) -> None:
        """Tell a task's listener why it failed; no call in a parcel can make it fail."""
        known = self.ray.exceptions
        refusals = (
            known.TaskCancelledError,  # by others than us
            known.TaskUnschedulableError,
            known.RuntimeEnvSetupError,
        )
        failure: Exception
        if isinstance(error, known.RayTaskError):
            failure = unfit(error)
        elif isinstance(error, known.RayError) and not isinstance(error, refusals):
            task.listener.lost(error, died=True)
            return
        else:
            failure = PoolBrokenError(
                task.pool, f"the cluster has refused a task ({reason_of(error)})"
            )
        failure.__cause__ = error
        task.listener.lost(failure, died=False)


def _pass_on(messages: Sequence[Message], listener: Listener) -> None:
    for message in messages:
        listener.heard(message)


class _Shared:
    """The connection that pools share."""

    def __init__(self) -> None:
        # Guards the field below, and how many use a connection. Re-entrant, as the collector may
        # end a forgotten pool while it is held.
        self.lock = threading.RLock()
        self.connection: RayConnection | None = None


_shared = _Shared()


def connect(ray: Any, address: str | None, cpus: int) -> RayConnection:
    """Return the process's connection to Ray; make it if there is none. Takes seconds, then.

    Args:
        ray: The package.
        address: Of a cluster; None to use what the process is connected to, or to start one.
        cpus: How many CPUs one that is started here has.

    Raises:
        ConnectionError: No cluster answers at the address.
        UnsupportedError: It would go through Ray's client, which carries no streams.
        ValueError: It is no address, or the process is connected to another cluster.
    """
    if address is not None:
        check_address(address)
    with _shared.lock:
        connection = _shared.connection
        if connection is None or not connection.is_alive():
            connection = _shared.connection = RayConnection(ray, address, cpus)
        connection.users += 1
    if address not in (None, "auto", connection.address, connection.asked):
        leave(connection)
        raise ValueError(
            f"this process is connected to Ray at {connection.address} and can't join "
            f"{address!r}, too; give that address or none, or end the connection first"
        )
    return connection


def leave(connection: RayConnection) -> None:
    """End what `connect` has begun; the last user of a connection of ours ends that."""
    with _shared.lock:
        connection.users -= 1
        if connection.users == 0:
            if _shared.connection is connection:
                _shared.connection = None
            connection.stop()
