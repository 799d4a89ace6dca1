"""Short names of calls for error messages, safe against huge and hostile ``repr``s."""

import functools
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Long enough for a URL or a path, short enough for one line of a traceback.
_LIMIT = 72

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _LIMIT
_repr.maxlevel = 2
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = 4


def short_repr(value: object) -> str:
    """Return a one-line ``repr`` of at most a line's length, whatever ``value`` does."""
    try:
        text = _repr.repr(value)
    except BaseException as error:  # a hostile __repr__ must not replace the real error
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= _LIMIT else text[: _LIMIT - 1] + "…"


def function_name(fn: Any) -> str:
    """Return the qualified name of ``fn``, looking through `functools.partial`."""
    try:
        while issubclass(type(fn), functools.partial):
            fn = fn.func
        name = getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None)
    except BaseException:  # a hostile callable must not replace the real error
        name = None
    return name if isinstance(name, str) else type(fn).__name__


def describe_call(
    fn: Callable[..., object], args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> str:
    """Return ``fn(args)`` as text, each argument shortened."""
    parts = [short_repr(arg) for arg in args[:4]]
    parts += ["…"] if len(args) > 4 else []
    parts += [f"{key}={short_repr(value)}" for key, value in list((kwargs or {}).items())[:4]]
    return f"{function_name(fn)}({', '.join(parts)})"
