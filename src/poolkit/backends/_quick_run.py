"""Running the items of a batch of which nobody asks when each ran: faster, where they are quick."""

import time
from contextvars import Context
from itertools import repeat
from typing import Final

from .._backend import Batch, Lone, Successes
from .._records import EvenTimes, Record
from ._run import REPORT_EVERY, ChunkRun, LocalRun
from ._tracebacks import without_our_frame

# How many quick items run between two looks at the clock, which costs half as much as one of them.
_SPRINT: Final = 16
# How long these may take, in seconds. If it was more, the next time it is one item.
_SPRINT_SECONDS: Final = 50e-6
# In the hand, between two items.
_NOTHING: Final = -1


class QuickRun(ChunkRun):
    """A pass over a batch of many, none of which has a limit, and whose times nobody asks for.

    Invariants:

    * ``_hand`` holds the number of the item that runs, or `_NOTHING`. Who takes an item out of it
      has the right to report it: the worker puts `_NOTHING` in its place when the call has
      returned, `give_up` leaves the hand empty. So the worker finds out before it claims the next.
    * In ``batch.running``, it stands under a key that is no item's number.
    * Two of ``_times`` are enough: when the first of the values' items began, and when we looked
      last.
    """

    def __init__(self, batch: Batch, worker: str, owner: object = None) -> None:
        super().__init__(batch, worker, owner)
        self._hand = [_NOTHING]

    @property
    def at_hand(self) -> int | None:
        """The number of the item that runs, if there is one. Any thread may ask."""
        hand = self._hand[:]
        return hand[0] if hand and hand[0] != _NOTHING else None

    def give_up(self, number: int) -> bool:
        """Take an item from the worker; False if it does not run. Any thread may call it."""
        try:
            self._hand.remove(number)
        except ValueError:
            return False
        return True

    def _settle(self, batch: Batch, number: int) -> bool:
        try:
            self._hand[0] = _NOTHING
        except IndexError:
            return False
        return True

    def _run_some(self, batch: Batch, context: Context) -> bool:
        key = -id(self)
        batch.running[key] = self
        try:
            return self._run_quickly(batch, context)
        finally:
            batch.running.pop(key, None)

    def _run_quickly(self, batch: Batch, context: Context) -> bool:
        todo, fn, items, hand = batch.todo, batch.fn, batch.items, self._hand
        lone = items.arguments if type(items) is Lone else None
        values, times, clock = self._values, self._times, time.monotonic
        claim, keep = todo.pop, values.append
        filled = len(context) > 0
        expected = self._first + len(values) if times else -1
        end = clock()
        report_at = self._reported + REPORT_EVERY
        few = 1
        while todo:
            self.start = start = end
            for _ in repeat(None, few):
                try:
                    number = claim()
                except IndexError:
                    break
                if number != expected:
                    self._begin_at(number, start)
                expected = number + 1
                self.token = None
                hand[0] = number
                try:
                    value = fn(*items[number]) if lone is None else fn(lone[number])
                except BaseException as caught:
                    if not self._failed(batch, number, without_our_frame(caught), start):
                        return False
                    expected = -1
                else:
                    try:
                        hand[0] = _NOTHING
                    except IndexError:
                        self._too_late(batch, number, None, clock() - start)
                        return False
                    keep(value)
                    del value  # keep nothing alive while the next one runs
                if filled or context:  # that is, if it holds anything; `len` costs twice as much
                    break
            end = clock()
            if times:
                times[1:] = [end]
            few = min(2 * few, _SPRINT) if end - start < _SPRINT_SECONDS else 1
            if end > report_at and todo:
                self.hand_over()
                end = clock()
                report_at = end + REPORT_EVERY
                times[-1:] = [end]
            if filled or context:
                break
        return True

    def take_records(self) -> Successes | tuple[Record, ...]:
        with self._taking:
            first, values, times = self._first, self._values, self._times
            count = len(values)
            if not count:
                return ()
            even = EvenTimes(times[0], times[-1], count)
            self._first += count
            taken = Successes(first, values[:count], even, self.worker)
            del values[:count]
            del times[:-1]
            return taken


def make_run(batch: Batch, worker: str, owner: object = None) -> LocalRun:
    """Return a pass over a batch, to be executed.

    Not here: an error's traceback leads back to all frames that the call was made from, and one
    of them would keep the batch.
    """
    if len(batch.items) == 1:
        return LocalRun(batch, worker, owner)
    exact = batch.timed or batch.options.task_timeout is not None
    return (ChunkRun if exact else QuickRun)(batch, worker, owner)
