"""`Hand`: takes items from an input, and lets them go in chunks that nobody waits for.

A chunk is pulled item by item. An input that pauses in the middle (a queue, a cursor, a crawler's
frontier that grows by what its own results find) must not hold up the items before the pause:
they leave after a millisecond, sent by a thread that watches all inputs that are being pulled.
The input itself is only ever touched by the thread that calls `Hand.fill`, so generators, database
cursors and whatever else belongs to a thread are safe.

Invariants:

* Only `fill` adds to ``_items``, at the end; whoever takes items away holds ``_lock``, and sends
  them before it lets go of it. So they leave in order.
* A hand is watched only inside `fill`.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import Context, copy_context
from itertools import islice
from typing import Any, Final

from ._clock import Clock
from ._records import Lone

# How long an item may wait for the rest of its chunk, in seconds.
PATIENCE: Final = 0.001
# The watching thread ends when it has had nothing to watch for so many looks.
_IDLE_LOOKS: Final = 20

Item = tuple[Any, ...]
Send = Callable[[Sequence[Item]], None]


class Hand:
    """The end of a verb's input, and what has been taken from it and not been sent."""

    def __init__(self, inputs: Iterable[Item], clock: Clock, *, watched: bool) -> None:
        """Prepare; nothing is pulled before `fill`.

        Args:
            inputs: Argument tuples.
            clock: What measures how long the input takes.
            watched: Whether items may be sent by another thread than the one that pulls them.
        """
        # Of a `Lone` input, the arguments themselves are pulled, and stand in `_items`.
        self._lone = type(inputs) is Lone
        self._inputs: Iterator[Any] = iter(inputs.arguments if type(inputs) is Lone else inputs)
        self._now = clock.monotonic
        self._watched = watched
        self.exhausted = False
        """Whether nothing more will come of the input."""
        self.error: Exception | None = None
        """What the input raised, if it broke off."""
        self.dry = False
        """Whether there is nothing to pull now; only of hands that somebody else fills."""
        self.seconds = 0.0
        """How long the last `fill` took to pull."""
        # Guards taking from `_items`, and `_sent`. Re-entrant, as the collector may strike.
        self._lock = threading.RLock()
        self._items: list[Any] = []
        self._sent = 0  # of those that this `fill` has taken
        self._failure: BaseException | None = None  # of a sending in the other thread
        self._since = 0.0
        self._send: Send | None = None
        self._context: Context | None = None

    def fill(self, count: int, send: Send) -> None:
        """Pull up to `count` items and send them: together, unless the input takes its time.

        Args:
            count: How many.
            send: Called with items; with the lock held, and perhaps in another thread.
        """
        items, start = self._items, self._now()
        self._sent = 0
        watched = self._watched and count > 1
        if watched:
            self._since, self._send, self._context = start, send, copy_context()
        try:
            if watched:  # in here, lest an interrupt leave it watched
                WATCH.begin(self)
            taken = 0
            while taken < count:
                # In slices, so that the clock is read once per many quick items.
                goal = taken + min(count - taken, max(1, taken))
                items.extend(islice(self._inputs, goal - taken))  # one by one, for all to see
                taken = self._count_taken()
                if taken < goal:
                    self.exhausted = True
                    break
                if self._now() - start > PATIENCE:
                    break
        except Exception as error:
            self.exhausted, self.error = True, error
        finally:
            if watched:
                WATCH.end(self)
                self._send = self._context = None
        self.seconds = self._now() - start
        self._let_go(send)
        failure, self._failure = self._failure, None
        if failure is not None:  # where it would have been raised, but for the other thread
            raise failure

    def _count_taken(self) -> int:
        with self._lock:
            return self._sent + len(self._items)

    def close(self) -> None:
        """Pull no more, and forget the input."""
        with self._lock:  # what is just being sent is sent when this returns
            self.exhausted = True
            self._inputs = iter(())
            self._items.clear()

    def hurry(self) -> None:
        """Send what has waited long enough; for the watching thread."""
        send, context = self._send, self._context
        waiting = self._items and self._now() - self._since > PATIENCE
        if waiting and send is not None and context is not None:
            try:
                context.copy().run(self._let_go, send)
            except BaseException as error:  # code of the user's, as it was pickled
                self._failure = error

    def _let_go(self, send: Send) -> None:
        with self._lock:
            count = len(self._items)
            if count:
                items: Any = self._items[:count]
                del self._items[:count]
                self._sent += count
                if self._lone:
                    items = Lone(items) if count > 1 else [(items[0],)]
                send(items)


class PushedHand(Hand):
    """A hand that somebody else fills: an asynchronous input, which nobody can pull from here.

    Used by one thread.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__((), clock, watched=False)
        self.buffer: deque[Item] = deque()
        """What has come and not been sent."""
        self.dry = True
        self._ended = False

    def push(self, item: Item) -> None:
        """Add an item."""
        self.buffer.append(item)
        self.dry = False

    def end(self, error: Exception | None = None) -> None:
        """Say that no more will come, and why."""
        self._ended, self.error = True, error
        self.dry = False

    def fill(self, count: int, send: Send) -> None:
        items = [self.buffer.popleft() for _ in range(min(count, len(self.buffer)))]
        if items:
            send(items)
        self.exhausted = self._ended and not self.buffer
        self.dry = not self._ended and not self.buffer

    def close(self) -> None:
        super().close()
        self.buffer.clear()


class _Watch:
    """The thread that looks after hands which wait for their inputs; one for all."""

    def __init__(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        """Forget everything, in a forked child, where the thread does not exist."""
        self._hands: set[Hand] = set()  # changed by single, atomic operations
        # Guards the fields below. Re-entrant, as the collector may strike while it is held.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._open = False  # whether the thread goes on
        self._bell = threading.Lock()  # held but when the thread is to look
        self._bell.acquire()

    def begin(self, hand: Hand) -> None:
        """Look after a hand from now on."""
        self._hands.add(hand)  # before looking whether the thread goes on; it does the reverse
        if not self._open:
            with self._lock, contextlib.suppress(RuntimeError):  # no more threads
                if not self._open:
                    self._thread = threading.Thread(
                        target=self._keep, name="poolkit-inputs", daemon=True
                    )
                    self._thread.start()
                    self._open = True

    def end(self, hand: Hand) -> None:
        """Look after it no more."""
        self._hands.discard(hand)

    def rest(self) -> None:
        """Have the thread end, and wait for that, if there is nothing to look after."""
        with self._lock:
            thread = None if self._hands else self._thread
            if thread is not None and self._open:
                self._open = False
                with contextlib.suppress(RuntimeError):  # it was rung already
                    self._bell.release()
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)  # not for ever: an input may just have begun that it looks after

    def _keep(self) -> None:
        me, idle = threading.current_thread(), 0
        while not self._is_over(me, idle):
            self._bell.acquire(timeout=PATIENCE)
            idle += 1
            for hand in list(self._hands.copy()):
                hand.hurry()
                idle = 0

    def _is_over(self, me: threading.Thread, idle: int) -> bool:
        with self._lock:
            if me is not self._thread:
                return True
            if idle >= _IDLE_LOOKS and not self._hands:
                self._open = False
            return not self._open and not self._hands


WATCH: Final = _Watch()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WATCH.abandon)
