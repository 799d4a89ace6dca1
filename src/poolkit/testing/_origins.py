"""Where things were made: pools, tasks, threads and processes, while somebody wants to know.

A `Recorder` that is started sees what is made from then on, until it is stopped. The first one
wraps a handful of functions, the last one puts them back; in between and after that, nothing
costs anything. Invariants:

* Wrappers do what they wrap and nothing else that could fail or wait; they keep nothing alive.
* A function is put back only if it is still our wrapper: whoever has wrapped it since keeps
  that, and a wrapper of ours that stays below records nothing.
"""

import contextlib
import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, NamedTuple

from .. import _executor, _future, _submission
from .._describe import short_repr

_STDLIB: Final = str(Path(os.__file__).parent)
# The line that made a thing is the first one above these.
_PASSED_OVER: Final = (
    str(Path(__file__).parent.parent) + os.sep,
    *(str(Path(_STDLIB, name)) + os.sep for name in ("concurrent", "multiprocessing", "asyncio")),
    *(str(Path(_STDLIB, name)) for name in ("threading.py", "contextlib.py", "weakref.py")),
    "<frozen ",
)


class Origin(NamedTuple):
    """A line that made something."""

    path: str
    line: int
    function: str

    def __str__(self) -> str:
        path = self.path
        with contextlib.suppress(ValueError, OSError):  # it is elsewhere; the folder is gone
            path = str(Path(path).relative_to(Path.cwd()))
        return f"{path}:{self.line} in {self.function}"


class Pool(NamedTuple):
    """A pool that was made, as far as it can be known without keeping it alive."""

    name: str
    scope: Any
    holds_nothing: bool
    origin: Origin | None


class Failure(NamedTuple):
    """A task that failed."""

    error: str
    origin: Origin


class Recorder:
    """Notes what is made and where, by any thread."""

    def __init__(self) -> None:
        # Guards all fields. Re-entrant, as the collector may strike while it is held.
        self._lock = threading.RLock()
        self._pools: list[Pool] = []
        self._executors: weakref.WeakSet[Executor] = weakref.WeakSet()
        self._threads: weakref.WeakKeyDictionary[threading.Thread, Origin | None]
        self._threads = weakref.WeakKeyDictionary()
        self._processes: weakref.WeakKeyDictionary[BaseProcess, Origin | None]
        self._processes = weakref.WeakKeyDictionary()
        self._unretrieved: weakref.WeakSet[_Tracked] = weakref.WeakSet()
        self._dropped: list[Failure] = []

    def start(self) -> None:
        """Note what is made from now on."""
        with _lock:
            if not _active:
                for patch in _patches:
                    patch.put()
            _active.append(self)

    def stop(self) -> None:
        """Note nothing more; may be called again."""
        with _lock:
            if self in _active:
                _active.remove(self)
                if not _active:
                    for patch in _patches:
                        patch.take_back()

    def pools(self) -> list[Pool]:
        """Return the pools that were made; views are none."""
        with self._lock:
            return list(self._pools)

    def threads(self) -> list[tuple[threading.Thread, Origin | None]]:
        """Return the threads that were started, and still exist in some way."""
        with self._lock:
            return list(self._threads.items())

    def processes(self) -> list[tuple[BaseProcess, Origin | None]]:
        """Return the processes that were started, and still exist in some way."""
        with self._lock:
            return list(self._processes.items())

    def failures(self) -> list[Failure]:
        """Return the tasks that failed, and nobody has asked for their outcome."""
        with self._lock:
            alive = list(self._unretrieved)
            dropped = list(self._dropped)
        return dropped + [
            Failure(short_repr(tracked.error), tracked.origin)
            for tracked in alive
            if tracked.error is not None
        ]

    def made_pool(self, pool: Pool) -> None:
        """Note a pool."""
        with self._lock:
            self._pools.append(pool)

    def made_executor(self, executor: Executor) -> None:
        """Note an executor of the standard library's."""
        with self._lock:
            self._executors.add(executor)

    def knows(self, owner: Executor | None) -> bool:
        """Whether what belongs to this executor of the standard library's is to be noted."""
        with self._lock:
            return owner is None or owner in self._executors

    def started_thread(self, thread: threading.Thread, origin: Origin | None) -> None:
        """Note a thread."""
        with self._lock:
            self._threads[thread] = origin

    def started_process(self, process: BaseProcess, origin: Origin | None) -> None:
        """Note a process."""
        with self._lock:
            self._processes[process] = origin

    def failed(self, tracked: "_Tracked") -> None:
        """Note a failure that has just come."""
        with self._lock:
            self._unretrieved.add(tracked)

    def dropped(self, failure: Failure) -> None:
        """Note a failure whose future was collected before anybody asked."""
        with self._lock:
            self._dropped.append(failure)


class _Tracked(_future._Unretrieved):
    """Stays with a failed future, and knows where its task was submitted."""

    # Also while the class in `_future` is replaced by what makes these.
    __slots__ = ("__weakref__", "_recorders", "origin")

    def __init__(
        self, error: BaseException, origin: Origin, recorders: tuple[Recorder, ...]
    ) -> None:
        super().__init__(error)
        self.origin = origin
        self._recorders = recorders
        for recorder in recorders:
            recorder.failed(self)

    def __del__(self) -> None:
        if self.error is not None:
            for recorder in self._recorders:
                recorder.dropped(Failure(short_repr(self.error), self.origin))
        super().__del__()


class _Patch:
    """One function that is replaced while anybody records."""

    def __init__(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        self._owner = owner
        self._name = name
        self._wrap = wrap
        self._original: Any = None
        self._wrapper: Any = None

    def put(self) -> None:
        self._original = vars(self._owner)[self._name]
        self._wrapper = self._wrap(self._original)
        setattr(self._owner, self._name, self._wrapper)

    def take_back(self) -> None:
        if vars(self._owner).get(self._name) is self._wrapper:
            setattr(self._owner, self._name, self._original)


class _Settling(threading.local):
    """Of which submission the current thread settles the future."""

    submitted: tuple[Origin, tuple[Recorder, ...]] | None = None


# Guards the fields below, and who has put the patches.
_lock = threading.RLock()
_active: list[Recorder] = []
_muted = 0

_settling = _Settling()
# Changed by single operations; keys are those of futures that live.
_submitted: "weakref.WeakKeyDictionary[Any, tuple[Origin, tuple[Recorder, ...]]]"
_submitted = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Note nothing of what is made in this block: it is to outlive those who record."""
    global _muted  # noqa: PLW0603
    with _lock:
        _muted += 1
    try:
        yield
    finally:
        with _lock:
            _muted -= 1


def _recorders() -> tuple[Recorder, ...]:
    return () if _muted else tuple(_active)


def find_origin() -> Origin | None:
    """Return the line that this call comes from, outside of poolkit and what it is made of.

    Where there is none, as in a worker that starts another one, it is the line that started the
    current thread.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_PASSED_OVER):
            return Origin(code.co_filename, frame.f_lineno, code.co_qualname)
        frame = frame.f_back  # type: ignore[assignment]
    thread = threading.current_thread()  # type: ignore[unreachable]
    for recorder in _active:
        for started, origin in recorder.threads():
            if started is thread:
                return origin
    return None


def _find_owner() -> Executor | None:
    """Return the standard library's executor that is about to start a worker, if one is."""
    frame = sys._getframe(1)
    while frame is not None:
        if "concurrent" in frame.f_code.co_filename:
            owner = frame.f_locals.get("self")
            if isinstance(owner, ThreadPoolExecutor | ProcessPoolExecutor):
                return owner
        frame = frame.f_back  # type: ignore[assignment]
    return None  # type: ignore[unreachable]


def _wrap_pool(original: Any) -> Any:
    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if self._parent is None and (recorders := _recorders()):
            link = self._link
            backend = link.backend
            # What runs in the caller, belongs to somebody else or is run by a test step by step
            # leaves nothing behind.
            nothing = backend.capabilities.runs_in_caller or not getattr(backend, "owned", True)
            pool = Pool(backend.name, link.scopes[0], nothing, find_origin())
            for recorder in recorders:
                recorder.made_pool(pool)

    return init


def _wrap_executor(original: Any) -> Any:
    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        for recorder in _recorders():
            recorder.made_executor(self)
        original(self, *args, **kwargs)

    return init


def _wrap_thread(original: Any) -> Any:
    @functools.wraps(original)
    def start(self: threading.Thread) -> None:
        if recorders := _recorders():
            origin, owner = find_origin(), _find_owner()
            for recorder in recorders:
                if recorder.knows(owner):
                    recorder.started_thread(self, origin)
        original(self)

    return start


def _wrap_process(original: Any) -> Any:
    @functools.wraps(original)
    def start(self: BaseProcess) -> None:
        if recorders := _recorders():
            origin, owner = find_origin(), _find_owner()
            for recorder in recorders:
                if recorder.knows(owner):
                    recorder.started_process(self, origin)
        original(self)

    return start


def _wrap_submission(original: Any) -> Any:
    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if (recorders := _recorders()) and (origin := find_origin()) is not None:
            _submitted[self.future] = origin, recorders

    return init


def _wrap_settle(original: Any) -> Any:
    @functools.wraps(original)
    def settle(self: Any, *args: Any, **kwargs: Any) -> None:
        outer = _settling.submitted
        _settling.submitted = _submitted.get(self.future)
        try:
            original(self, *args, **kwargs)
        finally:
            _settling.submitted = outer

    return settle


def _wrap_unretrieved(original: Any) -> Any:
    def make(error: BaseException) -> Any:
        submitted = _settling.submitted
        return original(error) if submitted is None else _Tracked(error, *submitted)

    return make


_patches: Final = (
    _Patch(_executor.PoolExecutor, "__init__", _wrap_pool),
    _Patch(ThreadPoolExecutor, "__init__", _wrap_executor),
    _Patch(ProcessPoolExecutor, "__init__", _wrap_executor),
    _Patch(threading.Thread, "start", _wrap_thread),
    _Patch(BaseProcess, "start", _wrap_process),
    _Patch(_submission.Submission, "__init__", _wrap_submission),
    _Patch(_submission.Submission, "settle", _wrap_settle),
    _Patch(_future, "_Unretrieved", _wrap_unretrieved),
)
