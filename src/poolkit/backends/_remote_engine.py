"""What a kind of cluster has to implement, and what it is given to tell how its parcels go."""

import queue
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .._backend import Batch, Capabilities
from .._errors import TaskSerializationError
from .._task import Run
from ._remote_worker import Message, Parcel


class Listener(Protocol):
    """Is told of one parcel. Any thread may call it; it never blocks, and never raises."""

    def heard(self, message: Message) -> None:
        """Take what `run_parcel` has yielded; in order."""
        ...

    def finished(self) -> None:
        """Take note that the parcel has ended, after all that was heard."""
        ...

    def lost(self, error: BaseException, *, died: bool, worker: str | None = None) -> None:
        """Take note that the parcel will not end.

        Args:
            error: Why.
            died: Whether its worker did; else, the cluster refuses it.
            worker: What the cluster calls the worker, if it tells.
        """
        ...


class Engine(Protocol):
    """A cluster, as its clients see it. Any thread may call it, but only one sends."""

    slots: int
    """How many tasks it runs at once; it may change."""
    capabilities: Capabilities

    def send(self, parcel: Parcel, listener: Listener) -> Any:
        """Have a worker run a parcel, some time. Returns at once.

        Returns:
            What `give_up` and `revoke` are to be given.
        """
        ...

    def give_up(self, handle: Any) -> None:
        """Stop a parcel by whatever means there are. Its listener need not be told any more."""
        ...

    def ask_to_stop(self, handle: Any) -> None:
        """Set the tokens of a parcel's tasks; only where `Capabilities.stops` is "abandoned"."""
        ...

    def begun(self, handles: Sequence[Any]) -> Sequence[bool]:
        """Ask which parcels have begun, of those that were not heard to.

        What nobody can tell in a moment counts as begun, so that nobody waits to take it back.
        """
        ...

    def revoke(self, handles: Sequence[Any]) -> Sequence[bool]:
        """Take parcels back that no worker has begun; say of each whether it never will be.

        Those are given up next.
        """
        ...

    def close(self) -> None:
        """Release everything; all parcels have ended."""
        ...


def unfit(error: BaseException) -> TaskSerializationError:
    """Return the error of a parcel that a worker could not even begin to run."""
    return TaskSerializationError(
        "the task",
        reason_of(error),
        "The cluster's workers need the Python and the poolkit that this program has",
    )


def reason_of(error: BaseException) -> str:
    """Return what a cluster says of a failure, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


class Sent:
    """A parcel under way; its `Listener`. The lock of `Books` guards its fields."""

    def __init__(self, inbox: "queue.SimpleQueue[Any]", batch: Batch, numbers: list[int]) -> None:
        self._inbox = inbox
        self.batch = batch
        self.left = dict.fromkeys(numbers)
        """Items whose end has not been heard of."""
        self.number: int | None = None
        """The item that it was last heard to begin."""
        self.start = 0.0
        self.worker = ""
        self.pid: int | None = None
        self.handle: Any = None
        """The engine's; None while it is being sent."""

    def heard(self, message: Message) -> None:
        self._inbox.put((self, message))

    def finished(self) -> None:
        self._inbox.put((self, ("finished",)))

    def lost(self, error: BaseException, *, died: bool, worker: str | None = None) -> None:
        self._inbox.put((self, ("lost", error, died, worker)))


class RemoteRun(Run):
    """What stands for a cluster's worker in `Batch.running`."""

    def __init__(self, batch: Batch, number: int, ask: Callable[[], object]) -> None:
        super().__init__(batch)
        self.number = number
        self._ask = ask

    def ask_to_stop(self) -> None:
        super().ask_to_stop()
        self._ask()

    def hand_over(self) -> None:
        """Do nothing: what has ended is on its way."""
