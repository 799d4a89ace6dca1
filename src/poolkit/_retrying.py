"""Trying again: what a batch knows of its further attempts, and the room in which they wait.

::

    report of a failure ──wanted again──> Retrial ──waits in the room──> dispatch ──> report
                                             └──── claimed by take_back() ────> given back

Each further attempt is a batch of one, a `Retrial`, with a life of its own at the backend: an
earlier attempt that was abandoned may still run, and must not be taken for it. The batch that the
item came from, its *owner*, stays on the books until the last attempt has been reported; places
under ``max_pending`` stay taken.

Invariants:

* A retrial is in its owner's `Retries.parts` from before it waits until it is reported or given
  back. Whoever takes its item out of `Batch.todo` goes on with it, as with any batch.
* The room holds no lock while it dispatches.
"""

import abc
import heapq
import itertools
import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ._backend import Backend, Batch, Record
from ._clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from ._retry import Retry

_order = itertools.count()


class Owner(Batch):
    """A batch whose items may be tried again."""

    __slots__ = ("retries",)
    retries: "Retries | None"
    """What is known of that; None if they may not."""

    @property
    @abc.abstractmethod
    def backend(self) -> Backend:
        """What runs it."""

    @abc.abstractmethod
    def dispatch_again(self, retrial: "Retrial") -> None:
        """Hand a further attempt to the backend."""


class Retrial(Batch):
    """One more attempt at one item of a batch."""

    __slots__ = ("attempt", "dispatched", "due", "item", "order", "owner")

    def __init__(self, owner: Owner, item: int, attempt: int, due: float) -> None:
        # Not the constructor above: the context is the one in which the owner was made.
        self.fn = owner.fn
        self.items = (owner.items[item],)
        self.kwargs = owner.kwargs
        self.options = owner.options
        self.context = owner.context.copy()
        self.todo = [0]
        self.running = {}
        self.parcel = None
        self.owner: Owner = owner
        self.item = item
        self.attempt = attempt
        self.due = due
        self.order = next(_order)
        self.dispatched = False
        """The backend has it, or is about to."""

    def __lt__(self, other: "Retrial") -> bool:
        return (self.due, self.order) < (other.due, other.order)

    @property
    def origin(self) -> Batch:
        return self.owner

    @property
    def is_due(self) -> bool:  # type: ignore[override]
        return self.dispatched

    @property
    def unwanted(self) -> bool:  # type: ignore[override]
        return self.owner.unwanted

    def report(self, records: Sequence[Record]) -> None:
        (record,) = records
        retries = self.owner.retries
        assert retries is not None
        retries.parts.pop(self, None)
        self.owner.report([record._replace(number=self.item)])


class Retries:
    """A batch's further attempts; only batches whose options ask for any have this."""

    __slots__ = ("_ended", "latest", "parts", "policy")

    def __init__(self, policy: "Retry") -> None:
        self.policy = policy
        self.parts: dict[Retrial, None] = {}
        """The attempts that wait or run. Changed by single, atomic operations."""
        self.latest: dict[int, tuple[int, float]] = {}
        """By item, if tried again: which attempt it is at, and when that became due."""
        self._ended = threading.Event()  # for who waits in the caller

    def attempt(self, item: int) -> int:
        """Return which attempt an item is at, from 1."""
        return self.latest[item][0] if item in self.latest else 1

    def next_attempt(self, owner: Owner, record: Record, now: float) -> Retrial | None:
        """Return the next attempt at an item, if its record calls for one."""
        attempt = self.attempt(record.number)
        if record.error is None or not self.policy.wants(record.error, attempt):
            return None
        due = now + self.policy.pause(attempt, owner.backend.draw)
        self.latest[record.number] = attempt + 1, due
        retrial = Retrial(owner, record.number, attempt + 1, due)
        self.parts[retrial] = None
        return retrial

    def take_back(self) -> list[int]:
        """Give back the items whose next attempt has not started."""
        numbers: list[int] = []
        for retrial in list(self.parts):
            waits = not retrial.dispatched and retrial.claim(0)
            if waits or retrial.owner.backend.withdraw(retrial):
                self.parts.pop(retrial, None)
                numbers.append(retrial.item)
                room_of(retrial.owner.backend).leave(retrial)
        self._ended.set()
        return numbers

    def run_in_caller(self, clock: Clock = SYSTEM_CLOCK) -> None:
        """Wait for further attempts and run them here, where tasks run in the caller."""
        while self.parts:
            retrial = min(list(self.parts))
            while retrial.todo and (left := retrial.due - clock.monotonic()) > 0:
                self._ended.wait(min(left, threading.TIMEOUT_MAX))
            retrial.owner.dispatch_again(retrial)
            self.parts.pop(retrial, None)  # it may have been taken back


class WaitingRoom:
    """Keeps retrials until they are due; thread-safe. One thread serves all pools.

    The thread is started when somebody waits, and ends when nobody does.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.abandon()

    def abandon(self) -> None:
        """Forget everything, in a forked child, where neither thread nor lock's holder exists."""
        # Guards all fields below. Re-entrant, as the collector may strike while it is held, and
        # what it finalizes may be an iterator that gives its items back.
        self._changed = threading.Condition(threading.RLock())
        self._waiting: list[Retrial] = []  # a heap
        self._thread: threading.Thread | None = None
        self._open = False  # whether the thread goes on

    def enter(self, retrial: Retrial) -> bool:
        """Have a retrial dispatched when it is due; False if there is no thread for that."""
        with self._changed:
            if not retrial.todo:  # taken back on the way; who does that looks here afterwards
                return True
            if not self._open:
                thread = threading.Thread(target=self._keep, name="poolkit-retries", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads, or the interpreter is about to end
                    return False
                self._thread, self._open = thread, True
            heapq.heappush(self._waiting, retrial)
            if self._waiting[0] is retrial:
                self._changed.notify_all()
            return True

    def leave(self, retrial: Retrial) -> None:
        """Forget a retrial that was taken back."""
        with self._changed:
            if retrial in self._waiting:
                self._waiting.remove(retrial)
                heapq.heapify(self._waiting)
                self._changed.notify_all()

    def rest(self) -> None:
        """Wait for the thread to end, if nobody waits any more."""
        with self._changed:
            thread = None if self._waiting else self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _keep(self) -> None:
        while (retrial := self._next()) is not None:
            retrial.owner.dispatch_again(retrial)
            del retrial  # keep nothing while waiting for more

    def _next(self) -> Retrial | None:
        """Wait for the next one to be due; None if there is none."""
        with self._changed:
            while self._waiting:
                left = self._waiting[0].due - self.clock.monotonic()
                if left <= 0:
                    return heapq.heappop(self._waiting)
                self.clock.wait(self._changed, None if left == math.inf else left)
            self._open = False
            return None


ROOM: Final = WaitingRoom()


def room_of(backend: Backend) -> WaitingRoom:
    """Return where further attempts of a backend's tasks wait."""
    room: WaitingRoom = backend.waiting_room or ROOM
    return room
