"""Starting workers takes milliseconds, so a thread does it that lives as long as there are any."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .handle import State, Worker


class Employer(Protocol):
    """What the starter needs of the pool."""

    lock: "threading.RLock"
    step: Callable[[], None] | None
    workers: list[Worker]

    def start_failed(self, worker: Worker, failure: BaseException) -> None: ...


class Starter:
    """Starts the processes of workers, one after the other."""

    def __init__(
        self, pool: Employer, start: Callable[[Worker], None], wake: Callable[[], None]
    ) -> None:
        """Prepare; `start` starts one, and `wake` tells the loop that there is news."""
        self._pool = pool
        self._start = start
        self._wake = wake
        # The pool's; guards all fields below.
        self._lock = pool.lock
        self._thread: threading.Thread | None = None
        self._to_start: deque[Worker] = deque()
        self.newcomers: deque[Worker] = deque()
        """Those who have been started, for the loop to listen to."""

    @property
    def needs_loop(self) -> bool:
        """Whether there is something to start, and no thread can be had for it."""
        return bool(self._to_start) and self._thread is None

    def join(self) -> None:
        """Wait for the thread's end."""
        thread = self._thread
        if thread is not None and thread.ident not in (None, threading.get_ident()):
            thread.join()

    def forget(self) -> None:
        """Let go of the initializer and its arguments: the pool is at its end."""
        self._start = _no_more

    def abandon(self, lock: "threading.RLock") -> None:
        """In a forked child: forget a thread that is not here."""
        self._lock = lock
        self._thread = None
        self._to_start.clear()

    def add(self, worker: Worker) -> None:
        """Have a worker's process started, by a thread that may take its time. With the lock."""
        self._to_start.append(worker)
        if self._thread is None:
            self._new_thread()

    def _new_thread(self) -> None:
        self._thread = threading.Thread(target=self.run, name="poolkit-starter", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads: the loop does it itself
            self._thread = None
            self._wake()

    def mend(self) -> None:
        """Start what an interrupt has kept from being started. With the lock."""
        for worker in self._pool.workers:
            forgotten = worker.state is State.STARTING and not worker.launched
            if forgotten and worker not in self._to_start:
                self._to_start.append(worker)
        starter = self._thread
        if self._to_start and (starter is None or not starter.is_alive()):
            self._new_thread()

    def run(self) -> None:
        """Start what is to be started, in this thread."""
        while True:
            with self._lock:
                if not self._to_start:
                    self._thread = None
                    return
                worker = self._to_start.popleft()
                worker.launched = True
            failure: BaseException | None = None
            try:
                step = self._pool.step
                if step is not None:
                    step()
                self._start(worker)
                if step is not None:
                    step()
            except BaseException as error:
                failure = error
            with self._lock:
                worker.close_theirs()
                if failure is None:
                    self.newcomers.append(worker)
                else:
                    self._pool.start_failed(worker, failure)
            self._wake()
            del worker, failure

    def cancel(self) -> None:
        """Give up workers whose start has not begun. With the lock."""
        while self._to_start:
            worker = self._to_start.popleft()
            self._pool.workers.remove(worker)
            worker.release()


def _no_more(worker: Worker) -> None:
    raise RuntimeError(f"{worker.name} is not started: its pool has been shut down")
