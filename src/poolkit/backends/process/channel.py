"""The channel between the parent and one worker: frames over a pair of connected sockets.

A frame is its length in eight bytes, and its content. The parent's end never blocks: what the
socket does not take waits in ``unsent``. The worker's end blocks; that is how it sleeps.
"""

import itertools
import select
import socket
import struct
from collections import deque
from typing import Final

_LENGTH: Final = struct.Struct("<Q")
_READ: Final = 256 * 1024
# One worker that sends without end must not keep the loop from the others.
_READS_AT_ONCE: Final = 64


def frame(content: bytes) -> bytes:
    """Return a frame with this content."""
    return _LENGTH.pack(len(content)) + content


class _Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, data: memoryview) -> list[bytes]:
        """Take in what has arrived; return the frames that are complete now."""
        self._data += data
        frames: list[bytes] = []
        at, end = 0, len(self._data)
        with memoryview(self._data) as view:
            while at + 8 <= end:
                (length,) = _LENGTH.unpack_from(view, at)
                if at + 8 + length > end:
                    break
                frames.append(bytes(view[at + 8 : at + 8 + length]))
                at += 8 + length
        if at:
            del self._data[:at]
        return frames


class ParentEnd:
    """The parent's end. The owner's lock guards it, but for `receive`, which one thread calls."""

    def __init__(self, sock: socket.socket, scratch: memoryview) -> None:
        """Take over `sock`; `scratch` may be shared by all that one thread reads."""
        sock.setblocking(False)
        self.sock = sock
        self.ended = False
        """Whether all has been read that will ever come; the worker may live on for a while."""
        # Each frame, and how much of it was sent, in pieces.
        self.unsent: deque[tuple[memoryview, list[int]]] = deque()
        self._frames = _Frames()
        self._scratch = scratch

    def queue(self, data: bytes) -> None:
        """Add a frame to what is to be sent: one step, which an interrupt can't split."""
        self.unsent.append((memoryview(data), []))

    def flush(self) -> bool:
        """Send as much as the socket takes; say whether that was all.

        To send and to note how much was sent is one call, as an interrupt that came between the
        two would garble the stream.
        """
        unsent = self.unsent
        while unsent:
            data, sent = unsent[0]
            done = sum(sent)
            if done == len(data):
                unsent.popleft()
                continue
            try:
                sent.extend(map(self.sock.send, (data[done:],)))
            except BlockingIOError:
                return False
            except OSError:  # the worker is gone, as its owner will learn from the process
                unsent.clear()
        return True

    def receive(self, *, to_the_end: bool = False) -> list[bytes]:
        """Return the frames that have arrived.

        Args:
            to_the_end: Whether to read until there is nothing left, however much that is.
        """
        frames: list[bytes] = []
        for _ in itertools.count() if to_the_end else range(_READS_AT_ONCE):
            try:
                count = self.sock.recv_into(self._scratch)
            except OSError:  # nothing there, or the worker is gone
                break
            if count == 0:
                self.ended = True
                break
            frames += self._frames.add(self._scratch[:count])
            if count < len(self._scratch) and not to_the_end:
                break
        return frames

    def close(self) -> None:
        """Close the socket and forget what was not sent."""
        self.unsent.clear()
        self.sock.close()


def make_scratch() -> memoryview:
    """Return a buffer for `ParentEnd`."""
    return memoryview(bytearray(_READ))


class WorkerEnd:
    """The worker's end."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._frames = _Frames()
        self._arrived: deque[bytes] = deque()
        self._scratch = memoryview(bytearray(64 * 1024))

    @property
    def idle(self) -> bool:
        """Whether `receive` would have to ask the socket."""
        return not self._arrived

    def wait(self, seconds: float) -> bool:
        """Wait for something to receive; say whether there is anything."""
        return bool(self._arrived or select.select([self._sock], [], [], seconds)[0])

    def receive(self) -> bytes | None:
        """Wait for the next frame's content; None if the parent is gone."""
        while not self._arrived:
            try:
                count = self._sock.recv_into(self._scratch)
            except OSError:
                return None
            if count == 0:
                return None
            self._arrived.extend(self._frames.add(self._scratch[:count]))
        return self._arrived.popleft()

    def send(self, content: bytes) -> None:
        """Send a frame; if the parent is gone, nobody is left to tell."""
        try:
            if len(content) < _READ:
                self._sock.sendall(frame(content))
            else:  # without a copy of it
                self._sock.sendall(_LENGTH.pack(len(content)))
                self._sock.sendall(content)
        except OSError:
            pass
