"""The ``"dask"`` kind: a cluster of Dask's, joined or started here.

A parcel becomes one task of Dask's, run by `supervise` in its worker. That it has begun comes back
as an event, through the scheduler; its results come as the task's.

What Dask does differently, and what is made of it:

* It has no way to stop a task that runs. So each parcel can be reached in its worker by name
  (`end_parcels`), through `Client.run`; a call given up there is abandoned, as on threads.
* Its scheduler runs tasks again whose worker died, ``allowed-failures`` times. In a cluster of ours
  it never does. It can't be kept from computing anew a result that is lost between a task's end
  and our fetching it.
* Equal calls would run once, by their key; each of ours gets a key of its own.
* Its futures' callbacks run where one that blocks holds up others; ours never get there.
"""

import asyncio
import concurrent.futures
import contextlib
import importlib
import logging
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from .._backend import Capabilities
from .._cpu import available_cpus
from .._errors import PoolBrokenError, PoolShutdownError, TaskSerializationError
from ._remote_engine import Listener
from ._remote_worker import Parcel
from ._supervised import end_parcels, have_begun, supervise

# What a client's status is while it can send; it connects anew to a scheduler that was away.
_ALIVE: Final = frozenset({"running", "connecting"})


def _import(name: str) -> Any:
    """Import a module of the optional packages, which carry no types."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            'the "dask" kind needs distributed, which is not installed: pip install '
            "'poolkit[dask]'"
        ) from error


def _run(name: str, topic: str, parcel: Parcel) -> list[Any]:
    """Run a parcel in a worker of Dask's."""
    worker = _import("distributed").get_worker()

    def tell(message: tuple[Any, ...]) -> None:
        worker.log_event(topic, [name, *message])

    return supervise(name, parcel, tell)


class _Task:
    """A parcel that Dask has."""

    def __init__(self, name: str, listener: Listener, future: Any) -> None:
        self.name = name
        self.listener = listener
        self.future = future
        self.revoked = False


class DaskEngine:
    """A Dask cluster; an `Engine`.

    Args:
        name: The pool, for people.
        address: Of the scheduler; None to start a cluster here, in processes.
        client: A client to use instead; it is left open.
        max_workers: How many worker processes to start.
    """

    capabilities = Capabilities(
        priorities=True, serializes=True, deadlines="hard", stops="abandoned"
    )

    def __init__(
        self,
        name: str,
        address: str | None = None,
        client: Any = None,
        max_workers: int | None = None,
    ) -> None:
        self._name = name
        self._topic = f"poolkit-{uuid.uuid4().hex}"
        self._tasks: dict[str, _Task] = {}  # changed by single, atomic operations
        self._cluster: Any = None
        self._owned = client is None
        if client is None:
            client = self._connect(address, max_workers)
        self._client = client
        self.slots = max(1, sum(client.nthreads().values()))
        client.subscribe_topic(self._topic, self._heard)

    def _connect(self, address: str | None, max_workers: int | None) -> Any:
        dask, distributed = _import("dask"), _import("distributed")
        if address is not None:
            return distributed.Client(address, set_as_default=False)
        with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
            self._cluster = distributed.LocalCluster(
                n_workers=max_workers or available_cpus(),
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
        try:
            return distributed.Client(self._cluster, set_as_default=False)
        except BaseException:
            self._cluster.close()
            raise

    # -- parcels --------------------------------------------------------------------------------

    def send(self, parcel: Parcel, listener: Listener) -> _Task:
        if self._client.status not in _ALIVE:
            raise self._closed()
        name = f"poolkit-{uuid.uuid4().hex}"
        future = self._client.submit(
            _run, name, self._topic, parcel, key=name, pure=False, retries=0
        )
        self._tasks[name] = task = _Task(name, listener, future)
        self._in_loop(self._follow(task))
        return task

    def _in_loop(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            asyncio.run_coroutine_threadsafe(work, self._client.loop.asyncio_loop)
        except RuntimeError as error:  # the loop is closed, and with it the client
            work.close()
            raise self._closed() from error

    def _heard(self, event: tuple[float, Any]) -> None:
        """Pass on what a worker tells."""
        name, *message = event[1]
        task = self._tasks.get(name)
        if task is not None:
            task.listener.heard(tuple(message))

    async def _follow(self, task: _Task) -> None:
        """Wait for a task of Dask's, and tell its listener how it ended."""
        try:
            messages = await self._client.gather(task.future, asynchronous=True)
        except BaseException as error:
            self._tasks.pop(task.name, None)
            self._failed(task, error)
        else:
            self._tasks.pop(task.name, None)
            for message in messages:
                task.listener.heard(tuple(message))
            task.listener.finished()

    def _failed(self, task: _Task, error: BaseException) -> None:
        """Tell a parcel's listener why Dask's task failed; no call in it can make it fail."""
        if isinstance(error, _import("distributed.scheduler").KilledWorker):
            last: Any = getattr(error, "last_worker", None)
            task.listener.lost(error, died=True, worker=getattr(last, "address", None))
            return
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        failure: Exception
        if self._client.status not in _ALIVE:
            failure = self._closed()
        elif isinstance(error, asyncio.CancelledError | concurrent.futures.CancelledError):
            failure = PoolBrokenError(self._name, f"the cluster has dropped a task ({reason})")
        else:
            failure = TaskSerializationError(
                "the task",
                reason,
                "The cluster's workers need the Python and the poolkit that this program has",
            )
        failure.__cause__ = error
        task.listener.lost(failure, died=False)

    def _closed(self) -> PoolShutdownError:
        return PoolShutdownError(f"the Dask client of {self._name}")

    def give_up(self, handle: _Task) -> None:
        self._tasks.pop(handle.name, None)
        with contextlib.suppress(PoolShutdownError):
            self._in_loop(self._end(handle))

    async def _end(self, task: _Task) -> None:
        if not task.revoked:
            with contextlib.suppress(Exception):
                await self._client.run(end_parcels, [task.name], by_force=True, on_error="ignore")
        with contextlib.suppress(Exception):
            await self._client.cancel([task.future], asynchronous=True, force=True)

    def begun(self, handles: Sequence[_Task]) -> Sequence[bool]:
        names = [handle.name for handle in handles]
        answers = self._ask(have_begun, names)
        return [any(answer[index] for answer in answers) for index in range(len(names))]

    def revoke(self, handles: Sequence[_Task]) -> Sequence[bool]:
        answers = self._ask(end_parcels, [handle.name for handle in handles])
        for index, handle in enumerate(handles):
            handle.revoked = all(answer[index] for answer in answers)
        return [handle.revoked for handle in handles]

    def _ask(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Call a function in every worker; wait for what those say that can be reached."""
        try:
            answers = self._client.run(function, *args, on_error="ignore")
        except Exception:  # the cluster is gone; what becomes of its tasks, we will hear
            return []
        return list(answers.values())

    def close(self) -> None:
        client = self._client
        if client.status in _ALIVE:
            client.unsubscribe_topic(self._topic)
        if self._owned:
            client.close()
        if self._cluster is not None:
            self._cluster.close()
