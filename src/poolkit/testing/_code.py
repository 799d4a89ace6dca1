"""What is code under test: not the standard library, not what is installed beside it, not ours."""

import contextlib
import os
import sysconfig
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Final

_PLACES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_PLACES.append(str(Path(__file__).parent.parent))
_OTHERS: Final = tuple({os.path.realpath(place) + os.sep for place in _PLACES})

# Names of code that somebody has typed in; others are made by libraries.
_TYPED: Final = ("<stdin", "<string", "<doctest", "<ipython", "<python-input")


@cache
def is_under_test(filename: str) -> bool:
    """Whether a file is code under test."""
    if filename.startswith("<"):
        return filename.startswith(_TYPED)
    return not os.path.realpath(filename).startswith(_OTHERS)


def place_of(frame: FrameType | None) -> str:
    """Return where the code under test is, and where it was called, above a frame."""
    innermost = frame
    places: list[str] = []
    while frame is not None and len(places) < 2:
        # The frame of a comprehension is on the line of the one around it.
        if is_under_test(frame.f_code.co_filename) and (line := _line(frame)) not in places:
            places.append(line)
        frame = frame.f_back
    if not places:
        return "nowhere" if innermost is None else _line(innermost)
    return places[0] if len(places) == 1 else f"{places[0]}, called at {places[1]}"


def _line(frame: FrameType) -> str:
    path = frame.f_code.co_filename
    with contextlib.suppress(ValueError):  # on another drive
        shorter = os.path.relpath(path)
        path = path if shorter.startswith(os.pardir) else shorter
    return f"{path}:{frame.f_lineno}"
