"""`Watchdog`: ends a test that hangs, with a dump of who waits for whom.

::

    the test's thread   arm ── the test, hung ───────────── Expired! ── fails with the dump
    the watchdog's        └── waits ── dumps ── interrupts ──┘ └── stops the test's tasks

Python code can be interrupted in its main thread alone, by a signal, which also ends a wait for a
lock. We take one that hardly anybody uses and nobody needs, so that SIGALRM and the handlers of
others stay as they are. Elsewhere an exception is raised in the test's thread, which notices it
when it next runs Python code, and perhaps never.

Invariants:

* Nothing is interrupted once the test's thread has left the watched block.
* The dump is taken before anything is interrupted or stopped.
* What may block (locks of pools, ``repr``s, callbacks) happens in a thread that is left behind if
  it does.
"""

import contextlib
import ctypes
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

from .. import _executor
from .._checks import check_seconds
from .._errors import TaskAbortedError
from . import _waits

DEFAULT_SECONDS: Final = 30.0
# How long each step that may block has, in seconds, and how often a signal is sent again that
# came just before the main thread began to wait for a lock, which it ends only later.
_PATIENCE: Final = 2.0
_AGAIN: Final = 0.1
# A test that was interrupted and still hangs, as in its own `finally`, is interrupted anew.
_NEXT_ROUND: Final = 5.0
# Ignored by default, and meant for what sockets hardly ever do; the others as a last resort.
_SIGNALS: Final = ("SIGURG", "SIGUSR2", "SIGUSR1")
# What is tried again at once when its run is stopped is stopped again, so often.
_ROUNDS: Final = 3


class Expired(KeyboardInterrupt):
    """Raised in a test that hangs: like Ctrl-C, so that whatever handles that handles this."""


class Watchdog:
    """Watches over one block of code; for one use, in the thread that runs the block."""

    def __init__(
        self,
        seconds: float = DEFAULT_SECONDS,
        *,
        announce: Callable[[str], object] | None = None,
    ) -> None:
        """Prepare; tasks that exist already are never stopped.

        Args:
            seconds: How long the block may take.
            announce: Told of the dump if the block can't be interrupted; by default standard
                error is.

        Raises:
            TypeError: The seconds are no number.
            ValueError: They are not more than 0.
        """
        checked = check_seconds("seconds", seconds)
        if checked is None:
            raise TypeError(f"seconds must be a number of seconds, not {seconds!r}")
        self.seconds = checked
        self.dump: str | None = None
        """What hung, if the block took too long."""
        self._announce = announce or _print_error
        self._old = weakref.WeakSet(
            batch for link in list(_executor._links) for batch in link.scopes[0].unsettled()
        )
        self._ident = 0
        self._signal: signal.Signals | None = None
        self._over = threading.Event()  # the block was left
        self._heard = threading.Event()  # it has been interrupted, in this round
        self._armed = False  # whether it may be; these two change in its thread alone
        self._due = False  # whether it is to be; set by the watchdog's thread

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Surround the block, and end it when its time is over.

        `dump` is set then, whatever the block has made of being interrupted.
        """
        self._ident = threading.get_ident()
        thread = threading.Thread(target=self._keep, name="poolkit-watchdog", daemon=True)
        with self._handler():
            self._armed = True
            thread.start()
            try:
                try:
                    yield
                finally:
                    self._armed = False  # if it is interrupted before that, it was armed
            except Expired:
                self._armed = False
            finally:
                self._over.set()
                thread.join()
                self._withdraw()

    @contextlib.contextmanager
    def _handler(self) -> Iterator[None]:
        self._signal = _free_signal()
        if self._signal is None:
            yield
            return
        old = signal.signal(self._signal, self._interrupted)
        try:
            yield
        finally:
            signal.signal(self._signal, old)

    def _interrupted(self, number: int, frame: object) -> None:
        """Handle the signal, in the main thread."""
        if self._armed and self._due:
            self._due = False
            self._heard.set()
            raise Expired

    # -- in the watchdog's thread -----------------------------------------------------------

    def _keep(self) -> None:
        if self._over.wait(self.seconds):
            return
        self.dump = self._describe()
        if not self._interrupt() and not self._over.is_set():
            self._announce(self.dump)
        _patiently(self._stop_tasks, "poolkit-watchdog-stops")
        while not self._over.wait(_NEXT_ROUND):
            self._interrupt()

    def _describe(self) -> str:
        but = [threading.get_ident()]
        stacks = _waits.describe_stacks(but)  # needs no lock, and shows the threads as they hung
        lines = [f"the test hangs: it has not ended within {self.seconds:g} s (pool_watchdog)"]
        if self._signal is None:
            lines.append(
                "it can't be interrupted by a signal here, which takes the main thread and a "
                "system that has signals; so it may go on for some time"
            )
        pools: list[str] = []
        if not _patiently(lambda: pools.append(_waits.describe_pools()), "poolkit-watchdog-asks"):
            pools = ["the pools don't answer: a lock of theirs is held, or a repr hangs"]
        return "\n".join([*lines, *pools, stacks])

    def _interrupt(self) -> bool:
        """Interrupt the block; say whether it has noticed."""
        self._heard.clear()
        self._due = True
        if self._signal is None:
            if not self._over.is_set():
                _raise_in(self._ident, Expired)
            return self._over.wait(_PATIENCE)
        end = time.monotonic() + _PATIENCE
        while not self._over.is_set() and time.monotonic() < end:
            with contextlib.suppress(OSError):  # the thread has ended
                signal.pthread_kill(self._ident, self._signal)
            if self._heard.wait(_AGAIN):
                return True
        return self._over.is_set()

    def _withdraw(self) -> None:
        """Take back an exception that the test's thread has not noticed; in that thread."""
        if self._signal is None and self.dump is not None:
            with contextlib.suppress(Expired):
                _raise_in(self._ident, None)

    def _stop_tasks(self) -> None:
        """End the tasks of the block, lest teardown or the interpreter's exit waits for them."""
        for _ in range(_ROUNDS):
            for link in list(_executor._links):
                if len(link.scopes) == 1:
                    with contextlib.suppress(Exception):  # a test double, out of turn
                        self._stop_tasks_of(link)

    def _stop_tasks_of(self, link: Any) -> None:
        mine = {batch for batch in link.scopes[0].unsettled() if batch not in self._old}
        for batch in mine:
            batch.take_back()
            batch.ask_to_stop()
        for batch, number, _ in link.backend.running():
            if batch.origin in mine:
                link.backend.stop(batch, number, TaskAbortedError(batch.describe(number)))


def _free_signal() -> signal.Signals | None:
    """Return a signal that can interrupt the current thread, and that nobody handles."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and hasattr(signal, "pthread_kill"):
        for name in _SIGNALS:
            number: signal.Signals | None = getattr(signal, name, None)
            if number and signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN):
                return number
    return None


def _raise_in(ident: int, error: type[BaseException] | None) -> None:
    """Have a thread raise an exception when it next runs Python code; None takes that back."""
    target = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), target)


def _patiently(function: Callable[[], object], name: str) -> bool:
    """Call a function that may hang, in a thread of its own; say whether it has returned."""
    done: list[bool] = []

    def call() -> None:
        with contextlib.suppress(Exception):
            function()
            done.append(True)

    thread = threading.Thread(target=call, name=name, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return bool(done)


def _print_error(text: str) -> None:
    print(text, file=sys.__stderr__, flush=True)
