"""`Simulation`: threads that take turns, in an order that is chosen, on a clock of their own.

::

    participant ── switch(ready, wake_at) ──> waits for its turn
         ^                                         │
         └──── chosen among those that can go on ──┘

The thread that makes a simulated executor, and every worker of it, is a *participant*. Exactly one
of them has the turn; all others sleep in `switch`, or in `dismiss`. Whoever has the turn keeps it
until it calls one of the two; it then chooses itself who is next, and wakes it.

Invariants:

* All fields of a simulation and of its participants are touched only by the participant that has
  the turn, but for what other threads dispatch. So they need no lock.
* Time passes only when nobody can go on.
* Who can go on is decided by what is true (``ready``) or by the time (``wake_at``), never by the
  order in which threads happen to run.
"""

import contextlib
import heapq
import itertools
import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .._task import threads
from ._clock import VirtualClock
from ._code import place_of
from ._errors import Ended, WouldBlockError
from ._host import here, taking_part
from ._locks import COOPERATION
from ._participant import Limited, Participant, Staffed, always
from ._room import VirtualRoom
from ._schedule import Choices

# How long to wait for threads that take no part, in real seconds, before nobody can go on.
PATIENCE: Final = 5.0
# How often, in real seconds, to look whether who has the turn does anything.
_LOOK: Final = 2.0
# How long to wait for the turn, in real seconds, where there may be nobody to give it back.
_LAST_WAIT: Final = 1.0
# How often what is left of a task is told to end.
_MOST_ENDS: Final = 20
# So many changes are too many: somebody waits in a loop for what does not come.
_MOST_CHANGES: Final = 200_000
# Threads of ours that never let anybody go on by themselves.
_OWN_THREADS: Final = (
    "poolkit-simulated",
    "poolkit-deadlines",
    "poolkit-retries",
    "poolkit-inputs",
    "poolkit-watchdog",
)


_order = itertools.count()


class Simulation:
    """Who has the turn, what the time is, and what was chosen so far. A `Host`."""

    def __init__(self, choices: Choices, *, explored: bool = False) -> None:
        self.choices = choices
        self.explored = explored
        """Whether `explore` runs it, which tells itself how to replay it."""
        self.clock = VirtualClock()
        self.room = VirtualRoom(self.clock)
        self.workers: list[Participant] = []
        """All that were ever made, but for the test's own thread."""
        self.main = Participant(self, "the test")
        self.turn = self.main
        self.participants = [self.main]
        """Those that want turns, in the order of their numbers."""
        self.pools: list[Staffed] = []
        self.joined: list[Staffed] = []
        """All the pools that there ever were."""
        self._deadlines: list[tuple[float, int, Limited]] = []  # a heap
        self.log: list[tuple[Any, str, str]] = []
        """What happened: with what task, and where."""
        self.broken = False
        """Somebody has kept the turn; there is no telling any more who runs."""
        self.patience = PATIENCE
        """How long to wait for threads that take no part, in real seconds."""
        self.lines = 0
        """How many lines were switch points."""
        self._changes = 0
        self._naps = 0
        self.main.ident = threading.get_ident()
        self.main.thread_id = threading.get_native_id()
        self.open = True
        here.enter(self)
        here.participant = self.main
        COOPERATION.begin()

    # -- taking turns -----------------------------------------------------------------------

    def switch(self, ready: Callable[[], bool], wake_at: float = math.inf) -> None:
        """Give the turn away until something is true, or it is time; and it is chosen again.

        Args:
            ready: Whether the caller can go on; called by other participants too.
            wake_at: When it can go on in any case.

        Raises:
            BaseException: What was to be raised in the caller meanwhile.
        """
        me: Participant = here.participant
        if not self.open and me is not self.main:
            raise Ended
        if self.broken:
            raise WouldBlockError([str(me.what)], "The simulation was given up before")
        me.ready, me.wake_at, me.frame = ready, wake_at, sys._getframe(1)
        me.patient = threads.patient
        try:
            self._pass_on(me)
        finally:
            me.ready, me.wake_at, me.frame = always, math.inf, None
        me.raise_error()

    def dismiss(self) -> None:
        """Give the turn away until there is another task for the caller, a worker."""
        me: Participant = here.participant
        self.participants.remove(me)
        self._pass_on(me, stays=False)
        me.raise_error()

    def resign(self) -> None:
        """Give the turn away for good."""
        me: Participant = here.participant
        me.ended = True
        with contextlib.suppress(ValueError):
            self.participants.remove(me)
        if self.turn is me:  # else it was given up, and comes back too late
            chosen = self._choose(None)
            here.participant = None
            self.turn = chosen
            chosen.wake()
        here.participant = None

    def enlist(self, participant: Participant) -> None:
        """Let somebody take part."""
        participant.ready, participant.wake_at = always, math.inf
        self.participants.append(participant)
        self.participants.sort(key=lambda each: (each.number, each.place))

    def _pass_on(self, me: Participant, *, stays: bool = True) -> None:
        chosen = self._choose(me if stays else None)
        if chosen is me:
            return
        self.turn = chosen
        if self.open and chosen.frame is not None:
            self.log.append((chosen.what, "goes on", place_of(chosen.frame)))
        chosen.wake()
        if me is self.main:
            self._sleep_watchfully(me)
        else:
            me.sleep()

    def _sleep_watchfully(self, me: Participant) -> None:
        """Wait for the turn, but not for somebody who keeps it for ever; and mind interrupts."""
        seen = (-1, -1)
        try:
            while not me.sleep(_LOOK):
                now = self._changes, self._naps
                if seen == now and _is_asleep(self.turn.thread_id):
                    break
                seen = now
            else:
                return
        except BaseException as interrupt:  # Ctrl-C, or what else a signal's handler raises
            # It has to wait for the turn, or two would run; but not for long.
            me.error = interrupt
            if not self._comes_soon(me):
                self.broken = True
                raise
            return
        self.broken = True
        frame = sys._current_frames().get(self.turn.ident)
        raise WouldBlockError(
            [f"{self.turn.what} ({place_of(frame)})"],
            "It waits for something that the simulation can't see, such as a lock that was made "
            "outside of it, or for real time",
        )

    def _comes_soon(self, me: Participant) -> bool:
        try:
            return me.sleep(_LAST_WAIT)
        except BaseException:  # another interrupt
            self.broken = True
            raise

    def _choose(self, me: Participant | None) -> Participant:
        given_up, patient_until = math.inf, time.monotonic() + self.patience
        while True:
            if not self.open:
                return self.main
            for pool in self.pools:
                pool.staff()
            now = self.clock.monotonic()
            if self._next_deadline() <= now:
                self._fire()
                continue
            able = [each for each in self.participants if each.can_go_on(now)]
            if self.main.error is not None:
                return self.main
            if able:
                chosen = self._choose_among(able, me)
                self._count(chosen, me)
                return chosen
            moment = min((each.wake_at for each in self.participants), default=math.inf)
            moment = min(moment, self.room.next_due, self._next_deadline())
            patient = any(each.patient for each in self.participants)
            if patient and time.monotonic() < patient_until and self._others_may_help():
                self._nap()
            elif moment < math.inf:
                self.clock.advance_to(moment)
                self.room.release()
                self._count(None, me)
            elif self._others_may_help() and time.monotonic() < given_up:
                if not patient:
                    given_up = min(given_up, time.monotonic() + self.patience)
                self._nap()
            else:
                self.patience = min(self.patience, 0.2)  # they won't the next time, either
                self.main.error = WouldBlockError(self._waiters(), "Nobody can go on")
                return self.main

    def _nap(self) -> None:
        """Give threads that take no part a moment of real time."""
        self._naps += 1
        time.sleep(0.0005)

    def _count(self, chosen: Participant | None, me: Participant | None) -> None:
        """Count a change of turns, or of the time."""
        if chosen is not me or chosen is None:
            self._changes += 1
            if self._changes > _MOST_CHANGES:
                self._changes = 0
                self.main.error = WouldBlockError(
                    self._waiters(), f"There is no end, after {_MOST_CHANGES:,} changes of turns"
                )

    def limit(self, when: float, limited: "Limited") -> None:
        """Have something stopped at a time, unless it has ended."""
        heapq.heappush(self._deadlines, (when, next(_order), limited))

    def _next_deadline(self) -> float:
        while self._deadlines and not self._deadlines[0][2].runs:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else math.inf

    def _fire(self) -> None:
        """Stop what is late: in the thread that happens to have the turn, but as if in none."""
        _, _, limited = heapq.heappop(self._deadlines)
        turn = self.turn
        was = turn.ready, turn.wake_at, turn.frame
        absent = turn not in self.participants
        if absent:  # callbacks may want to wait
            self.enlist(turn)
        run, slot, threads.run, threads.slot = threads.run, threads.slot, None, None
        try:
            limited.stop()
        finally:
            threads.run, threads.slot = run, slot
            if absent:
                self.participants.remove(turn)
            turn.ready, turn.wake_at, turn.frame = was

    def _choose_among(self, able: list[Participant], me: Participant | None) -> Participant:
        if len(able) == 1:
            return able[0]
        stays = me in able
        if stays and me is not None:
            able.remove(me)
            able.insert(0, me)
        return able[self.choices.choose(len(able), stays=stays)]

    def _others_may_help(self) -> bool:
        """Whether threads that take no part could let somebody go on."""
        return any(
            thread.ident != self.main.ident and not thread.name.startswith(_OWN_THREADS)
            for thread in threading.enumerate()
        )

    def _waiters(self) -> list[str]:
        return [f"{each.what} ({place_of(each.frame)})" for each in self.participants if each.frame]

    # -- for those who take part ------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether it had pools, and nothing will come of them any more."""
        return bool(self.joined) and all(pool.over for pool in self.pools)

    def pause(self, seconds: float, until: Callable[[], bool]) -> None:
        """Let time pass for the caller; others go on meanwhile."""
        self.switch(until, self.clock.monotonic() + seconds)

    def draw(self) -> float:
        """Return a number from 0 to 1: the same one for the same choices before it."""
        made = len(self.choices.made)
        return random.Random(made).random()

    def checkpoint(self) -> None:
        """Let others go on, or not."""
        self.switch(always)

    # -- the end ----------------------------------------------------------------------------

    def end(self) -> None:
        """Have what is left of the participants end; by the test's thread, which has the turn.

        A task that catches what is raised in it, again and again, is left as it is.
        """
        if not self.open:
            return
        self.open = False
        self.pools.clear()
        for pool in self.joined:
            pool.close_face()
        for worker in self.workers:
            for _ in range(_MOST_ENDS):
                if worker.ended or self.broken:
                    break
                worker.error = Ended()
                self.turn = worker
                worker.wake()
                if not self.main.sleep(_LAST_WAIT):
                    self.broken = True
        if self.broken:  # all but one wait for their turn; that one will find out by itself
            for worker in self.workers:
                if worker is not self.turn and not worker.ended:
                    worker.error = Ended()
                    with contextlib.suppress(RuntimeError):  # it was woken before
                        worker.wake()
        self.turn = self.main
        for pool in self.joined:
            pool.give_up_rest()
        COOPERATION.end()
        here.leave(self)
        if here.participant is self.main:
            here.participant = None


def _is_asleep(thread_id: int) -> bool:
    """Whether a thread waits for the system; as far as that can be told."""
    try:
        status = Path(f"/proc/self/task/{thread_id}/stat").read_text()
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] in "SD"


def forget_parent() -> None:
    """In a forked child: there are no workers to take turns with."""
    participant, here.participant = here.participant, None
    if participant is not None and participant.simulation.open:
        participant.simulation.open = False
        here.leave(participant.simulation)
        COOPERATION.end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_parent)


def current() -> Simulation | None:
    """Return the simulation that this thread takes part in, if it does in one that is open."""
    participant = taking_part()
    simulation: Simulation | None = None if participant is None else participant.simulation
    return simulation
