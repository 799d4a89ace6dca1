"""Values that need no pickling of their own: they travel as parts of a message."""

from collections.abc import Sequence
from itertools import chain
from types import NoneType
from typing import Any, Final

PLAIN: Final = frozenset({NoneType, bool, int, float, complex, str, bytes})
"""Types whose values arrive exactly as they were, however they travel; not their subclasses."""

SIZED: Final = frozenset({str, bytes})
"""Those of them that may be large."""

FIXED: Final = PLAIN - SIZED
"""Those that can't."""

LARGE: Final = 64 * 1024
"""Bytes, or characters, from which on a value is large. The process kind sends what is large to an
idle worker only, and alone."""


def is_plain(value: Any) -> bool:
    """Whether a value is plain, and not large."""
    return type(value) in FIXED or (type(value) in SIZED and len(value) <= LARGE)


def all_plain(items: Sequence[tuple[Any, ...]]) -> bool:
    """Whether all arguments of all items are plain, and none is large."""
    if len(items) == 1:  # this is on the way of each `submit`
        for arg in items[0]:  # noqa: SIM110 - at half the cost
            if type(arg) not in FIXED and not is_plain(arg):
                return False
        return True
    return plain_values(list(chain.from_iterable(items)))


def plain_values(values: Sequence[Any]) -> bool:
    """Whether all values are plain, and none is large."""
    types = set(map(type, values))
    if not types <= PLAIN:
        return False
    return types.isdisjoint(SIZED) or max(len(v) for v in values if type(v) in SIZED) <= LARGE
