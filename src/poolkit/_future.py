"""`TaskFuture`: the handle of one submitted task, at a tenth of a standard future's cost.

States, as the standard library names them. A worker's claim and `cancel` both go through one
atomic operation on the task (`poolkit._backend.Batch.todo`), so only one of them wins::

    PENDING ──cancel()──> CANCELLED_AND_NOTIFIED
       │
       └──(runs: known to the pool, not stored here)──> FINISHED

A standard future makes a Condition at birth, which is most of its cost; most futures are never
waited on before they are done. Here the slot ``_gate`` starts empty and is filled once, by an
atomic ``dict.setdefault``, with either

* a real Condition, by the first thread that has to wait or to watch (`_condition`), or
* `_OPEN`, by the thread that settles the future and found nobody there.

Invariants:

* The outcome is stored before the gate is looked at, and the state after. Whoever settles and
  fills the gate itself knows that nobody waits; whoever finds a Condition there changes the
  state while holding it and notifies, just as the standard library does.
* Whoever finds `_OPEN` waits for the state, which the settling thread stores next.
* So code that holds `_condition` never sees the state change, and the standard library's
  ``wait`` and ``as_completed`` count every future exactly once.

Builds of Python without the global lock get the standard library's way: a Condition at birth.
"""

import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from ._clock import nap
from ._describe import short_repr
from ._errors import TaskAbortedError
from ._public import public
from ._task import threads, waiting_for

T = TypeVar("T")

_log = logging.getLogger("poolkit")
# Of its own, so that it can be switched off: logging.getLogger("poolkit.unretrieved").disabled
_unretrieved_log = logging.getLogger("poolkit.unretrieved")
_NEVER_PENDING = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED})


Aborted = Literal["cancelled", "abandoned", "killed", "finished"]
"""What `TaskFuture.abort` achieved: the task will never start; or it has been left to itself, and
goes on until its call returns; or its worker process has been told to end, and will be made to; or
it was done already."""


class TaskControl(Protocol):
    """What a future can ask the pool about its task; dropped when the future is done."""

    def abort(self) -> Aborted:
        """Cancel the task, or give it up if it runs."""
        ...

    def cancel(self) -> bool:
        """Take the task back if no worker has started it; say whether it is cancelled."""
        ...

    def run_here(self) -> None:
        """Run the task now, if the caller is a task of the same pool that has to wait for it."""
        ...

    def is_running(self) -> bool:
        """Whether a worker runs the task now."""
        ...


class _OpenGate:
    """Stands for the Condition of a future that was done before anybody looked."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> Literal[True]:
        return True

    def release(self) -> None: ...

    def __enter__(self) -> Literal[True]:
        return True

    def __exit__(self, *exc_info: object) -> None: ...

    def wait(self, timeout: float | None = None) -> Literal[True]:
        return True

    def notify(self, n: int = 1) -> None: ...

    def notify_all(self) -> None: ...


_OPEN = _OpenGate()


def _lazy_gates_are_safe() -> bool:
    """Whether this Python has the global lock, and a `Future` with the parts relied on here."""
    has_gil: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    parts = {"_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks"}
    return has_gil() and set(vars(Future())) == parts


LAZY = _lazy_gates_are_safe()


class _Unretrieved:
    """Stays with a failed future until somebody asks for its outcome; else, tells of it."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error

    def __del__(self) -> None:
        error = self.error
        if error is None:
            return
        # No exc_info: collection can strike anywhere, also while Python parses, and formatting a
        # traceback parses the source lines it shows, which CPython 3.11 does not survive.
        place, trace = "", error.__traceback__
        while trace is not None:
            place = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
            trace = trace.tb_next
        _unretrieved_log.error(
            "a task failed, and nobody asked its future for the outcome: %s, raised%s",
            short_repr(error),
            place or " by the call itself",
        )


@public
class TaskFuture(Future[T]):
    """The future of a submitted task; usable wherever a standard one is.

    Works with ``concurrent.futures.wait`` and ``as_completed`` and ``asyncio.wrap_future``.
    `running` is true only while a worker really runs the task. All methods are thread-safe.
    """

    # Read until an instance has its own: what a new future would only set to the same.
    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _control: TaskControl | None = None
    _refused = False
    """It failed before any worker had it."""
    _done_callbacks: list[Callable[[Future[T]], object]]

    def __init__(self, control: TaskControl | None = None) -> None:
        if control is not None:
            self._control = control
        if not LAZY:
            _ = self._condition

    def __reduce__(self) -> Any:
        raise TypeError(
            "a future stands for work in this process, and can't be pickled; send its result"
        )

    if not TYPE_CHECKING:  # a plain attribute to those who check that it is a `Future`

        @property
        def _condition(self) -> Any:
            fields = self.__dict__
            gate = fields.get("_gate")
            if gate is None:
                fields.setdefault("_waiters", [])
                fields.setdefault("_done_callbacks", [])
                gate = fields.setdefault("_gate", threading.Condition())
            if gate is _OPEN:
                while self._state == PENDING:  # the settling thread is two instructions away
                    time.sleep(0)
                fields.setdefault("_waiters", [])
            return gate

    def cancel(self) -> bool:
        """Take the task back if no worker has started it.

        Returns:
            Whether the future is cancelled, by this call or an earlier one.
        """
        control = self._control
        if control is None:
            return super().cancel()
        return control.cancel()

    def abort(self) -> Aborted:
        """End the task even if it is running, by the means of its kind.

        A process is told to end (SIGTERM), and killed if it is still there after ``kill_grace``;
        another one takes its place.

        A thread can't be killed: a running task on threads is *abandoned*. Its future fails with
        `TaskAbortedError` now, `current_task` tells it to stop, another worker takes its place,
        and its call goes on until it returns.

        Returns:
            What was achieved: ``"cancelled"`` (it had not started, and never will),
            ``"killed"``, ``"abandoned"``, or ``"finished"`` (it was done already).

        Raises:
            UnsupportedError: It runs, and its kind can't stop it.
        """
        control = self._control
        if control is not None:
            return control.abort()
        return "cancelled" if self.cancel() else "finished"

    def cancelled(self) -> bool:
        """Whether the task was cancelled."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        """Whether a worker runs the task at this moment."""
        control = self._control
        if control is None:
            return self._state == RUNNING
        return self._state == PENDING and control.is_running()

    def done(self) -> bool:
        """Whether the task has finished, failed or been cancelled."""
        return self._state in _NEVER_PENDING

    def result(self, timeout: float | None = None) -> T:
        """Wait for the task and return its value.

        Args:
            timeout: Seconds to wait at most; None for no limit.

        Raises:
            TimeoutError: It is not done yet. The task goes on.
            CancelledError: It was cancelled.
            Exception: Whatever the task raised, or why it could not finish.
        """
        error = self.exception(timeout)
        if error is not None:
            try:
                raise error
            finally:
                del self, error  # a traceback that holds its own error would be a cycle
        return self._result  # type: ignore[no-any-return]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the task and return its error; None if it succeeded.

        Args:
            timeout: Seconds to wait at most; None for no limit.

        Raises:
            TimeoutError: It is not done yet. The task goes on.
            CancelledError: It was cancelled.
        """
        if self._state not in _NEVER_PENDING:
            control = self._control
            if timeout is None and control is not None:
                control.run_here()
            self._await(timeout)
        if self._state != FINISHED:
            raise CancelledError
        self._mark_retrieved()
        return self._exception

    def _let_go(self) -> None:
        """Release the gate if an interrupt made this thread leave without doing so.

        Ctrl-C may strike between the taking of a lock and the ``with`` or ``try`` that would
        release it: the standard library's ``wait`` and ``as_completed``, which take those of all
        their futures, one after the other, leave them taken. Whoever settles would wait for ever.
        To be called by code that interrupts pass through, which holds no gate by right.
        """
        gate = self.__dict__.get("_gate", _OPEN)
        while gate is not _OPEN and gate._is_owned():
            gate.release()

    def _mark_retrieved(self) -> None:
        unretrieved: _Unretrieved | None = self.__dict__.pop("_unretrieved", None)
        if unretrieved is not None:
            unretrieved.error = None

    def _get_snapshot(self) -> Any:
        """Be asked by asyncio, from Python 3.14 on."""
        self._mark_retrieved()
        return super()._get_snapshot()  # type: ignore[misc]

    def _await(self, timeout: float | None) -> None:
        control = self._control
        if control is None or not threads.in_pool:
            self._wait(timeout)
            return
        with waiting_for(
            (control,), any_of=False, untimed=timeout is None, come=self.done, timeout=timeout
        ) as late:
            self._wait(0 if late else timeout)

    def _wait(self, timeout: float | None) -> None:
        condition = self._condition
        left = math.inf if timeout is None else timeout
        end = time.monotonic() + left
        with condition:
            while self._state not in _NEVER_PENDING:
                pause = nap(left)
                if not condition.wait(pause):
                    left = end - time.monotonic() if pause is None or pause < left else 0
                    if left <= 0 and self._state not in _NEVER_PENDING:
                        raise TimeoutError

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call ``fn(self)`` when the task is done; at once if it is.

        It runs in the thread that settles the future, with no lock held. What it raises is
        logged and goes no further.
        """
        with self._condition:
            if self._state not in _NEVER_PENDING:
                self._done_callbacks.append(fn)
                return
        self._call(fn)

    def set_result(self, result: T) -> None:
        """Settle with a value; for executors."""
        self._settle(FINISHED, result, None)

    def set_exception(self, exception: BaseException | None) -> None:
        """Settle with an error; for executors."""
        self._settle(FINISHED, None, exception)

    def _settle(self, state: str, value: Any, error: BaseException | None) -> None:
        """Move to a final state, wake whoever waits, and run the callbacks."""
        fields = self.__dict__
        if self._state in _NEVER_PENDING:
            raise InvalidStateError(f"{self._state}: {self!r}")
        if error is not None and not isinstance(error, TaskAbortedError):
            fields["_unretrieved"] = _Unretrieved(error)
        # A future without a pool (made by hand, in tests) has no claim that keeps settlers apart.
        if "_gate" not in fields and self._control is not None:
            if error is None:
                fields["_result"] = value
            else:
                fields["_exception"] = error
            if fields.setdefault("_gate", _OPEN) is _OPEN:
                fields["_state"] = state
                fields.pop("_control", None)
                return
        with self._condition:
            if self._state in _NEVER_PENDING:
                raise InvalidStateError(f"{self._state}: {self!r}")
            fields["_result"] = value
            fields["_exception"] = error
            fields["_state"] = state
            for waiter in self._waiters:
                if state != FINISHED:
                    waiter.add_cancelled(self)
                elif error is not None:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            self._condition.notify_all()
        control = fields.pop("_control", None)
        if self._done_callbacks:
            threads.settling.append(control)
            try:
                self._invoke_callbacks()
            finally:
                threads.settling.pop()

    def _settle_cancelled(self) -> None:
        """Settle as cancelled, having made sure that the task will not run."""
        self._settle(CANCELLED_AND_NOTIFIED, None, None)

    def _invoke_callbacks(self) -> None:
        callbacks, self._done_callbacks = self._done_callbacks, []
        for callback in callbacks:
            self._call(callback)

    def _call(self, callback: Callable[[Future[T]], object]) -> None:
        try:
            callback(self)
        except BaseException:  # even SystemExit must not stop the thread that settles others
            _log.exception("exception calling callback for %r", self)
