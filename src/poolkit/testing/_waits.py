"""Who waits for whom, as text: what a program that hangs is asked.

Two sources say what a thread waits for: the runs of tasks, which name what they await while they
wait without a limit, and the local variables of the waiting functions on its stack, which also
cover the main thread, waits with a limit, and the standard library's.

The stacks are read without any lock, so `describe_stacks` never hangs. `describe_pools` asks the
pools, which take theirs, and calls the `repr` of users' arguments: call it in a thread that may be
left behind.
"""

import concurrent.futures._base as stdlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator
from types import CodeType, FrameType
from typing import Any, Final

from .. import _executor
from .._bounds import Scope
from .._describe import function_name, short_repr
from .._future import TaskFuture
from .._window import Window

# Of what is pending, and of what a wait for many waits for, so many are named.
_NAMED: Final = 8
# So many frames of a stack are shown, the innermost.
_FRAMES: Final = 20

# Frames of pytest's own, around the test.
_PYTEST: Final = tuple(f"{os.sep}{package}{os.sep}" for package in ("_pytest", "pluggy"))

# The functions that wait, and the local variable that says for what.
_FUTURES_OF: Final[dict[CodeType, str]] = {
    TaskFuture._wait.__code__: "self",
    stdlib.Future.result.__code__: "self",
    stdlib.Future.exception.__code__: "self",
    stdlib.wait.__code__: "fs",
    stdlib.as_completed.__code__: "pending",
}
_OTHERS: Final[dict[CodeType, Callable[[Any], str]]] = {
    Scope._sleep.__code__: lambda scope: f"tasks of {scope._name} to end, as shutdown does",
    Window._wait.__code__: lambda window: f"results of a map of {function_name(window._fn)}",
}


def describe_pools() -> str:
    """Return what each living pool runs, what that waits for, and what is pending."""
    lines = ["pools:"]
    waits = dict(_waits_by_thread())
    for link in list(_executor._links):
        if len(link.scopes) == 1:
            try:
                lines += _describe_pool(link, waits)
            except Exception as error:  # it has changed meanwhile, or is a test double
                lines.append(f"    it can't be asked further: {short_repr(error)}")
    if len(lines) == 1:
        lines.append("  none")
    lines.append("threads that wait for futures:")
    for name, awaited in waits.items():
        lines.append(f"  {name} waits for {_join(awaited)}")
    if not waits:
        lines.append("  none")
    return "\n".join(lines)


def describe_stacks(but: Collection[int] = ()) -> str:
    """Return where each thread is, but for some, by their idents."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = ["stacks, innermost call last:"]
    frames = sys._current_frames()
    main = threading.main_thread().ident
    for ident in sorted(frames, key=lambda ident: ident != main):
        frame = frames[ident]
        if ident not in but:
            lines.append(f"thread {names.get(ident, 'of unknown name')} ({ident}):")
            lines += [line.rstrip("\n") for line in _format_stack(frame)]
    return "\n".join(lines)


def _format_stack(frame: FrameType) -> list[str]:
    summary = list(traceback.extract_stack(frame))
    for index in range(len(summary) - 1, -1, -1):
        if any(part in summary[index].filename for part in _PYTEST):
            summary = summary[index + 1 :] or summary
            break
    return traceback.format_list(summary[-_FRAMES:])


def _describe_pool(link: Any, waits: dict[str, list[str]]) -> Iterator[str]:
    backend, scope = link.backend, link.scopes[0]
    pending = [
        (part, number)
        for batch in scope.unsettled()
        for part in batch.unfinished_parts
        for number in reversed(part.todo.copy())
    ]
    found = backend.statistics()
    found = found._replace(pending=found.pending + len(pending))
    counts = ", ".join(f"{value} {name}" for name, value in found._asdict().items() if value)
    yield f"  {backend.name}: {counts or 'idle'}"
    now = time.monotonic()
    for batch, number, start in backend.running():
        run = batch.running.get(number)
        worker = getattr(run, "worker", "")
        since = f" for {now - start:.2f} s" if start else ""
        where = f" in {worker}" if worker else ""
        awaiting = getattr(run, "awaiting", None)
        awaited = waits.get(worker, [])
        if awaiting is not None:
            awaited = [_describe_batch(awaited) for awaited in awaiting.batches]
        what = f"which waits for {_join(awaited)}" if awaited else "which waits for no future"
        if not batch.running:  # it is in another process
            what = "of which nobody here can see what it does"
        yield f"    {batch.describe(number)} runs{since}{where}, {what}"
    for part, number in pending[:_NAMED]:
        yield f"    {part.describe(number)} is pending"
    if len(pending) > _NAMED:
        yield f"    and {len(pending) - _NAMED} more are pending"


def _waits_by_thread() -> Iterator[tuple[str, list[str]]]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        if awaited := _awaited_in(frame):
            yield names.get(ident, f"thread {ident}"), awaited


def _awaited_in(frame: FrameType | None) -> list[str]:
    """Return what the innermost waiting function of a stack waits for."""
    while frame is not None:
        code = frame.f_code
        if code in _OTHERS:
            return [_OTHERS[code](frame.f_locals["self"])]
        if code in _FUTURES_OF:
            value: Any = frame.f_locals.get(_FUTURES_OF[code])
            if isinstance(value, stdlib.Future):
                return [_describe_future(value)]
            futures: list[Any] = list(value or ())
            return [_describe_future(future) for future in futures if not future.done()]
        frame = frame.f_back
    return []


def _describe_future(future: Any) -> str:
    control = getattr(future, "_control", None)
    if control is None:
        return short_repr(future)
    return f"the future of {_describe_batch(control)}"


def _describe_batch(batch: Any) -> str:
    number = batch.todo[-1] if batch.todo else next(iter(batch.running), 0)
    state = "is pending" if batch.todo else "runs"
    many = f" and {len(batch.items) - 1} more" if len(batch.items) > 1 else ""
    return f"{batch.describe(number)}{many}, which {state} in {batch.backend.name}"


def _join(texts: Iterable[str]) -> str:
    texts = list(texts)
    more = [f"{len(texts) - _NAMED} more"] if len(texts) > _NAMED else []
    return "; ".join(texts[:_NAMED] + more)
