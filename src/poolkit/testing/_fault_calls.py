"""What happens in the worker: calls, and what befalls them.

Imported by worker processes, so it needs little of the rest.
"""

import copy
import functools
import math
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

import attrs

from .._describe import short_repr
from .._errors import TaskSerializationError
from .._task import current_task, threads
from ._fault_slot import InFront
from ._host import sleep

if TYPE_CHECKING:
    from ._fault_backend import FaultyBackend

SIGKILL: Final = getattr(signal, "SIGKILL", 9)

_REASON: Final = "TypeError: a FaultPlan made it unpicklable"
_REMEDY: Final = "Return plain data, or the path of a file that holds it"


class Fault:
    """What befalls one call, in the worker that runs it."""

    __slots__ = ()

    def before(self) -> None:
        """Do what happens before the call, or in its place, by raising."""

    def after(self, value: Any) -> Any:
        """Return what the call is to return instead of `value`."""
        return value


@attrs.frozen
class Raise(Fault):
    """The call is not made; an error is raised."""

    error: BaseException

    def before(self) -> NoReturn:
        # Each task has an error of its own: with its own note and traceback.
        raise _copy(self.error)


@attrs.frozen
class Delay(Fault):
    """The call begins later. Cut short, as a long call should be, if nobody wants it any more."""

    seconds: float

    def before(self) -> None:
        if threads.run is None:  # in a pool that isn't ours
            sleep(self.seconds)
        elif self.seconds:
            task = current_task()
            task.wait(self.seconds)
            task.check()


@attrs.frozen
class Hang(Fault):
    """The call never returns, until its time is over.

    Attributes:
        error: What it then ends with; None if only a signal ends it.
    """

    error: BaseException | None

    def before(self) -> None:
        if self.error is None:
            threading.Event().wait()
            return
        task = current_task()
        while not task.wait(math.inf):
            pass
        if not task._stop.is_set():
            raise _copy(self.error)
        task.check()


@attrs.frozen
class Die(Fault):
    """The worker process kills itself.

    Attributes:
        parent: A process that must not.
    """

    parent: int

    def before(self) -> None:
        if os.getpid() == self.parent:
            raise RuntimeError("a crash is to kill a worker process, but this is the parent")
        os.kill(os.getpid(), SIGKILL)


@attrs.frozen
class SpoilResult(Fault):
    """The call is made, and its result can't be pickled.

    Attributes:
        really: Whether it will be tried; elsewhere, the error is the same.
    """

    really: bool

    def after(self, value: Any) -> Any:
        if self.really:
            return _Unpicklable(value)
        raise TaskSerializationError(f"the result {short_repr(value)}", _REASON, _REMEDY)


class _Unpicklable:
    """Stands for a result, and refuses to be pickled, by whatever means."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        return repr(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a FaultPlan made it unpicklable")


def _copy(error: BaseException) -> BaseException:
    """Return an error like this one; the same, if its class does not let itself be copied."""
    try:
        copied = copy.copy(error)
        if type(copied) is not type(error) or copied.args != error.args:
            return error
        if copied.__dict__.get("__notes__"):
            copied.__notes__ = list(copied.__notes__)
    except Exception:
        return error
    copied.__cause__ = error.__cause__
    copied.__suppress_context__ = error.__suppress_context__
    return copied


class FaultyCall:
    """The function of a batch, with what befalls its calls; picklable if the function is.

    Looks like the function, for people and for the pickling of what is defined in ``__main__``.

    Args:
        fn: The function.
        marked: Whether each call's last argument is a tuple of its faults.
        front: Whose task it is, where tasks share our memory.
    """

    __wrapped__: Callable[..., Any]

    def __init__(
        self, fn: Callable[..., Any], marked: bool, front: "FaultyBackend | None" = None
    ) -> None:
        functools.update_wrapper(self, fn, ("__module__", "__name__", "__qualname__"), ())
        self._marked = marked
        self._front = front

    def __reduce__(self) -> Any:
        return FaultyCall, (self.__wrapped__, self._marked)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        faults: Sequence[Fault] = ()
        if self._marked:
            args, faults = args[:-1], args[-1]
        with InFront(self._front):
            for fault in faults:
                fault.before()
            value = self.__wrapped__(*args, **kwargs)
            for fault in faults:
                value = fault.after(value)
            return value
