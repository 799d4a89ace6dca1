"""What travels between processes, as bytes: each piece by itself, so that a bad one fails alone."""

import io
import pickle
import traceback
from typing import Any, Final

from .._describe import short_repr
from .._errors import RemoteTaskError, TaskSerializationError

_PROTOCOL: Final = 5


def dump_task(what: str, value: object) -> bytes:
    """Pickle a function or arguments; what pickle refuses goes to cloudpickle, if installed.

    Args:
        what: What it is, for the error's message.
        value: The function or the arguments.

    Raises:
        TaskSerializationError: Neither can pickle it.
    """
    try:
        return pickle.dumps(value, _PROTOCOL)
    except Exception as error:
        refusal = error
    try:
        import cloudpickle
    except ImportError:
        raise TaskSerializationError(
            f"{what} {short_repr(value)}",
            _reason(refusal),
            "Define functions at the top level of a module, or install cloudpickle for lambdas "
            "and closures: pip install 'poolkit[cloudpickle]'",
        ) from refusal
    try:
        data: bytes = cloudpickle.dumps(value, _PROTOCOL)
    except Exception as error:
        raise TaskSerializationError(
            f"{what} {short_repr(value)}",
            _reason(error),
            "Open files, locks, sockets and pools can't travel: pass what they are made from, "
            "and make them in the worker",
        ) from error
    return data


def dump_result(value: object) -> bytes:
    """Pickle a result, in the worker.

    Raises:
        TaskSerializationError: It can't be pickled.
    """
    try:
        return pickle.dumps(value, _PROTOCOL)
    except Exception as error:
        raise TaskSerializationError(
            f"the result {short_repr(value)}",
            _reason(error),
            "Return plain data, or the path of a file that holds it",
        ) from error


def load_result(data: bytes) -> Any:
    """Unpickle a result, in the parent.

    Raises:
        TaskSerializationError: It can't be unpickled here.
    """
    try:
        return pickle.load(io.BytesIO(data))
    except Exception as error:
        raise TaskSerializationError(
            "the result", _reason(error), "Its class must be importable in the parent, too"
        ) from error


class RemoteTraceback(Exception):  # noqa: N818 - it is no error, but says where one arose
    """The cause of an error that came from another process: where it was raised there."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def dump_error(error: BaseException) -> bytes:
    """Pickle an error and the text of its traceback, in the worker.

    An error that can't make the whole journey, which is tried here, is replaced by a
    `RemoteTaskError`.
    """
    text = "".join(traceback.format_exception(error))
    try:
        data = pickle.dumps((error, text), _PROTOCOL)
        pickle.loads(data)
    except Exception:
        data = pickle.dumps((_stand_in(error, text), text), _PROTOCOL)
    return data


def load_error(data: bytes) -> BaseException:
    """Unpickle an error, in the parent, with the remote traceback as its cause."""
    try:
        error, text = pickle.loads(data)
    except Exception as failure:
        return RemoteTaskError("an error", f"it could not be unpickled: {_reason(failure)}", "")
    error.__cause__ = RemoteTraceback(text)
    return error  # type: ignore[no-any-return]


def _stand_in(error: BaseException, text: str) -> RemoteTaskError:
    kind = type(error)
    try:
        message = str(error)
    except Exception:
        message = "<no message: its __str__ raised>"
    return RemoteTaskError(f"{kind.__module__}.{kind.__qualname__}", message, text)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no reason given"
    return f"{type(error).__name__}: {text[:200]}"
