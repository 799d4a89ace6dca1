"""`Worker`: the parent's side of one worker process: its start, its state, its end.

States (``docs/explanation/process-pool.md`` has the picture)::

    STARTING -> READY -> LEAVING | CONDEMNED -> DEAD

Descriptors: two sockets, the board's memory, the lifeline's writing end, a pidfd, and what
multiprocessing needs itself. `release` closes all of them; `abandon` does in a forked child.
"""

import contextlib
import enum
import math
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any, Final, cast

from . import worker
from .board import Board
from .books import Books
from .channel import ParentEnd
from .freight import Arrived
from .lending import Store
from .mapping import Landed
from .segments import Announcement, Receiver, Sender, make_pair

_HAS_GROUPS: Final = hasattr(os, "killpg")
# Guards ``__file__`` of ``__main__`` while it is hidden.
_main_lock = threading.Lock()


class Births:
    """The lock under which workers are made, and under which they are forked.

    A worker that is forked while another is being made would inherit its descriptors, as nobody
    knows of them yet.
    """

    lock = threading.Lock()


@contextlib.contextmanager
def _without_a_main_that_is_no_file() -> Iterator[None]:
    """Hide that ``__main__`` came from a pipe: multiprocessing would look for a file "<stdin>"."""
    main = sys.modules.get("__main__")
    with _main_lock:
        path = getattr(main, "__file__", None)
        if path is None or not path.startswith("<"):
            yield
            return
        vars(main).pop("__file__", None)
        try:
            yield
        finally:
            vars(main)["__file__"] = path


def forget_parent() -> None:
    """In a forked child, which may have been forked under these locks: renew them."""
    global _main_lock  # noqa: PLW0603
    _main_lock = threading.Lock()
    Births.lock = threading.Lock()


_inputs: Final[list[Any]] = []


def _forget_input() -> None:
    """In a worker that was forked: have an empty `sys.stdin` in place of the parent's.

    multiprocessing is about to close it. If a thread of the parent was reading it, the copy of its
    lock is taken for ever, and so nothing may be done to it, nor may the collector do it.
    """
    with contextlib.suppress(OSError):
        nothing = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - it stays
        _inputs.append(sys.stdin)
        sys.stdin = nothing


class State(enum.IntEnum):
    """How far a worker has come; it only goes up."""

    STARTING = 0
    READY = 1
    LEAVING = 2
    CONDEMNED = 3
    DEAD = 4


class Worker:
    """One worker process. The pool's lock guards all fields."""

    def __init__(
        self, name: str, quota: float, scratch: memoryview, store: Store | None = None
    ) -> None:
        self.name = name
        self.state = State.STARTING
        self.launched = False
        """Whether somebody has begun to start its process."""
        self.seen_at = 0.0
        """When it last sent something, or was sent work while it had none."""
        self.books = Books()
        self.known: set[int] = set()
        """Numbers of the functions that it has been sent."""
        self.flagged: set[int] = set()
        """Serials whose flags are set."""
        self.quota = quota
        """How many more items it may be sent."""
        self.load = 0.0
        """Seconds of work on its books, as far as can be guessed."""
        self.listens_for = selectors.EVENT_READ
        """What the loop's selector is asked to tell of its channel."""
        self.kill_at = math.inf
        """When SIGKILL follows, on the monotonic clock."""
        self.dead_since = math.inf
        self.pid: int = 0
        self.process: Any = None
        self.pidfd: int | None = None
        with contextlib.ExitStack() as undo:  # descriptors may run out at any of these
            self._lifeline_end, self._lifeline = os.pipe()
            undo.callback(os.close, self._lifeline_end)
            undo.callback(os.close, self._lifeline)
            self.board, self._board_descriptor = Board.make()
            undo.callback(os.close, self._board_descriptor)
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            undo.callback(theirs.close)
            self._sockets = None if store is None else make_pair()
            undo.pop_all()
        self.channel = ParentEnd(ours, scratch)
        self._theirs: socket.socket | None = theirs
        self.sender: Sender | None = None
        self._receiver: Receiver | None = None
        if store is not None and self._sockets is not None:
            sock = self._sockets[0]
            sock.setblocking(False)
            self.sender = Sender(sock, store, self.board.arguments)
            self._receiver = Receiver(sock, self.board.results)
        self.loans: dict[int, Landed | Exception] = {}
        """Segments with results that have come, by number, while the results have not."""
        self._started_by: int | None = None

    def start(
        self,
        context: BaseContext,
        initializer: Any,
        initargs: tuple[Any, ...],
        most_memory: int | None,
    ) -> None:
        """Start the process; takes milliseconds, and is called without the lock.

        Raises:
            Exception: Whatever the start method runs into.
        """
        assert self._theirs is not None
        self._started_by = threading.get_ident()
        process = cast(Any, context).Process(
            target=worker.main,
            name=self.name,
            daemon=False,  # so that tasks may have children
            args=(
                worker.Inherited(self._theirs.fileno()),
                worker.Inherited(self._board_descriptor),
                worker.Inherited(self._lifeline_end),
                None if self._sockets is None else worker.Inherited(self._sockets[1].fileno()),
                initializer,
                initargs,
                most_memory,
            ),
        )
        forks = context.get_start_method() == "fork"
        with _without_a_main_that_is_no_file(), Births.lock if forks else contextlib.nullcontext():
            process.start()
        self.pid = process.pid
        self.process = process
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # it has ended already, or may not be watched
                self.pidfd = os.pidfd_open(process.pid)

    def close_theirs(self) -> None:
        """Close what only the worker needs, once it has it."""
        theirs, self._theirs = self._theirs, None
        if theirs is not None:
            theirs.close()
            if self._sockets is not None:
                self._sockets[1].close()
            os.close(self._board_descriptor)
            os.close(self._lifeline_end)

    # -- what is lent -----------------------------------------------------------------------

    def borrow(self, announced: Announcement) -> None:
        """Take in a segment with results that are about to come."""
        assert self._receiver is not None
        number = announced[0]
        try:
            self.loans[number] = self._receiver.take(announced)
        except (OSError, MemoryError) as error:  # it is that result's own failure
            self.loans[number] = error.with_traceback(None)

    def claim(self, value: Any) -> Any:
        """Return a result as it came, with its segment if it has one."""
        entry: Any = value
        if type(value) is tuple and len(entry) == 2:
            packed, number = entry
            return (Arrived(packed, self.loans.pop(number)),)
        return entry

    # -- its end ----------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Send a signal to the process and, if it leads one, to its group."""
        if not self.pid:  # 0 would mean our own group
            return
        # A worker that said that it is ready leads its group.
        if _HAS_GROUPS and self.state is not State.STARTING and self._leads_group():
            with contextlib.suppress(OSError):
                os.killpg(self.pid, number)
        elif self.pidfd is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self.pidfd, number)
        else:
            with contextlib.suppress(OSError, ValueError):
                os.kill(self.pid, number)

    def _leads_group(self) -> bool:
        try:
            return os.getpgid(self.pid) == self.pid
        except OSError:  # it has been reaped; if its group still exists, the number is still taken
            return True

    def end_group(self) -> None:
        """Kill what a dead worker has left of its group."""
        if _HAS_GROUPS and self.pid and self.pid != os.getpgrp():
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    @property
    def has_ended(self) -> bool:
        """Whether the process is known to have ended, and its exit code with it."""
        return self.process is None or self.process.exitcode is not None

    @property
    def exit_code(self) -> int | None:
        """As ``multiprocessing.Process.exitcode``; None if nobody can tell."""
        return None if self.process is None else self.process.exitcode

    def release(self) -> None:
        """Close every descriptor. The process has ended, or is given up."""
        self.close_theirs()
        self.channel.close()
        self.loans.clear()
        if self.sender is not None and self._receiver is not None:
            self.sender.close()
            self._receiver.close()
        self.board.close()
        for descriptor in (self._lifeline, self.pidfd):
            if descriptor is not None:
                os.close(descriptor)
        self.pidfd = None
        process, self.process = self.process, None
        if process is not None:
            process.join(0)  # takes it off multiprocessing's list
            with contextlib.suppress(ValueError):  # still running, by its own account
                process.close()

    def abandon(self) -> None:
        """In a forked child: close our copies of what the parent needs.

        What this worker needs is closed, too, unless the child is to become this worker; which
        gets an input of its own.
        """
        descriptors = [self._lifeline, self.pidfd]
        self.channel.sock.close()
        sockets = self._sockets
        if self._receiver is not None:
            self._receiver.close()
        theirs = self._theirs
        if theirs is not None and self._started_by == threading.get_ident():
            _forget_input()
        elif theirs is not None:
            theirs.close()
            if sockets is not None:
                sockets[1].close()
            descriptors += [self._board_descriptor, self._lifeline_end]
        for descriptor in descriptors:
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
