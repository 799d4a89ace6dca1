"""A kind of executor that knows nothing of poolkit: a few threads, first come, first served."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

__all__ = ("Crew", "make_crew")


class Crew(Executor):
    """Runs its tasks in threads that all are there from the start."""

    def __init__(self, max_workers: int, captain: str) -> None:
        self.max_workers = max_workers
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._lock = threading.Lock()  # guards _closed, and that nothing comes after the end
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"{captain}-{number}", daemon=True)
            for number in range(max_workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._calls.put((future, lambda: fn(*args, **kwargs)))
        return future

    def _serve(self) -> None:
        while (entry := self._calls.get()) is not None:
            future, call = entry
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)
            del entry, future, call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pending: list[Future[Any]] = []
        with self._lock:
            if not self._closed:
                self._closed = True
                if cancel_futures:
                    pending = self._take_pending()
                for _ in self._threads:
                    self._calls.put(None)
        for future in pending:
            future.cancel()
            future.set_running_or_notify_cancel()
        if wait:
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join()

    def _take_pending(self) -> list[Future[Any]]:
        pending: list[Future[Any]] = []
        while True:
            try:
                entry = self._calls.get_nowait()
            except queue.Empty:
                return pending
            if entry is not None:
                pending.append(entry[0])


def make_crew(max_workers: int | None, *, captain: str = "crew") -> Executor:
    """Make one; the factory that the entry point names."""
    return Crew(max_workers or 2, captain)
