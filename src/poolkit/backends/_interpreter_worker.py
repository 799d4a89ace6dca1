"""What runs inside an interpreter of the ``"interpreter"`` kind; see `interpreter` for the outside.

The outside calls in for each task, with plain values and bytes, and gets such back. Each call runs
in a thread state of its own: what tasks keep in thread-locals does not outlast them; what they keep
in modules does, until the interpreter is closed.
"""

import contextlib
import sys
import time
from typing import Any, Final, cast

from .._task import CurrentTask, Run
from ._call import RemoteCall
from ._remote_worker import Entry, call_one
from ._serialization import dump_error, load_task
from ._tracebacks import without_our_frame

SLOTS: Final = 64
"""Words that each interpreter shares with the outside; see `StopSignal`."""

# How often a task that waits looks whether it was given up, in seconds: no lock can be shared.
_LOOK_EVERY: Final = 0.01


class StopSignal:
    """Tells one task, across interpreters, that nobody wants its result any more.

    It stands for the `threading.Event` of a `CurrentTask`, on both sides. To set it is to write
    the task's serial number into a word of shared memory that later tasks will use, too. They have
    other numbers: so a wish that comes after its task's end concerns nobody.

    Args:
        words: The shared memory, as 64-bit words.
        serial: The task's number in its interpreter.
    """

    __slots__ = ("_serial", "_word", "_words")

    def __init__(self, words: memoryview, serial: int) -> None:
        self._words = words
        self._serial = serial
        self._word = serial % SLOTS

    def set(self) -> None:
        self._words[self._word] = self._serial

    def is_set(self) -> bool:
        return self._words[self._word] == self._serial

    def wait(self, timeout: float) -> bool:
        end = time.monotonic() + timeout
        while not self.is_set() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_EVERY))
        return self.is_set()


class _Run(Run):
    """What `current_task` finds here."""

    def __init__(self, words: memoryview) -> None:
        super().__init__(None)
        self.words = words
        self.serial = 0

    def make_token(self) -> CurrentTask:
        token = super().make_token()
        token._stop = cast(Any, StopSignal(self.words, self.serial))
        return token


_run: _Run | None = None
"""The one pass of this interpreter's only worker, once it has begun."""


def begin(words: memoryview, initializer: bytes | None) -> bytes | None:
    """Prepare this interpreter for tasks; return the initializer's error, pickled, if it fails."""
    global _run  # noqa: PLW0603
    _run = _Run(words)
    if initializer is not None:
        try:
            function, args = load_task("the initializer", initializer)
            function(*args)
        except BaseException as error:
            return dump_error(without_our_frame(error))
    return None


def run_call(
    call: bytes, entry: Entry, limit: float | None, attempt: int, serial: int
) -> tuple[Any, bytes | None]:
    """Make a call.

    Returns:
        The value, packed as that of an `Ending`, and the pickled error if it has failed.
    """
    assert _run is not None
    _run.batch = RemoteCall(limit, attempt)
    _run.serial = serial
    _, value, error, _, _ = call_one(call, 0, entry, _run)
    return value, error


def end() -> None:
    """Write out what tasks have printed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # it may be closed, or none
            stream.flush()
