"""The ``"dask"`` kind: a cluster of Dask's, joined or started here.

A parcel becomes one task of Dask's, run by `supervise` in its worker. That it has begun comes back
as an event, through the scheduler; its results come as the task's.

What Dask does differently, and what is made of it:

* It has no way to stop a task that runs. So each parcel can be reached in its worker by name
  (`end_parcels`), through `Client.run`; a call given up there is abandoned, as on threads. One that
  holds the interpreter's lock can't be reached, and not be found late, until it lets go.
* Its scheduler runs tasks again whose worker died; those of poolkit never, see `_dask_scheduler`
  and `_dask_cluster`. It can't be kept from computing anew a result that is lost between a task's
  end and our fetching it.
* Equal calls would run once, by their key; each of ours gets a key of its own.
* Its futures' callbacks run where one that blocks holds up others; ours never get there.
* It warns of large tasks. So their bytes are tasks by themselves, each below that size.
"""

import asyncio
import concurrent.futures
import contextlib
import importlib
import pickle
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from .._backend import Capabilities
from .._cpu import available_cpus
from .._errors import PoolBrokenError, PoolShutdownError
from ._dask_cluster import OwnCluster
from ._dask_scheduler import make_death_rule, make_forgetting
from ._remote_engine import Listener, reason_of, unfit
from ._remote_worker import Parcel
from ._supervised import ask_parcels, end_parcels, have_begun, supervise

# What a client's status is while it can send; it connects anew to a scheduler that was away.
_ALIVE: Final = frozenset({"running", "connecting"})

# How long a lost scheduler of ours is looked for, in seconds; else, Dask's configuration says.
RECONNECT: Final = 10
# How long all workers have to answer a question, in seconds; a task that holds the interpreter's
# lock keeps its worker from doing so.
ANSWER: Final = 3.0
# Once one has not, for so long nobody is asked again, in seconds.
DEAF: Final = 10.0
# The workers are counted anew when so many seconds have passed since.
COUNT_EVERY: Final = 2.0
# A piece of a parcel, in bytes: Dask warns of 10 MB.
PIECE: Final = 8_000_000
# How often to try again where connecting fails for no reason.
TRIES: Final = 3


def _connect(distributed: Any, address: str, options: dict[str, Any]) -> Any:
    """Return a client of a scheduler.

    A busy scheduler may send its greeting and more at once, which Dask's client takes for a fault.
    """
    for _ in range(TRIES):
        with contextlib.suppress(AssertionError):
            return distributed.Client(address, set_as_default=False, **options)
    return distributed.Client(address, set_as_default=False, **options)


def _import(name: str) -> Any:
    """Import a module of the optional packages, which carry no types."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            'the "dask" kind needs distributed, which is not installed: pip install '
            "'poolkit[dask]'"
        ) from error


def _run(name: str, topic: str, pieces: bytes | Sequence[bytes]) -> list[Any]:
    """Run a parcel in a worker of Dask's."""
    worker = _import("distributed").get_worker()
    data = pieces if isinstance(pieces, bytes) else b"".join(pieces)
    del pieces

    def tell(message: tuple[Any, ...]) -> None:
        worker.log_event(topic, [name, *message])

    return supervise(name, Parcel(*pickle.loads(data)), tell)


def _keep(piece: bytes) -> bytes:
    return piece


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
        distributed = _import("distributed")
        if client is not None:
            _check_client(client, distributed)
        self._name = name
        self._topic = f"poolkit-{uuid.uuid4().hex}"
        # Changed by single, atomic operations.
        self._tasks: dict[str, _Task] = {}
        self._ending: set[concurrent.futures.Future[None]] = set()
        self._deaf_until = 0.0
        self._cluster: OwnCluster | None = None
        self._owned = client is None
        self._client: Any = client
        try:
            if client is None:
                if address is None:
                    dask = _import("dask")
                    config = dask.config.serialize(dask.config.global_config)
                    self._cluster = OwnCluster(name, max_workers or available_cpus(), config)
                    address = self._cluster.address
                # A cluster of ours that is gone does not come back; others' may.
                more = {} if self._cluster is None else {"timeout": RECONNECT}
                self._client = _connect(distributed, address, more)
            self.slots = max(1, sum(self._client.nthreads().values()))
            self._counted = time.monotonic()
            if self._cluster is None:
                # Where a scheduler takes no plugins, its own rule holds.
                with contextlib.suppress(Exception):
                    self._client.register_plugin(make_death_rule())
            self._client.subscribe_topic(self._topic, self._heard)
        except BaseException:
            self._release()
            raise

    # -- parcels --------------------------------------------------------------------------------

    def send(self, parcel: Parcel, listener: Listener) -> _Task:
        if self._client.status not in _ALIVE:
            raise self._closed()
        name = f"poolkit-{uuid.uuid4().hex}"
        data = pickle.dumps(tuple(parcel), 5)
        pieces: Any = data
        if len(data) > PIECE:
            starts = range(0, len(data), PIECE)
            pieces = [self._submit(f"{name}-{at}", _keep, data[at : at + PIECE]) for at in starts]
        task = _Task(name, listener, self._submit(name, _run, name, self._topic, pieces))
        self._tasks[name] = task
        self._in_loop(self._follow(task))
        if self._client.status not in _ALIVE:  # since we looked; nobody may be there to follow it
            raise self._closed()
        return task

    def _submit(self, key: str, function: Callable[..., Any], *args: Any) -> Any:
        return self._client.submit(function, *args, key=key, pure=False, retries=0)

    def _in_loop(self, work: Coroutine[Any, Any, Any]) -> "concurrent.futures.Future[Any]":
        try:
            return asyncio.run_coroutine_threadsafe(work, self._client.loop.asyncio_loop)
        except (RuntimeError, AttributeError) as error:  # the loop is closed, and so the client
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
            # Frames would keep the task, and with it its key in the scheduler.
            self._failed(task, error.with_traceback(None))
        else:
            self._tasks.pop(task.name, None)
            for message in messages:
                task.listener.heard(tuple(message))
            task.listener.finished()
            await self._count()

    async def _count(self) -> None:
        """Count the workers' threads, as a cluster grows and shrinks."""
        now = time.monotonic()
        if now - self._counted > COUNT_EVERY:
            self._counted = now
            with contextlib.suppress(Exception):
                self.slots = max(1, sum((await self._client.nthreads()).values()))

    def _failed(self, task: _Task, error: BaseException) -> None:
        """Tell a parcel's listener why Dask's task failed; no call in it can make it fail."""
        if isinstance(error, _import("distributed.scheduler").KilledWorker):
            last: Any = getattr(error, "last_worker", None)
            task.listener.lost(error, died=True, worker=getattr(last, "address", None))
            return
        failure: Exception
        if self._client.status not in _ALIVE:
            failure = self._closed()
        elif isinstance(error, asyncio.CancelledError | concurrent.futures.CancelledError):
            failure = PoolBrokenError(
                self._name, f"the cluster has dropped a task ({reason_of(error)})"
            )
        else:
            failure = unfit(error)
        failure.__cause__ = error
        task.listener.lost(failure, died=False)

    def _closed(self) -> PoolShutdownError:
        return PoolShutdownError(f"the Dask client of {self._name}")

    def give_up(self, handle: _Task) -> None:
        self._tasks.pop(handle.name, None)
        with contextlib.suppress(PoolShutdownError):
            ending = self._in_loop(self._end(handle))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _end(self, task: _Task) -> None:
        if not task.revoked:
            await self._try_to_run(end_parcels, [task.name], by_force=True)
        with contextlib.suppress(Exception):
            await self._client.cancel([task.future], asynchronous=True, force=True)

    def ask_to_stop(self, handle: _Task) -> None:
        with contextlib.suppress(PoolShutdownError):
            self._in_loop(self._try_to_run(ask_parcels, [handle.name]))

    def begun(self, handles: Sequence[_Task]) -> Sequence[bool]:
        answers = self._ask(have_begun, handles)
        if answers is None:
            return [True] * len(handles)
        return [any(answer[index] for answer in answers) for index in range(len(handles))]

    def revoke(self, handles: Sequence[_Task]) -> Sequence[bool]:
        answers = self._ask(end_parcels, handles)
        for index, handle in enumerate(handles):
            handle.revoked = answers is not None and all(answer[index] for answer in answers)
        return [handle.revoked for handle in handles]

    def _ask(
        self, function: Callable[..., list[bool]], handles: Sequence[_Task]
    ) -> list[list[bool]] | None:
        """Ask all workers about parcels; None if not all of them answer."""
        if time.monotonic() < self._deaf_until or self._client.status not in _ALIVE:
            return None
        names = [handle.name for handle in handles]
        try:
            answers = self._in_loop(self._try_to_run(function, names)).result(2 * ANSWER)
        except (Exception, concurrent.futures.CancelledError):
            answers = None
        if answers is None:
            self._deaf_until = time.monotonic() + DEAF
            return None
        return list(answers.values())

    async def _try_to_run(self, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Call a function in every worker; None if not all of them answer in time."""
        try:
            work = self._client.run(function, *args, on_error="ignore", **more)
            return await asyncio.wait_for(work, ANSWER)
        except Exception:  # what becomes of the tasks, we will hear
            return None

    # -- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        if self._client.status in _ALIVE:
            # Else, what was given up would go on in others' cluster.
            concurrent.futures.wait(list(self._ending), 2 * ANSWER)
            with contextlib.suppress(Exception):
                self._client.unsubscribe_topic(self._topic)
                # Which forgets no handler, and so would keep all this as long as the client lives.
                self._client._event_handlers.pop(self._topic, None)
            if self._cluster is None:
                with contextlib.suppress(Exception):
                    self._in_loop(self._forget_topic()).result(ANSWER)
        self._release()

    async def _forget_topic(self) -> None:
        await self._client.run_on_scheduler(make_forgetting(self._topic))

    def _release(self) -> None:
        try:
            if self._owned and self._client is not None:
                self._client.close()
        finally:
            if self._cluster is not None:
                self._cluster.close()


def _check_client(client: Any, distributed: Any) -> None:
    if not isinstance(client, distributed.Client):
        raise TypeError(f"client must be a distributed.Client, not {client!r:.80}")
    if client.asynchronous:
        raise ValueError("client must not be asynchronous; give address=... instead")
    if client.status not in _ALIVE:
        raise ValueError(f"client is {client.status}")
