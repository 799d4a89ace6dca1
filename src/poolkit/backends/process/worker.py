"""What runs in a worker process: read assignments, call, send results back.

The order of stamping the board, looking at the attention word and calling is what the parent's
kills rely on; see ``docs/explanation/process-pool.md``.
"""

import contextlib
import faulthandler
import marshal
import os
import signal
import socket
import struct
import threading
import time
from array import array
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any, Final

from ..._describe import describe_call
from ..._errors import TaskAbortedError, TaskCancelled, TaskTimeoutError
from ..._task import Run, threads
from .._call import RemoteCall
from .._plain import FIXED, is_plain
from .._serialization import dump_error, dump_result, load_task
from .._tracebacks import without_our_frame
from . import steps
from .board import ATTENTION, ENDED, SERIAL, START, Board, register_for_barriers
from .channel import WorkerEnd
from .dock import IDLE, Dock
from .freight import Arrived, arrived, check_size
from .lifeline import end_with, lead_group
from .memory import hoards
from .segments import Announcement

# What arguments are, if not a tuple of plain values.
_PACKED: Final = frozenset({bytes, list, Arrived})
# Results of a chunk are sent at this pace, in seconds of work.
HOLD: Final = 0.002
# How often results are sent that a slow item holds up, in seconds.
_LATE_HOLD: Final = 0.02
# How many quick items run between two looks at the clock: it costs half as much as one of them. The
# first slow one behind them may hold up so many others' results.
_SPRINT: Final = 16
# How long these may take, in seconds. If it was more, the next time it is one item.
_SPRINT_SECONDS: Final = 50e-6
# Two times, as an array has them, at a fifth of its cost.
_TIMES: Final = struct.Struct("2d").pack

in_worker = False
"""Whether this process is a worker: pools made here default to one process."""


class Inherited:
    """A descriptor that a worker gets from its parent, however it is started."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> Any:
        return _receive, (reduction.DupFd(self.descriptor),)

    def take(self) -> int:
        """Return it, in the worker, closed to the worker's own children."""
        os.set_inheritable(self.descriptor, False)
        return self.descriptor


def _receive(duplicate: Any) -> Inherited:
    return Inherited(duplicate.detach())


def _load(packed: Any) -> Any:
    """Unpickle arguments, in whichever form they have come."""
    return load_task("the arguments", arrived(packed))


class _Worker:
    """The state of this process's one worker."""

    def __init__(
        self,
        channel: WorkerEnd,
        board: Board,
        most_memory: int | None,
        sock: socket.socket | None,
    ) -> None:
        self._channel = channel
        self._board = board
        self._dock = None if sock is None else Dock(sock, board, self._reached)
        self._most_memory = most_memory
        self._step = steps.counter("WORKER")
        self._run = Run(None)
        # By number: the bytes, once they came, and the functions, once they were needed.
        self._packed_functions: dict[int, bytes] = {}
        self._functions: dict[int, Any] = {}
        self._serial = 0
        # Results that were not sent: of items `_first` and following, the first of which began at
        # `_times[0]`. Where that matters (`_timed`), each ended, as the next one began, at the
        # next of `_times`; elsewhere, there is one more time at most: when we looked last. Only
        # the main thread adds, the time before the value; whoever sends holds `_sending`, which
        # guards taking away.
        self._first = 1
        self._values: list[Any] = []
        self._times: list[float] = []
        self._timed = True
        self._errors: dict[int, bytes | None] = {}
        self._loans: list[Announcement] = []
        self._sent = 0.0
        self._sending = threading.Lock()
        self._holding: threading.Event | None = None

    def serve(self) -> None:
        """Run what comes until the parent has no more."""
        channel = self._channel
        channel.send(marshal.dumps(("ready",)))
        register_for_barriers()  # before any stamp, and while the parent answers
        self._reached()
        while True:
            if channel.idle:
                if self._times:  # results, or what `_send_late` has left
                    self._send()
                if self._holding is not None:
                    self._holding.clear()
                if self._dock is not None and self._dock.warm and not channel.wait(IDLE):
                    self._dock.rest()
            content = channel.receive()
            self._reached()
            message = None if content is None else marshal.loads(content)
            del content
            if message is None:
                self._send()
                return
            while message:
                first, fn, kwargs, terms, entries = message.pop(0)
                limit, hold, attempt, timed, lone, loan = terms
                if type(fn) is tuple and fn[1] is not None:
                    self._packed_functions[fn[0]] = fn[1]
                if first <= self._serial:  # sent again, as the parent was interrupted
                    continue
                if first != self._serial + 1:
                    self._send()
                    self._serial, self._first = first - 1, first
                if timed != self._timed:
                    self._send()
                    self._timed = timed
                if hold:
                    self._wake_holder()
                if loan is not None and self._dock is not None:
                    kwargs, entries = self._dock.open(loan, kwargs, entries)
                threads.run = self._run
                goes_on = self._work(fn, kwargs, RemoteCall(limit, attempt), hold, lone, entries)
                threads.run = None
                if not goes_on:
                    self._send()
                    channel.send(marshal.dumps(("bye", self._serial)))
                    return
                del fn, kwargs, entries

    def _work(
        self, fn: Any, kwargs: Any, call: RemoteCall, hold: bool, lone: bool, entries: Any
    ) -> bool:
        """Run an assignment's items; False if this worker is to end before the next."""
        clock, reached, run = time.monotonic, self._step, self._run
        values, times = self._values, self._times
        # Not a call for each of these: for a quick task, that would be a good part of the whole.
        words, began_at = self._board.words, self._board.times
        run.batch = call
        function: Any = None
        keywords: dict[str, Any] = {}
        most_memory, serial = self._most_memory, self._serial
        timed = self._timed
        sprints = not timed and kwargs is None and most_memory is None
        entries = list(reversed(entries))  # each is let go of when its turn has come
        while entries:
            if sprints and function is not None:
                serial = self._sprint(function, call, lone, entries, serial)
                break
            entry = entries.pop()
            serial += 1
            if times:
                start = times[-1]
            else:
                start = clock()
                times.append(start)
            if reached is not None:
                reached()
            began_at[START] = start
            words[SERIAL] = serial
            if words[ATTENTION] and not self._may_start(serial):
                self._errors[serial] = None
                if timed:
                    times.append(start)
                values.append(None)
                continue
            if reached is not None:
                reached()
            run.start = start
            run.token = None
            value: Any = None
            args: Any = None
            try:
                if function is None:
                    function = self._load_function(fn)
                    keywords = {} if kwargs is None else _load(kwargs)
                args = (entry,) if lone else _load(entry) if type(entry) in _PACKED else entry
                entry = None
                value = function(*args, **keywords) if keywords else function(*args)
                if type(value) not in FIXED and not is_plain(value):
                    value = self._pack_result(value)
            except BaseException as caught:
                self._errors[serial] = self._pack_error(caught, function, args or (), call)
                value = None
            args = entry = None  # keep nothing alive while the next one runs
            if reached is not None:
                reached()
            end = clock()
            if timed:
                times.append(end)
            else:
                times[1:] = [end]
            values.append(value)
            value = None
            words[ENDED] = serial
            if not hold or end - self._sent > HOLD:
                self._send()
                if reached is not None:
                    reached()
            if most_memory is not None and hoards(most_memory):
                self._serial = serial
                return False
        self._serial = serial
        run.batch = None
        return True

    def _sprint(
        self, function: Any, call: RemoteCall, lone: bool, entries: list[Any], serial: int
    ) -> int:
        """Run items as `_work` does, but of which nobody asks when each ran; so, faster.

        Returns:
            The serial of the last.
        """
        clock, reached, run = time.monotonic, self._step, self._run
        values, times = self._values, self._times
        words, began_at = self._board.words, self._board.times
        claim, keep = entries.pop, values.append
        few = 1
        while entries:
            start = times[-1] if times else clock()
            if not times:
                times.append(start)
            began_at[START] = run.start = start
            for serial in range(serial + 1, serial + 1 + min(few, len(entries))):  # noqa: B020
                args: Any = claim()
                if reached is not None:
                    reached()
                words[SERIAL] = serial
                if words[ATTENTION] and not self._may_start(serial):
                    self._errors[serial] = None
                    keep(None)
                    continue
                if reached is not None:
                    reached()
                run.token = None
                try:
                    if lone:
                        value = function(args)
                    else:
                        if type(args) in _PACKED:
                            args = _load(args)
                        value = function(*args)
                    if type(value) not in FIXED and not is_plain(value):
                        value = self._pack_result(value)
                except BaseException as caught:
                    known: Any = (args,) if lone else () if type(args) in _PACKED else args
                    self._errors[serial] = self._pack_error(caught, function, known, call)
                    value = None
                keep(value)
            args = value = None
            words[ENDED] = serial
            if reached is not None:
                reached()
            end = clock()
            times[1:] = [end]
            few = min(2 * few, _SPRINT) if end - start < _SPRINT_SECONDS else 1
            if end - self._sent > HOLD:
                self._send()
                if reached is not None:
                    reached()
        return serial

    def _pack_result(self, value: Any) -> tuple[Any, ...]:
        """Return what stands for a result that is not plain; see `parcel.Entry`."""
        if self._dock is None:
            return (check_size("the result", dump_result(value)),)
        packed, loan = self._dock.pack(value)
        if loan is None:
            return (packed,)
        self._loans.append(loan)
        self._sent = 0.0  # and so it is not held back
        return packed, loan[0]

    def _load_function(self, fn: Any) -> Any:
        """Return the function that a message names: by its bytes, its number, or both."""
        if type(fn) is bytes:
            return load_task("the function", fn)
        number = fn[0]
        if number not in self._functions:
            packed = self._packed_functions[number]
            self._functions[number] = load_task("the function", packed)
        return self._functions[number]

    def _may_start(self, serial: int) -> bool:
        """Look at what the parent wants; sleep for ever, or until pardoned, if condemned."""
        if self._board.condemned:
            self._send(under_way=True)
            while self._board.condemned:
                time.sleep(0.001)
        return not self._board.flagged(serial)

    def _pack_error(
        self, caught: BaseException, function: Any, args: tuple[Any, ...], call: RemoteCall
    ) -> bytes:
        error: BaseException = without_our_frame(caught)
        if isinstance(error, TaskCancelled):
            text, limit = describe_call(function, args), call.options.task_timeout
            if limit is not None and time.monotonic() - self._run.start >= limit:
                error = TaskTimeoutError(text, limit)
            else:
                error = TaskAbortedError(text)
        try:
            return dump_error(error)
        finally:
            del error

    # -- sending ----------------------------------------------------------------------------

    def _send(self, *, under_way: bool = False) -> None:
        """Send the results that are there.

        Args:
            under_way: Whether the main thread may be at an item, as this is another thread. That
                item began at the last of the times, which has to stay.
        """
        with self._sending:
            values, times, errors = self._values, self._times, None
            count = len(values)
            if count:
                if self._errors:
                    following = self._first + count
                    errors = {n: e for n, e in list(self._errors.items()) if n < following}
                    for number in errors:
                        del self._errors[number]
                when = times[: count + 1] if self._timed else (times[0], times[-1])
                ended = when[-1]
                stamps = _TIMES(*when) if len(when) == 2 else array("d", when).tobytes()
                content = marshal.dumps((self._first, stamps, values[:count], errors))
                self._first += count
                del values[:count]
                while self._loans:  # before the results that need them
                    self._channel.send(marshal.dumps(("loan", self._loans.pop(0))))
                self._channel.send(content)
                self._sent = ended
            if under_way:
                del times[: count if self._timed else -1]
            else:
                times.clear()

    def _wake_holder(self) -> None:
        """Have a thread send the results that wait behind a slow item."""
        if self._holding is None:
            self._holding = holding = threading.Event()
            threading.Thread(
                target=self._send_late, args=(holding,), name="poolkit-results", daemon=True
            ).start()
        if not self._holding.is_set():
            self._holding.set()

    def _send_late(self, holding: threading.Event) -> None:
        while True:
            holding.wait()
            time.sleep(_LATE_HOLD)
            if self._values and time.monotonic() - self._sent > _LATE_HOLD:
                self._send(under_way=True)

    def _reached(self) -> None:
        if self._step is not None:
            self._step()


def main(
    channel: Inherited,
    board: Inherited,
    lifeline: Inherited,
    descriptors: Inherited | None,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    most_memory: int | None,
) -> None:
    """Be a worker, until the parent says that it needs no more, or is gone."""
    global in_worker  # noqa: PLW0603
    in_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked parent's handlers are not for us
    end_with(lifeline.take(), leads_group=lead_group())
    with contextlib.suppress(Exception):  # a standard error that is no file
        faulthandler.enable()
    end = WorkerEnd(socket.socket(fileno=channel.take()))
    sock = None if descriptors is None else socket.socket(fileno=descriptors.take())
    worker = _Worker(end, Board.open(board.take()), most_memory, sock)
    if initializer is not None:
        register_for_barriers()  # once it has started threads, that would take milliseconds
        try:
            initializer(*initargs)
        except BaseException as error:
            end.send(marshal.dumps(("failed", dump_error(without_our_frame(error)))))
            return
    worker.serve()
