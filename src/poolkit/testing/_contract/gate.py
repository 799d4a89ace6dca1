"""The test's end of a `Gate`: a socket that tasks call, and that hangs up when they may go on."""

import contextlib
import socket
import threading

import pytest

from .._contract_tasks import Gate


class GateKeeper:
    """Holds tasks until it is told to let them go; thread-safe."""

    def __init__(self, patience: float) -> None:
        """Start to listen.

        Args:
            patience: Seconds to wait for a task to start before the test fails.
        """
        self._patience = patience
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.gate = Gate(self._server.getsockname())
        self._started = threading.Semaphore(0)
        self._lock = threading.Lock()  # guards the three below
        self._held: list[socket.socket] = []
        self._is_open = False
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="contract-gate", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._server.accept()
            with self._lock:
                if self._closed:
                    connection.close()
                    return
                is_open = self._is_open
                if not is_open:
                    self._held.append(connection)
            if is_open:
                _hang_up(connection)
            self._started.release()

    def wait_started(self, count: int = 1) -> None:
        """Wait until so many more tasks have come to the gate."""
        for number in range(count):
            if not self._started.acquire(timeout=self._patience):
                self.open()  # a block that the failure leaves may wait for the tasks
                pytest.fail(
                    f"{number} of {count} tasks have started within {self._patience:g} s; "
                    "does the executor have two workers, and run tasks beside its caller?"
                )

    def open(self) -> None:
        """Let go all tasks that are held, and hold no more."""
        with self._lock:
            self._is_open = True
            held, self._held = self._held, []
        for connection in held:
            _hang_up(connection)

    def close(self) -> None:
        """Open the gate for good, and release the socket."""
        self.open()
        with self._lock:
            self._closed = True
        with contextlib.suppress(OSError):
            socket.create_connection(self.gate.address).close()
        self._thread.join()
        self._server.close()


def _hang_up(connection: socket.socket) -> None:
    # A process that was forked meanwhile may hold a copy of the socket; closing ours would then
    # tell the task nothing.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
