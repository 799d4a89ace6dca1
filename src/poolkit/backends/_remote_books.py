"""`Books`: which items of a cluster's pool wait here, and which are under way.

Invariants:

* An item that was dispatched is in its batch's ``todo``, or in ``left`` of exactly one `Sent` that
  is in the books, or was reported or given back. Who takes it out of either settles it.
* At most `limit` parcels are under way, so that what has not been sent can be cancelled and goes by
  priority. Quick ones are sent ahead, as they would wait for the network more than for workers; but
  only where the cluster itself lets no more run at once.
* What may not be repeated travels alone; so does what is left of a parcel of several whose worker
  has died, so that the next death shows whose fault it was.
"""

import math
import queue
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from .._backend import Batch, Running
from ._pending import PendingQueue
from ._remote_engine import RemoteRun, Sent

# A cluster takes milliseconds to hand out a task. So each worker is sent, besides the parcel it
# is at, so many seconds of work ahead.
AHEAD: Final = 0.05
# But no more parcels than these: they can't be taken back without asking all workers.
MOST_AHEAD: Final = 16
# For so long nothing is sent ahead once something had to be taken back, or a worker has died with
# others' parcels, in seconds.
CAUTION: Final = 0.5
# For so long nothing is sent at all once something was taken back: who cancels one task cancels
# others, and each that was sent meanwhile would cost another question to all workers. In seconds.
PAUSE: Final = 0.02
# A task that was never heard to begin may be innocent of so many deaths of its workers.
MOST_DEATHS: Final = 3


class Books:
    """The books of one pool; thread-safe.

    Args:
        inbox: Where parcels say how they go.
        limit: How many may run at once.
    """

    def __init__(self, inbox: "queue.SimpleQueue[Any]", limit: int) -> None:
        self._inbox = inbox
        # Guards all fields below, and those of each `Sent`. Re-entrant, as the collector may
        # strike while it is held.
        self.lock = threading.RLock()
        self.limit = limit
        self._pending = PendingQueue()
        self._withdrawn = 0  # roughly, since the queue was swept
        self._sent: dict[Sent, None] = {}
        self._apart: weakref.WeakSet[Batch] = weakref.WeakSet()
        """Batches whose items travel one by one, as a worker died of some."""
        self._deaths: weakref.WeakKeyDictionary[Batch, Counter[int]] = weakref.WeakKeyDictionary()
        """How often a worker has died with an item alone in its parcel."""
        self._mean = math.inf
        """Seconds that a parcel takes; infinite while nobody knows."""
        self._ahead_from = 0.0
        """When parcels may be sent ahead."""
        self._from = 0.0
        """When any may be sent."""

    # -- what waits ---------------------------------------------------------------------------

    def push(self, batch: Batch) -> None:
        """Enter a batch that is to be sent."""
        with self.lock:
            self._pending.push(batch)

    def take_next(self, slots: int) -> Sent | None:
        """Enter the next parcel as under way, if there is one, and room for it.

        Args:
            slots: How many tasks the cluster runs at once.
        """
        with self.lock:
            if self.pause():
                return None
            while (batch := self._pending.peek()) is not None:
                alone = batch.options.at_most_once or batch in self._apart
                ahead = 0
                if not alone and slots <= self.limit and time.monotonic() >= self._ahead_from:
                    ahead = min(MOST_AHEAD, int(AHEAD / self._mean))
                if len(self._sent) >= self.limit * (1 + ahead):
                    return None
                numbers = _claim_one(batch) if alone else batch.claim_rest()
                if numbers:
                    sent = Sent(self._inbox, batch, numbers)
                    self._sent[sent] = None
                    return sent
            return None

    def pause(self) -> float | None:
        """Return for how many seconds nothing is to be sent; None if that is no reason to wait."""
        left = self._from - time.monotonic()
        return left if left > 0 else None

    def take_back(self, batch: Batch) -> list[int]:
        """Take out what of a batch waits here."""
        with self.lock:
            numbers = batch.claim_rest()
            self._withdrawn += 1
            if self._withdrawn > max(256, len(self._pending) // 2):
                self._withdrawn = 0
                self._pending.sweep()
        return numbers

    def take_all(self) -> list[Batch]:
        """Take out all that waits here."""
        with self.lock:
            batches = list(self._pending)
            self._pending.clear()
        return batches

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, and nothing is under way."""
        with self.lock:
            return not self._sent and self._pending.peek() is None

    # -- what is under way --------------------------------------------------------------------

    def __contains__(self, sent: Sent) -> bool:
        return sent in self._sent

    @property
    def under_way(self) -> list[Sent]:
        """All parcels that are."""
        with self.lock:
            return list(self._sent)

    @property
    def silent(self) -> list[Sent]:
        """Those that the cluster has, and that were not heard to begin."""
        with self.lock:
            return [sent for sent in self._sent if sent.number is None and sent.handle is not None]

    def sent_of(self, batch: Batch, number: int) -> Sent | None:
        """Return the parcel that an item is in, if it is under way."""
        with self.lock:
            for sent in self._sent:
                if sent.batch is batch and number in sent.left:
                    return sent
        return None

    def silent_of(self, batch: Batch) -> Sent | None:
        """Return a parcel of a batch that is under way, and was not heard to begin."""
        with self.lock:
            for sent in self._sent:
                if sent.batch is batch and sent.number is None and sent.left:
                    return sent
        return None

    def give_handle(self, sent: Sent, handle: Any) -> bool:
        """Note what the engine calls a parcel; say whether it is still wanted."""
        with self.lock:
            sent.handle = handle
            return sent in self._sent

    def begin(self, sent: Sent, number: int | None, ask: Callable[[], object]) -> bool:
        """Note that a parcel has begun an item, or its first; False if it is none of ours.

        Args:
            sent: The parcel.
            number: The item; None for the first that is left, if it was not heard to begin.
            ask: Asks the parcel to stop.
        """
        with self.lock:
            if sent not in self._sent:
                return False
            if number is None:
                number = next(iter(sent.left), None) if sent.number is None else sent.number
            if number is not None and number != sent.number:
                running = sent.batch.running
                if sent.number is not None:
                    running.pop(sent.number, None)
                sent.number, sent.start = number, time.monotonic()
                if number in sent.left:
                    running[number] = RemoteRun(sent.batch, number, ask)
            return True

    def take(self, sent: Sent, numbers: Sequence[int]) -> list[int]:
        """Take items out of a parcel that have ended; return those that were in it."""
        with self.lock:
            taken = [number for number in numbers if number in sent.left]
            for number in taken:
                del sent.left[number]
                sent.batch.running.pop(number, None)
        return taken

    def put_back(self, sent: Sent) -> None:
        """Strike a parcel off; what is left of it is to be sent again."""
        batch = sent.batch
        with self.lock:
            if self._sent.pop(sent, self) is self:
                return
            left = self.take(sent, list(sent.left))
            if left:
                batch.todo.extend(left)
                batch.todo.sort(reverse=True)
                self._pending.push_first([batch])

    def running(self) -> list[Running]:
        """Return what was heard to begin, and not to end."""
        with self.lock:
            return [
                Running(sent.batch, _at(sent), sent.start)
                for sent in self._sent
                if sent.number is not None and sent.left
            ]

    def count(self) -> int:
        """Return how many items are under way."""
        with self.lock:
            return sum(len(sent.left) for sent in self._sent)

    # -- what is learned of it ----------------------------------------------------------------

    def note_duration(self, seconds: float) -> None:
        """Take note of how long a parcel took."""
        with self.lock:
            spent = max(1e-6, seconds)
            self._mean = spent if self._mean == math.inf else (self._mean + spent) / 2

    def note_recall(self) -> None:
        """Take note that parcels are taken back."""
        with self.lock:
            now = time.monotonic()
            self._ahead_from, self._from = now + CAUTION, now + PAUSE

    def note_death(self, sent: Sent) -> bool:
        """Take note that a worker has died; say whether what is left goes to another."""
        batch = sent.batch
        with self.lock:
            self._ahead_from = time.monotonic() + CAUTION
            if not sent.left:
                return True
            if batch.options.at_most_once or not batch.may_repeat:
                return False
            if len(batch.items) > 1:
                self._apart.add(batch)
            if len(sent.left) > 1:
                return True
            (number,) = sent.left
            deaths = self._deaths.setdefault(batch, Counter())
            deaths[number] += 1
            return sent.number is None and deaths[number] < MOST_DEATHS


def _claim_one(batch: Batch) -> list[int]:
    try:
        return [batch.todo.pop()]
    except IndexError:  # somebody has withdrawn it
        return []


def _at(sent: Sent) -> int:
    """Return the item that a parcel is at, as far as anybody knows."""
    assert sent.number is not None
    return sent.number if sent.number in sent.left else next(iter(sent.left))
