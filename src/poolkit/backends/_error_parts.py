"""Taking an error apart that pickle refuses, and putting it together without its ``__init__``.

Pickle calls an error's class with its ``args``. That fails for every class whose ``__init__``
wants something else, and for errors that hold on to a file or a lock, such as urllib's
``HTTPError``. They travel in parts, without those that can't. If what arrives says the same as
what was raised, it is of more use than a stand-in of another type.
"""

import pickle
from typing import Any

from .._describe import short_repr


def dump_parts(error: BaseException) -> bytes | None:
    """Pickle an error in parts; None if what would arrive is not of its type, or says else."""
    left_behind: list[str] = []
    args: list[Any] = []
    for number, value in enumerate(error.args):
        if _can_travel(value):
            args.append(value)
        else:
            args.append(short_repr(value))
            left_behind.append(f"args[{number}]")
    state: dict[str, Any] = {}
    for name, value in vars(error).items():
        if _can_travel(value):
            state[name] = value
        else:
            left_behind.append(name)
    if left_behind:
        note = f"poolkit: could not travel, and stayed in the worker: {', '.join(left_behind)}"
        state["__notes__"] = [*state.get("__notes__", ()), note]
    try:
        data = pickle.dumps(_Parts(type(error), tuple(args), state), 5)
        arrived: Any = pickle.loads(data)
        if type(arrived) is type(error) and str(arrived) == str(error):
            return data
    except Exception:  # the class is not to be found by its name, or wants to be made otherwise
        pass
    return None


def _can_travel(value: object) -> bool:
    try:
        pickle.loads(pickle.dumps(value, 5))
    except Exception:
        return False
    return True


class _Parts:
    """Is unpickled as the error whose parts it holds."""

    def __init__(
        self, kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
    ) -> None:
        self._parts = kind, args, state

    def __reduce__(self) -> tuple[Any, ...]:
        return _put_together, self._parts


def _put_together(
    kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> BaseException:
    error: BaseException = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error
