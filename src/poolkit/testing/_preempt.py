"""Switch points between the lines of the code under test."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ._code import is_under_test
from ._host import here
from ._simulation import Simulation


@contextmanager
def tracing(simulation: Simulation, preempt: str | None) -> Iterator[None]:
    """Switch between the lines that the current thread runs, if wanted.

    Coverage and debuggers that use the same hook, ``sys.settrace``, don't see these lines.
    """
    if preempt is None:
        yield
        return

    def on_call(frame: FrameType, event: str, arg: object) -> Any:
        return on_line if is_under_test(frame.f_code.co_filename) else None

    def on_line(frame: FrameType, event: str, arg: object) -> Any:
        me = here.participant
        # Not where it has just given its turn away, which looks at conditions of the test's.
        if event == "line" and me is simulation.turn and me.frame is None and simulation.open:
            simulation.lines += 1
            simulation.checkpoint()
        return on_line

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        yield
    finally:
        sys.settrace(before)
