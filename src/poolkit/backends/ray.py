"""The ``"ray"`` kind: Ray, joined or started here.

A parcel becomes one task of Ray's, a generator whose messages come as they are yielded::

    RayEngine.send ──> Ray ──> a worker's main thread: run_parcel
    the listener <── RayConnection's thread <── a stream of messages

What Ray does differently, and what is made of it:

* A task that runs is stopped with its worker, whatever it does; Ray starts another one.
* Ray would run tasks again whose worker died; that is off, as is computing lost results anew.
* Workers of a Ray that is started here find modules wherever this process does. Those of a cluster
  find what is installed there, and on this machine what is in the script's folder or the current
  one.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .._backend import Capabilities
from .._cpu import available_cpus
from ._ray_connection import RayTask, connect, leave
from ._remote_engine import Listener
from ._remote_worker import Message, Parcel

# What poolkit tells Ray of each task.
_FIXED: Final[Mapping[str, Any]] = {
    "num_returns": "streaming",
    "max_retries": 0,
    "retry_exceptions": False,
    # Each message waits until it was taken; see `_ray_connection`.
    "_generator_backpressure_num_objects": 1,
}


class RayEngine:
    """A Ray cluster; an `Engine`.

    Args:
        name: The pool, for people.
        address: Of the cluster, ``"host:port"``, or ``"auto"`` for the one of this machine; None to
            use what this process is connected to, or what ``RAY_ADDRESS`` names, or else to start
            one here, for this pool and all that come before it is shut down.
        max_workers: How many CPUs that one has; None for as many as this process may use.
        ray_options: More of what ``RemoteFunction.options`` takes, for each task: ``num_cpus``,
            ``num_gpus``, ``memory``, ``resources``, ``runtime_env`` and others.

    Raises:
        ConnectionError: No cluster answers at the address.
        ImportError: Ray is not installed.
        UnsupportedError: The process is connected through Ray's client.
        ValueError: An option is not one of Ray's, or not for others to set; the cluster lacks what
            a task needs; or the process is connected to another cluster.
    """

    capabilities = Capabilities(priorities=True, serializes=True, deadlines="soft", stops="killed")

    def __init__(
        self,
        name: str,
        address: str | None = None,
        max_workers: int | None = None,
        ray_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._name = name
        ray = _import()
        options = dict(ray_options or {})
        _check(options)
        run = ray.remote(**{"name": name, **options, **_FIXED})(_make_runner())
        self._connection = connect(ray, address, max_workers or available_cpus())
        try:
            self.slots = _count_slots(ray.cluster_resources(), options)
            if self.slots == 0 and self._connection.is_local:
                raise ValueError(f"the Ray of this machine does not have what {options} needs")
        except BaseException:
            leave(self._connection)
            raise
        self.slots = max(1, self.slots)
        self._start: Callable[..., Any] = run.remote

    def send(self, parcel: Parcel, listener: Listener) -> RayTask:
        if not self._connection.is_alive():  # else Ray would connect anew, to whatever it finds
            raise self._connection.lost(self._name)
        path = _search_path() if self._connection.is_local else []
        task = RayTask(self._name, self._start(path, tuple(parcel)), listener)
        self._connection.follow(task)
        return task

    def give_up(self, handle: RayTask) -> None:
        self._connection.bury(handle)

    def ask_to_stop(self, handle: RayTask) -> None:
        """Do nothing: nothing tells a task of Ray's anything; what runs is killed."""

    def begun(self, handles: Sequence[RayTask]) -> Sequence[bool]:
        return self._connection.begun(handles)

    def revoke(self, handles: Sequence[RayTask]) -> Sequence[bool]:
        return self._connection.revoke(handles)

    def close(self) -> None:
        leave(self._connection)


def _import() -> Any:
    """Import Ray, which carries no types of use here."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError(
            "the \"ray\" kind needs Ray, which is not installed: pip install 'poolkit[ray]'"
        ) from error


def _check(options: Mapping[str, Any]) -> None:
    for option in options:
        if option in _FIXED:
            raise ValueError(
                f"ray_options can't set {option!r}, which is poolkit's own; "
                "to have tasks tried again, give make_executor a retry"
            )


def _count_slots(have: Mapping[str, float], options: Mapping[str, Any]) -> int:
    """Return how many tasks a cluster can run at once."""
    need: dict[str, float | None] = {
        "CPU": options.get("num_cpus", 1),
        "GPU": options.get("num_gpus"),
        "memory": options.get("memory"),
        **(options.get("resources") or {}),
    }
    counts = [have.get(name, 0.0) / amount for name, amount in need.items() if amount]
    return int(min(counts, default=have.get("CPU", 1.0)) + 1e-6)


def _search_path() -> list[str]:
    """Return where this process looks for modules, for another one on this machine."""
    return [entry or str(Path.cwd()) for entry in sys.path]


def _make_runner() -> Callable[..., Iterator[list[Message]]]:
    """Return what Ray's worker is to run.

    That is no function of a module, so that it travels by value, and can tell the worker where the
    module is.
    """

    def run(path: list[str], parts: tuple[Any, ...]) -> Iterator[list[Message]]:
        import sys

        sys.path.extend(entry for entry in path if entry not in sys.path)
        from poolkit.backends._remote_worker import Parcel, run_parcel

        parcel = Parcel(*parts)
        limited = parcel.limit is not None
        # With a limit, what has ended must be known when the next call is late; it travels with
        # the news that that one begins, as each message costs a wait.
        held: list[Message] = []
        for message in run_parcel(parcel, hold=0.0 if limited else None):
            held.append(message)
            if not limited or message[0] != "ended":
                yield held
                held = []
        if held:
            yield held

    return run
