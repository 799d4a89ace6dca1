"""`DeadlineKeeper`: soft deadlines for all backends that can't keep hard ones.

One thread serves all pools. It is told of no start and no finish; it asks. A task that has not
started by the time t can't be late before t + limit, so it is enough to look at a backend's
running tasks then, and to look again at the first deadline seen, or one limit later. That costs
nothing per task and one look per worker and limit.

While it looks, it also tells of a pool that stands still: all its tasks seem to wait for something
that poolkit can't see, perhaps for tasks that are behind them in the queue.
"""

import logging
import math
import threading
from typing import Final

from ._backend import Backend, Batch, Running
from ._bounds import Scope
from ._clock import SYSTEM_CLOCK, Clock
from ._describe import function_name
from ._errors import TaskTimeoutError

_log = logging.getLogger("poolkit")

# Looking again for tasks just found late would find them again until they are stopped, which
# another thread does; this is the pause in between, in seconds.
_PAUSE = 0.01

# A pool whose queue grows is looked at this often, in seconds, limits or not. If the same tasks
# are found blocked twice, that is said once.
STALL_LOOK: Final = 5.0


class _Watched:
    def __init__(self, scope: Scope, limit: float, look_at: float) -> None:
        self.scope = scope
        self.limit = limit
        self.look_at = look_at
        self.blocked_since = math.inf
        self.blocked: frozenset[tuple[int, int]] = frozenset()


class DeadlineKeeper:
    """Stops tasks that run past their limit; thread-safe.

    The thread is started when there is something to watch, and ends when there is nothing.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self.abandon()

    def abandon(self) -> None:
        """Forget everything, in a forked child, where neither thread nor lock's holder exists."""
        # Guards all fields below.
        self._changed = threading.Condition(threading.Lock())
        self._watched: dict[Backend, _Watched] = {}
        self._next_look = math.inf
        self._thread: threading.Thread | None = None
        # Changed by single, atomic operations.
        self._stopping: set[tuple[Batch, int]] = set()

    def watch(self, backend: Backend, scope: Scope, limit: float) -> None:
        """Keep `limit` seconds for a batch just dispatched to `backend`, as long as it needs.

        Args:
            backend: What runs the batch.
            scope: The pool's books; when they are empty, there is nothing more to watch.
            limit: The batch's ``task_timeout``.
        """
        watched = self._watched.get(backend)
        if watched is not None and watched.limit <= limit:
            return  # it is looked at often enough; see `_look` for why that lasts
        with self._changed:
            look_at = self._clock.monotonic() + limit
            watched = self._watched.get(backend)
            if watched is None:
                self._watched[backend] = _Watched(scope, limit, look_at)
            else:
                watched.limit = min(watched.limit, limit)
                watched.look_at = min(watched.look_at, look_at)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._keep, name="poolkit-deadlines", daemon=True
                )
                self._thread.start()
            elif look_at < self._next_look:
                self._changed.notify()

    def watches(self, backend: Backend) -> bool:
        """Whether there is any reason to look at this backend now and then."""
        return backend in self._watched

    def forget(self, backend: Backend) -> None:
        """Stop watching a backend that has nothing left to run; wait for the thread to end.

        It ends if this was the last one. Should something else be watched from now on, another
        thread does that.
        """
        with self._changed:
            if self._watched.pop(backend, None) is None or self._watched:
                return
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _keep(self) -> None:
        while True:
            with self._changed:
                if self._thread is not threading.current_thread():
                    return
                late = self._look()
                if not late:
                    if not self._watched:
                        self._thread = None
                        return
                    self._clock.wait(self._changed, self._next_look - self._clock.monotonic())
            while late:  # and keep nothing while waiting for more
                self._stop(*late.pop())

    def _look(self) -> list[tuple[Backend, Running]]:
        """Return what is late, and set the time of the next look. Call with the lock held."""
        now = self._clock.monotonic()
        late: list[tuple[Backend, Running]] = []
        self._next_look = math.inf
        for backend, watched in list(self._watched.items()):
            if watched.look_at <= now:
                # `watch` takes no lock if it finds an entry, and comes after the batch has been
                # entered in the books. So strike out first, then look into the books again.
                del self._watched[backend]
                if not watched.scope.busy:
                    continue
                self._watched[backend] = watched
                watched.look_at = now + watched.limit
                running = backend.running()
                self._tell_if_stalled(backend, watched, running, now)
                for item in running:
                    limit = item.batch.options.task_timeout
                    if limit is None:
                        continue
                    if item.start + limit <= now:
                        late.append((backend, item))
                        watched.look_at = now + min(watched.limit, _PAUSE)
                    else:
                        watched.look_at = min(watched.look_at, item.start + limit)
            self._next_look = min(self._next_look, watched.look_at)
        return late

    def _tell_if_stalled(
        self, backend: Backend, watched: _Watched, running: list[Running], now: float
    ) -> None:
        """Log if the pool's tasks are all blocked, and were at a look some time ago."""
        if len(running) < backend.max_workers or not watched.scope.anything_to_do():
            return
        statistics = backend.statistics()
        if statistics.blocked < backend.max_workers:
            watched.blocked_since = math.inf
            return
        blocked = frozenset((id(item.batch), item.number) for item in running)
        if blocked != watched.blocked:
            watched.blocked, watched.blocked_since = blocked, now
        elif watched.blocked_since + STALL_LOOK <= now:
            watched.blocked_since = math.inf  # said
            _log.warning(
                "%s seems to stand still: all its %d running tasks wait for something that "
                "poolkit can't see, while others are pending. Tasks that wait for tasks of "
                "their own pool should use poolkit.wait, poolkit.as_completed or result()",
                backend.name,
                len(running),
            )

    def _stop(self, backend: Backend, item: Running) -> None:
        """Stop one late task, in a thread of its own: its callbacks may block, and its `repr`s."""
        if (item.batch, item.number) in self._stopping:
            return
        self._stopping.add((item.batch, item.number))
        thread = threading.Thread(
            target=self._stop_late, args=(backend, item), name="poolkit-late-task", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is about to end
            self._stop_late(backend, item)

    def _stop_late(self, backend: Backend, item: Running) -> None:
        batch, limit = item.batch, item.batch.options.task_timeout
        assert limit is not None
        try:
            late = TaskTimeoutError(batch.describe(item.number), limit)
            backend.stop(batch, item.number, late)
        except BaseException:
            name = function_name(batch.fn)
            _log.exception("stopping %s, which is past its task_timeout, failed", name)
        finally:
            self._stopping.discard((batch, item.number))


KEEPER: Final = DeadlineKeeper()
