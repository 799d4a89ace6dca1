"""`Dock`: where large arguments come to a worker, and large results leave it."""

import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from .._serialization import dump_result
from .board import Board
from .freight import Cargo, Layout, Packed, arrived, check_size, pack
from .lending import KEPT_BY_WORKER, Store
from .mapping import Landed
from .memory import give_back_freed, keep_freed
from .segments import Announcement, Receiver, Sender

IDLE: Final = 0.5
"""A worker that has had nothing to do for so long, in seconds, keeps no memory for results."""


class Dock:
    """One worker's end of the pair of sockets for descriptors. The main thread uses it."""

    def __init__(self, sock: socket.socket, board: Board, reached: Callable[[], None]) -> None:
        """Open it; `reached` is called at each step."""
        sock.setblocking(True)
        self._store = Store(KEPT_BY_WORKER)
        self._sender = Sender(sock, self._store, board.results)
        self._receiver = Receiver(sock, board.arguments)
        self._reached = reached
        self.warm = False
        """Whether memory is kept for what comes next."""

    def _warm_up(self) -> None:
        if not self.warm:
            self.warm = True
            keep_freed()

    def rest(self) -> None:
        """Give that memory back."""
        self.warm = False
        self._store.rest()
        give_back_freed()

    def open(
        self, loan: Announcement, kwargs: Packed | None, entries: Sequence[Any]
    ) -> tuple[Any, Sequence[Any]]:
        """Return packed arguments with their segment, ready to be unpickled."""
        content: Landed | Exception
        self._warm_up()
        self._reached()
        try:
            content = self._receiver.take(loan)
        except (OSError, MemoryError) as error:  # each item fails by itself
            content = error.with_traceback(None)
        self._reached()

        return arrived(kwargs, content), [arrived(entry, content) for entry in entries]

    def pack(self, value: Any) -> tuple[Packed, Announcement | None]:
        """Pickle a result; return it, and what is to be said of its segment, if it has one.

        Raises:
            TaskSerializationError: It can't be pickled, or is too large.
        """
        cargo = pack(value, lambda aside: dump_result(value, aside))
        if not isinstance(cargo, Cargo):
            return cargo, None
        self._warm_up()
        with Layout() as layout:
            packed = layout.add(cargo)
            try:
                loan = self._lend(layout)
            except OSError:  # no memory, no descriptors: through the channel, then
                return check_size("the result", cargo.inline()), None
        self._reached()
        return packed, loan

    def _lend(self, layout: Layout) -> Announcement:
        segment = self._store.fill(layout.placed, layout.size)
        try:
            self._reached()
            return self._sender.send(segment, layout.size)
        finally:
            self._store.keep(segment)  # it is not sent a second time
