"""What is code under test: not the standard library, not what is installed beside it, not ours."""

import os
import sysconfig
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Final

_PLACES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_PLACES.append(str(Path(__file__).parent.parent))
_OTHERS: Final = tuple({os.path.realpath(place) + os.sep for place in _PLACES})


@cache
def is_under_test(filename: str) -> bool:
    """Whether a file is code under test."""
    return not filename.startswith("<") and not os.path.realpath(filename).startswith(_OTHERS)


def place_of(frame: FrameType | None) -> str:
    """Return where the code under test is, in a frame or those that it was called from."""
    innermost = frame
    while frame is not None and not is_under_test(frame.f_code.co_filename):
        frame = frame.f_back
    found = frame or innermost
    return f"{found.f_code.co_filename}:{found.f_lineno}" if found is not None else "nowhere"
