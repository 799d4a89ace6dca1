"""How a segment gets to another process: its descriptor goes through a pair of sockets of its own.

Each has a number, which the message names that needs it, and which comes later through the channel.
So one that is lost, or that was sent twice as the sender was interrupted, misleads nobody. A
descriptor on its way is the kernel's: whoever dies, it is closed.
"""

import array
import contextlib
import os
import socket
import struct
from typing import Any, Final

from .lending import Lender, Store
from .mapping import FREE, Landed, Segment, give_back

AVAILABLE: Final = (
    hasattr(os, "memfd_create") and hasattr(os, "preadv") and hasattr(socket, "SCM_RIGHTS")
)
"""Whether segments can be had on this system; else all that is large goes through the channel."""

Announcement = tuple[int, int | None, int]
"""What a message says of a segment: its number, its slot, and its size in bytes."""

_PACKET: Final = struct.Struct("<qq")


def make_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets for descriptors."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Sender:
    """The end that lends. Its user's lock guards it."""

    def __init__(self, sock: socket.socket, store: Store, flags: memoryview) -> None:
        """Prepare to send through a socket; the receiver gives back at `flags`."""
        self._sock = sock
        self._store = store
        self._flags = flags
        self._lender = Lender(flags)
        self._number = 0

    def send(self, segment: Segment, size: int) -> Announcement:
        """Send a segment; return what to say of it.

        Raises:
            OSError: The socket is full, or no more descriptors may be on their way.
        """
        self._number += 1
        slot = self._store.lend(segment, self._lender)
        packet = _PACKET.pack(self._number, -1 if slot is None else slot)
        rights = array.array("i", [segment.descriptor])
        try:
            self._sock.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except ConnectionError:  # nobody is there to miss it
            pass
        except OSError:
            give_back(self._flags, slot, FREE)
            raise
        return self._number, slot, size

    def close(self) -> None:
        """Take note that the receiver is gone."""
        self._store.part_with(self._lender)


class Receiver:
    """The end that borrows. One thread uses it.

    It has a descriptor to spare, which makes room for the next that comes: what comes and finds no
    room is lost.
    """

    def __init__(self, sock: socket.socket, flags: memoryview) -> None:
        """Prepare to receive from a socket, and to give back at `flags`."""
        self._sock = sock
        self._flags = flags
        self._spare: int | None = None
        self._spare_one()

    def take(self, announced: Announcement) -> Landed:
        """Return a segment that was announced.

        Raises:
            OSError: It has not come: there are no more descriptors.
            MemoryError: There are none, and no memory for a copy.
        """
        wanted, slot, size = announced
        self._spare_one()
        while True:
            number, its_slot, descriptor = self._receive()
            if number == wanted:
                break
            if descriptor is not None:  # it was sent twice
                os.close(descriptor)
            give_back(self._flags, its_slot, FREE)
        if descriptor is None:
            give_back(self._flags, slot, FREE)
            raise OSError("this process can't have more descriptors")
        landed = Landed(descriptor, size, self._flags, slot)
        self._spare_one()
        if self._spare is None:
            landed.view()  # which closes its descriptor
            self._spare_one()
        return landed

    def close(self) -> None:
        """Close the socket, and what is spare."""
        self._sock.close()
        self._make_room()

    def _spare_one(self) -> None:
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = os.dup(self._sock.fileno())

    def _make_room(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            os.close(spare)

    def _receive(self) -> tuple[int, int | None, int | None]:
        rights = array.array("i")
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        space = socket.CMSG_SPACE(rights.itemsize)
        self._make_room()
        try:
            packet, extra, *_ = self._sock.recvmsg(_PACKET.size, space, flags)
        except ConnectionResetError:  # said first, and once, of what has come from the dead
            packet, extra, *_ = self._sock.recvmsg(_PACKET.size, space, flags)
        if not packet:
            raise OSError("the other side is gone")
        number, slot = _PACKET.unpack(packet)
        for level, kind, data in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                rights.frombytes(data[: len(data) - len(data) % rights.itemsize])
        descriptor: Any = rights[0] if rights else None
        return number, None if slot < 0 else slot, descriptor
