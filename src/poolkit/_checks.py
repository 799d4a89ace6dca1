"""Checks of arguments at the call: each names the argument, the value and what is allowed."""

import math
import re
import threading
from collections.abc import Callable
from typing import Any


def check_callable(name: str, value: object) -> None:
    """Raise `TypeError` unless `value` can be called."""
    if not callable(value):
        hint = " (pass the function itself, not the result of calling it)"
        raise TypeError(f"{name} must be callable, not {value!r:.80}{hint}")


def check_positive_int(name: str, value: Any) -> int:
    """Return `value` if it is an int greater than 0; numpy's integers pass, bools don't."""
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        number: int = value.__index__()
    except (AttributeError, TypeError):
        raise TypeError(f"{name} must be an int greater than 0, not {value!r:.80}") from None
    if number < 1:
        raise ValueError(f"{name} must be greater than 0, not {number}")
    return number


def check_seconds(name: str, value: Any, *, allow_zero: bool = False) -> float | None:
    """Return `value` as seconds, or None for None; refuse NaN, negatives and (mostly) zero."""
    if value is None:
        return None
    if isinstance(value, (bool, str, bytes, bytearray)):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r:.80}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r:.80}") from None
    if math.isnan(number) or number < 0 or (number == 0 and not allow_zero):
        least = "at least 0" if allow_zero else "more than 0"
        raise ValueError(f"{name} must be {least} seconds (None for no limit), not {number:g}")
    # Longer than the platform can wait, some 290 years here: as good as no limit.
    return None if number > threading.TIMEOUT_MAX else number


def check_name(name: str, value: Any) -> None:
    """Raise `ValueError` unless `value` can name a kind of executor."""
    if not isinstance(value, str) or not re.fullmatch(r"\w[\w.-]*", value):
        raise ValueError(f"{name} must be a word such as 'grid', not {value!r:.80}")


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise `ValueError` unless `value` is one of `allowed`."""
    if value not in allowed:
        choices = " or ".join(map(repr, allowed))
        raise ValueError(f"{name} must be {choices}, not {value!r:.80}")


def check_initializer(initializer: Callable[..., object] | None, initargs: object) -> None:
    """Check the pair of options that every pool with workers takes."""
    if initializer is not None:
        check_callable("initializer", initializer)
    if not isinstance(initargs, tuple):
        raise TypeError(f"initargs must be a tuple, not {initargs!r:.80}; one argument is (x,)")
