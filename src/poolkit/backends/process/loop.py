"""The thread of a process pool: it reads results, learns of deaths, and keeps the time.

It never blocks but in ``select``: not on a write, not on a dying worker, not on one that starts
(which short-lived threads wait for). The one exception are callbacks of futures, which run here, as
the standard library's do.
"""

import contextlib
import logging
import marshal
import math
import queue
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from ..._task import threads
from .._serialization import load_error
from .channel import make_scratch
from .endings import Delivery, Ending, unpack_run
from .handle import State, Worker
from .lending import Store
from .starter import Employer, Starter

_log = logging.getLogger("poolkit")

# How long to wait for the exit code of a process that is known to have ended, in seconds. The
# server that forks the workers tells it at once, unless it is gone itself.
_CODE_PATIENCE: Final = 1.0
# How often to look at workers that have work, even if nothing happens, in seconds.
_DROWSE: Final = 0.4
# How long a worker may take to end once it was told to, in seconds: its own exit handlers run then.
_EXIT_PATIENCE: Final = 15.0


class Scheduler(Employer, Protocol):
    """What the loop needs of the pool; all is used with its lock, but for `endings`."""

    closing: bool
    unfinished: bool
    feeding: bool
    endings: "deque[Ending]"
    store: Store | None

    @property
    def done(self) -> bool: ...
    def ready(self, worker: Worker) -> None: ...
    def results(self, worker: Worker, message: Any, deliveries: list[Delivery]) -> None: ...
    def took_in(self, worker: Worker) -> None: ...
    def leaving(self, worker: Worker, last: int) -> None: ...
    def late(self, now: float, read: Callable[[Worker], None]) -> float: ...
    def rebalance(self, now: float) -> float: ...
    def bury(self, worker: Worker) -> None: ...
    def feed(self) -> None: ...
    def repair(self) -> None: ...
    def break_down(self, reason: str, cause: BaseException | None = None) -> None: ...


class Loop:
    """One pool's thread, its selector, and the threads that start workers."""

    def __init__(self, pool: Scheduler, start: Callable[[Worker], None]) -> None:
        self._pool = pool
        self.starter = Starter(pool, start, self.wake)
        self.scratch = make_scratch()
        # The pool's; guards all fields below.
        self._lock = pool.lock
        self.runs = False
        """Whether the thread runs, or is about to."""
        self._thread: threading.Thread | None = None
        self._ended: deque[Worker] = deque()
        self._look_at = -math.inf
        self._calls: deque[tuple[Callable[[], bool], queue.SimpleQueue[bool]]] = deque()
        self._selector: selectors.BaseSelector | None = None
        self._alarm: socket.socket | None = None
        self._bell: socket.socket | None = None
        self._rung = False
        # The loop's own.
        self._deliveries: list[Delivery] = []
        self._watched: set[Worker] = set()

    # -- for other threads ----------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread if it does not run. To be called after the work was queued."""
        with self._lock:
            if self.runs:  # another thread was quicker
                return
            self._selector = selectors.DefaultSelector()
            self._alarm, self._bell = socket.socketpair()
            self._alarm.setblocking(False)
            self._bell.setblocking(False)
            self._selector.register(self._alarm, selectors.EVENT_READ, None)
            self._look_at = -math.inf
            self._rung = False
            self._thread = threading.Thread(target=self._run, name="poolkit-processes", daemon=True)
            self.runs = True  # before an interrupt can strike in `start`, which waits
            try:
                self._thread.start()
            except RuntimeError:  # no more threads, or the interpreter is about to end
                self._close()
                raise

    def wake(self) -> None:
        """Have the loop look at everything now."""
        bell = self._bell
        if not self._rung and bell is not None:
            try:
                self._rung = True
                bell.send(b"!")
            except OSError:  # full, or just closed: it looks anyway
                pass
            except BaseException:  # an interrupt, perhaps before it was sent
                self._rung = False
                raise

    def look_within(self, seconds: float) -> None:
        """Have the loop look at everything within so many seconds."""
        if self._look_at > time.monotonic() + seconds:
            self.wake()

    def mend(self) -> None:
        """Have the loop do what an interrupt may have kept a caller from."""
        self._rung = False
        self.wake()

    def call(self, function: Callable[[], bool]) -> bool:
        """Have the loop call a function with the lock held; return what it returned.

        False if there is no loop, and so nothing for it to be called on.
        """
        if threading.current_thread() is self._thread:
            with self._lock:
                return function()
        answer: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._calls.append((function, answer))
        self.mend()
        while self.runs:
            with contextlib.suppress(queue.Empty):
                return answer.get(timeout=1.0)
        return False

    def join(self) -> None:
        """Wait for the thread's end."""
        thread = self._thread
        if thread is not None and thread.ident not in (None, threading.get_ident()):
            thread.join()
        self.starter.join()

    def abandon(self, lock: "threading.RLock") -> None:
        """In a forked child: close what was inherited."""
        self._lock = lock
        self.runs = False
        self._thread = None
        self.starter.abandon(lock)
        for end in (self._selector, self._alarm, self._bell):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.close()
        self._bell = None

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        threads.serving = self._pool
        try:
            while self._turn():
                pass
        except BaseException as error:
            _log.exception("the loop of a process pool has failed; its workers are killed")
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """End as well as can be after a mistake of our own: nobody may wait for ever."""
        with self._lock:
            self._pool.break_down(f"its loop has failed: {type(error).__name__}", error)
            for worker in list(self._pool.workers):
                worker.signal(signal.SIGKILL)
                if worker.process is not None:
                    worker.process.join()
                self._pool.bury(worker)
            self._close()
        self._report()

    def _turn(self) -> bool:
        """Wait for something, deal with all that is there, and say whether to go on."""
        pool, selector = self._pool, self._selector
        assert selector is not None
        wait = self._look_at - time.monotonic()
        arrivals: list[tuple[Worker, list[Any]]] = []
        for key, events in selector.select(None if wait == math.inf else max(0.0, wait)):
            worker = key.data
            if worker is None:
                with contextlib.suppress(OSError):
                    self._alarm.recv(4096)  # type: ignore[union-attr]
            elif key.fd == worker.pidfd or worker.dead_since != math.inf:
                self._ended.append(worker)
            elif events & selectors.EVENT_READ:
                arrivals.append((worker, self._read(worker)))
                if worker.channel.ended:  # else, it would tell of that without end
                    selector.unregister(worker.channel.sock)
            del worker

        def read(worker: Worker) -> None:
            self._take_in(worker, self._read(worker))

        with self._lock:
            self._rung = False
            self._reached()
            while self.starter.newcomers:
                self._watch(self.starter.newcomers.popleft())
            for worker, messages in arrivals:
                self._take_in(worker, messages)
            if pool.unfinished:
                pool.repair()
            while self._calls:
                function, answer = self._calls.popleft()
                answer.put(function())
            now = time.monotonic()
            self._bury_the_dead(now)
            self._finish_off(now)
            pause = min(pool.late(now, read), pool.rebalance(now))
            pool.feeding = False  # whatever an interrupt may have left
            pool.feed()
            self._send()
            for worker in pool.workers:
                if worker.state is State.LEAVING and not worker.books:
                    worker.kill_at = min(worker.kill_at, now + _EXIT_PATIENCE)
                pause = min(pause, worker.kill_at - now)
                pause = min(pause, worker.dead_since + _CODE_PATIENCE - now)
            self._look_at = now + self._drowse(pause, now)
            inline = self.starter.needs_loop
            done = pool.done
            if done:
                self.runs = False
                done = pool.done  # who dispatches queues first, and then looks whether we run
                self.runs = not done
            if done:
                self._close()
                self.starter.forget()
        if inline:
            self.starter.run()
        self._report()
        return not done

    def _drowse(self, pause: float, now: float) -> float:
        """Look now and then while there is work, so that `look_within` need not wake us each time.

        An idle pool sleeps.
        """
        if any(now - worker.seen_at < 2 * _DROWSE for worker in self._pool.workers):
            return min(pause, _DROWSE)
        if self._pool.store is not None:
            self._pool.store.rest()
        return pause

    def _read(self, worker: Worker, *, to_the_end: bool = False) -> list[Any]:
        contents = worker.channel.receive(to_the_end=to_the_end)
        return [marshal.loads(content) for content in contents]

    def _watch(self, worker: Worker) -> None:
        """Listen to a worker whose process has been started."""
        assert self._selector is not None
        self._selector.register(worker.channel.sock, selectors.EVENT_READ, worker)
        self._watched.add(worker)
        if worker.pidfd is not None:
            self._selector.register(worker.pidfd, selectors.EVENT_READ, worker)
        else:  # no such thing here, or it has ended already
            threading.Thread(
                target=self._wait_for, args=(worker,), name="poolkit-sentinel", daemon=True
            ).start()

    def _wait_for(self, worker: Worker) -> None:
        worker.process.join()
        self._ended.append(worker)
        self.wake()

    def _take_in(self, worker: Worker, messages: list[Any]) -> None:
        """Take in what a worker has sent; what is struck off its books is delivered in any case."""
        pool = self._pool
        self._reached()
        for message in messages:
            kind = message[0]
            if type(kind) is int:
                pool.results(worker, message, self._deliveries)
            elif kind == "ready":
                pool.ready(worker)
            elif kind == "loan":
                worker.borrow(message[1])
            elif kind == "bye":
                pool.leaving(worker, message[1])
            else:
                worker.state = State.LEAVING
                pool.break_down("its initializer failed", load_error(message[1]))
        pool.took_in(worker)

    def _bury_the_dead(self, now: float) -> None:
        assert self._selector is not None
        while self._ended:
            worker = self._ended.popleft()
            if worker in self._watched and worker.dead_since == math.inf:
                worker.dead_since = now
                if worker.pidfd is not None:
                    self._selector.unregister(worker.pidfd)
                with contextlib.suppress(KeyError):  # it had nothing more to say
                    self._selector.unregister(worker.channel.sock)
                if not worker.has_ended:  # who forked it is about to tell how
                    self._selector.register(worker.process.sentinel, selectors.EVENT_READ, worker)
        for worker in [w for w in self._watched if w.dead_since != math.inf]:
            if not worker.has_ended and now < worker.dead_since + _CODE_PATIENCE:
                continue
            self._reached()
            # All that it has sent counts.
            self._take_in(worker, self._read(worker, to_the_end=True))
            self._watched.discard(worker)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(worker.process.sentinel)
            self._pool.bury(worker)

    def _finish_off(self, now: float) -> None:
        """Send SIGKILL to those that had their time to end."""
        for worker in self._pool.workers:
            if worker.kill_at <= now:
                worker.kill_at = math.inf
                worker.signal(getattr(signal, "SIGKILL", signal.SIGTERM))

    def _send(self) -> None:
        """Send what sockets had no room for, and listen for room where there still is none."""
        assert self._selector is not None
        for worker in self._watched:
            if worker.dead_since == math.inf and not worker.channel.ended:
                events = selectors.EVENT_READ
                if worker.channel.unsent and not worker.channel.flush():
                    events |= selectors.EVENT_WRITE
                if worker.listens_for != events:
                    worker.listens_for = events
                    self._selector.modify(worker.channel.sock, events, worker)

    def _reached(self) -> None:
        step = self._pool.step
        if step is not None:
            step()

    def _close(self) -> None:
        assert self._selector is not None
        self._selector.close()
        for end in (self._alarm, self._bell):
            if end is not None:
                end.close()
        self._bell = None
        self.runs = False
        if self._pool.store is not None:
            self._pool.store.close()

    def _report(self) -> None:
        """Let results take effect, with no lock held: they are unpickled, and callbacks run."""
        deliveries = self._deliveries
        deliveries.reverse()
        while deliveries:
            batch, worker, packed = deliveries.pop()
            batch.report(unpack_run(worker, packed))
            del batch, packed  # and keep nothing while waiting for more
        while self._pool.endings:
            self._pool.endings.popleft().report()
