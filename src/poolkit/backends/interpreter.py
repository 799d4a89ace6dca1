"""The ``"interpreter"`` kind: a pool of threads, each with a Python interpreter of its own.

::

    dispatch: pack ──> the pool of threads ──> a worker's thread ──> its interpreter
    records <── unpacked in that thread <────────────── value or error, pickled

The workers are those of the ``"thread"`` kind, with its slots, its rules for waiting, and its ways
to give up what hangs. Only the call of a task's function is different: it crosses into the worker's
interpreter, which has its own modules and its own lock, and everything that crosses is bytes.

Invariants:

* An interpreter is opened, entered and closed by its worker's thread alone. So it is never closed
  while a task runs in it, and nothing waits for a hung one: what was given up keeps its
  interpreter until its call returns, if ever.
* The batch that a run knows is a `_Crossing`, which shares the life of the original; everybody
  else knows the original.

Why no loop inside the interpreter that takes one task after the other without leaving it? It
would need something to wait on that both sides share. There are pipes, and the wake-ups of two
threads cost more than to cross, which takes 12 µs (and ten times that in the main thread, which is
why none is opened there).
"""

import atexit
import contextlib
import itertools
import logging
import sys
import threading
import warnings
from collections.abc import Callable
from contextvars import Context
from importlib import import_module
from typing import Any, Final, cast

from .._backend import Backend, Batch, Capabilities, Running, Statistics
from .._errors import TaskSerializationError
from .._task import CurrentTask, Run, threads
from ._interpreter_worker import SLOTS, StopSignal
from ._packing import Packed, dump_afar, pack_for
from ._remote_worker import Entry
from ._run import ChunkRun, LocalRun
from ._serialization import load_error, load_result
from ._stand_in import StandIn

# The same modules are to be found inside as outside.
_ADOPT: Final = "import sys; sys.path[:] = path; sys.argv[:] = argv; del sys, path, argv"

_REFUSAL: Final = "does not support loading in subinterpreters"
_REFUSAL_ADVICE: Final = (
    "poolkit: a module that the task needs can't be used in the interpreters of this pool; "
    'use make_executor("process"), or "thread", for such tasks'
)
_MAIN_ADVICE: Final = (
    "An interpreter of the pool can't import the program that runs as __main__: define it in a "
    "module, or install cloudpickle: pip install 'poolkit[cloudpickle]'"
)

_log = logging.getLogger("poolkit")

# The parcel of a batch that others have claimed and emptied while it stood in the queue.
_NOTHING: Final = Packed(b"", ())

# Interpreters that are open. Changed by single, atomic operations.
_open: "set[_Interpreter]" = set()


# Functions cross as their code alone if it uses no globals; these are what is called inside.


def _begin(words: Any, initializer: Any) -> Any:
    from poolkit.backends import _interpreter_worker

    return _interpreter_worker.begin(words, initializer)


def _run_call(call: Any, entry: Any, limit: Any, attempt: Any, serial: Any) -> Any:
    from poolkit.backends import _interpreter_worker

    return _interpreter_worker.run_call(call, entry, limit, attempt, serial)


def _end() -> None:
    from poolkit.backends import _interpreter_worker

    _interpreter_worker.end()


class _Token(CurrentTask):
    """What a run passes on to the task that it runs elsewhere: the wish that it stop."""

    def __init__(self, stop: StopSignal) -> None:
        self._stop = cast(Any, stop)
        self._groups = []


class _Interpreter:
    """A worker's interpreter, from outside; to be used in the worker's thread only.

    Args:
        initializer: What it has to call first, with its arguments, pickled.

    Raises:
        BaseException: What the initializer has raised, or why there can't be another interpreter.
    """

    def __init__(self, initializer: bytes | None) -> None:
        self._words = memoryview(bytearray(8 * SLOTS)).cast("Q")
        self._serials = itertools.count(1)
        self._interpreter = import_module("concurrent.interpreters").create()
        _open.add(self)
        try:
            self._interpreter.prepare_main(
                path=tuple(map(str, sys.path)), argv=tuple(map(str, sys.argv))
            )
            self._interpreter.exec(_ADOPT)
            failure = self._interpreter.call(_begin, self._words, initializer)
        except BaseException:
            self.close()
            raise
        if failure is not None:
            self.close()
            raise _arrived(failure)

    def call(self, run: Run, call: bytes, entry: Entry) -> Any:
        """Call a function for an item of a run; return what it returns."""
        serial = next(self._serials)
        stop = StopSignal(self._words, serial)
        run.token = _Token(stop)
        batch = run.batch
        if run.stopping or batch.unwanted:  # after the token is to be seen: see `Run.ask_to_stop`
            stop.set()
        limit, attempt = batch.options.task_timeout, batch.attempt
        value, error = self._interpreter.call(_run_call, call, entry, limit, attempt, serial)
        if error is not None:
            raise _RaisedInsideError(error)
        return load_result(cast(tuple[bytes], value)[0]) if type(value) is tuple else value

    def close(self) -> None:
        """Close it; this waits for the threads that tasks have left in it."""
        _open.discard(self)
        with contextlib.suppress(Exception):  # it never began, or has no memory left
            self._interpreter.call(_end)
        self._interpreter.close()


class _RaisedInsideError(Exception):
    """Carries a task's error, still pickled, past frames that its traceback need not show."""


class _Judge(LocalRun):
    """A run whose errors come from inside."""

    def _judge(self, error: BaseException, duration: float) -> BaseException:
        if isinstance(error, _RaisedInsideError):
            error = _arrived(error.args[0])
        return super()._judge(error, duration)


class _SingleRun(_Judge):
    """A pass over a batch of one."""


class _ChunkRun(_Judge, ChunkRun):
    """A pass over a batch of many."""


def _arrived(data: bytes) -> BaseException:
    """Unpickle an error; where it is about a limit of this kind, say what to do."""
    error = load_error(data)
    if isinstance(error, TaskSerializationError) and "'__main__'" in error.reason:
        explained = TaskSerializationError(error.what, error.reason, _MAIN_ADVICE)
        explained.__cause__ = error.__cause__
        return explained
    if _REFUSAL in str(error.__cause__):  # which is the traceback inside
        with contextlib.suppress(Exception):
            BaseException.add_note(error, _REFUSAL_ADVICE)
    return error


class _Here(threading.local):
    """What the current thread has."""

    interpreter: _Interpreter | None = None


class _Crossing(StandIn):
    """A batch as a run knows it: its function crosses into the interpreter of the thread.

    Args:
        inner: The original.
        packed: Its parcel.
        here: Where the interpreter is found.
    """

    __slots__ = ()

    def __init__(self, inner: Batch, packed: Packed, here: _Here) -> None:
        super().__init__(inner)
        self.fn = _CrossingCall(here, packed.call)
        self.items = [(entry,) for entry in packed.entries]
        self.kwargs = {}
        self.context = Context()  # variables stay outside, and batches may share theirs


class _CrossingCall:
    """Stands for a task's function, in the thread of a worker."""

    __slots__ = ("_call", "_here")

    def __init__(self, here: _Here, call: bytes) -> None:
        self._here = here
        self._call = call

    def __call__(self, entry: Entry) -> Any:
        interpreter, run = self._here.interpreter, threads.run
        assert interpreter is not None
        assert run is not None
        return interpreter.call(run, self._call, entry)


class InterpreterBackend(Backend):
    """A pool of interpreters; see the module for its rules.

    Args:
        name: The pool, for people.
        initializer: Called in each interpreter before its first task.
        initargs: Its arguments.
        make_threads: Makes the pool of threads, given its ``initializer``, ``make_run`` and
            ``leave``: what each of its threads does at first, how it runs a batch, and what it
            does in the end.

    Raises:
        TaskSerializationError: The initializer or its arguments can't be sent.
    """

    capabilities = Capabilities(
        priorities=True, serializes=True, deadlines="soft", stops="abandoned"
    )

    def __init__(
        self,
        name: str,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        make_threads: Callable[..., Backend],
    ) -> None:
        self.name = name
        self._initializer = (
            None if initializer is None else dump_afar("the initializer", (initializer, initargs))
        )
        self._here = _Here()
        self._threads = make_threads(
            initializer=self._enter, make_run=self._make_run, leave=self._leave
        )
        self.max_workers = self._threads.max_workers

    # -- in the threads of workers ----------------------------------------------------------

    def _enter(self) -> None:
        self._here.interpreter = _Interpreter(self._initializer)

    def _make_run(self, batch: Batch, worker: str, owner: object) -> LocalRun:
        packed: Packed = batch.parcel or _NOTHING
        run = _SingleRun if len(packed.entries) == 1 else _ChunkRun
        return run(_Crossing(batch, packed, self._here), worker, owner)

    def _leave(self) -> None:
        interpreter, self._here.interpreter = self._here.interpreter, None
        if interpreter is not None:
            try:
                interpreter.close()
            except Exception:
                _log.exception("an interpreter of %s could not be closed", self.name)

    # -- in any thread ----------------------------------------------------------------------

    def dispatch(self, batch: Batch) -> None:
        if pack_for(batch):
            self._threads.dispatch(batch)

    @property
    def runner(self) -> Backend:
        return self._threads.runner

    def known_to(self, backend: Backend, batch: Batch) -> Batch | None:
        return self._threads.known_to(backend, batch)

    def withdraw(self, batch: Batch) -> list[int]:
        return self._threads.withdraw(batch)

    def stop(self, batch: Batch, number: int, error: BaseException) -> bool:
        return self._threads.stop(batch, number, error)

    def running(self) -> list[Running]:
        return self._threads.running()

    def statistics(self) -> Statistics:
        return self._threads.statistics()

    def shutdown(self, wait: bool) -> None:
        self._threads.shutdown(wait)


@atexit.register
def _hush() -> None:
    """Say nothing of interpreters that hang, at the program's exit: that they do was said."""
    if _open:
        warnings.filterwarnings("ignore", "remaining subinterpreters", RuntimeWarning)
