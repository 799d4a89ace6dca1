"""What travels between processes, as bytes: each piece by itself, so that a bad one fails alone."""

import io
import pickle
import traceback
from typing import Any, Final, Protocol

from .._describe import short_repr
from .._errors import RemoteTaskError, TaskSerializationError
from ._error_parts import dump_parts

_PROTOCOL: Final = 5

# So many causes of an error travel with it; more are a loop, or of no use.
_MOST_CAUSES: Final = 16


class Aside(Protocol):
    """Takes buffers that are to travel by themselves, as pickle's ``buffer_callback``."""

    def __call__(self, buffer: pickle.PickleBuffer, /) -> Any: ...
    def clear(self) -> object:
        """Forget them: the value is pickled once more."""
        ...


class Packed(Protocol):
    """A pickled value that is more than bytes."""

    def load(self) -> Any: ...


def dump_task(
    what: str,
    value: object,
    *,
    by_value: bool = False,
    prefer_value: bool = False,
    aside: Aside | None = None,
) -> bytes:
    """Pickle a function or arguments; what pickle refuses goes to cloudpickle, if installed.

    Args:
        what: What it is, for the error's message.
        value: The function or the arguments.
        by_value: Whether only cloudpickle will do, as the other side can't import ``__main__``.
        prefer_value: Whether cloudpickle comes first for the same reason, and pickle will do.
        aside: What takes buffers that are not to be in the bytes; None for none.

    Raises:
        TaskSerializationError: Neither can pickle it.
    """
    refusal: Exception
    if by_value:
        refusal = pickle.PicklingError("the workers can't import __main__, which is no file")
    else:
        if prefer_value and (data := _by_value(value, aside)) is not None:
            return data
        try:
            return pickle.dumps(value, _PROTOCOL, buffer_callback=aside)
        except Exception as error:
            refusal = error
        if aside is not None:
            aside.clear()
        try:  # what multiprocessing has taught its pickler: sockets, connections
            from multiprocessing.reduction import ForkingPickler

            return bytes(ForkingPickler.dumps(value, _PROTOCOL))
        except Exception:
            pass
    try:
        import cloudpickle
    except ImportError:
        raise TaskSerializationError(
            f"{what} {short_repr(value)}",
            _reason(refusal),
            "Define functions at the top level of a module, or install cloudpickle for lambdas, "
            "closures and what is typed into a prompt: pip install 'poolkit[cloudpickle]'",
        ) from refusal
    try:
        return bytes(cloudpickle.dumps(value, _PROTOCOL, buffer_callback=aside))
    except Exception as error:
        # Its frames have a pickler, which has buffers: Python 3.11 crashes if it collects those.
        traceback.clear_frames(error.__traceback__)
        raise TaskSerializationError(
            f"{what} {short_repr(value)}",
            _reason(error),
            "Open files, locks, futures and pools can't travel: pass what they are made from, "
            "and make them in the worker",
        ) from error


def _by_value(value: object, aside: Aside | None = None) -> bytes | None:
    """Pickle by cloudpickle; None if that can't be."""
    try:
        import cloudpickle

        data: bytes = cloudpickle.dumps(value, _PROTOCOL, buffer_callback=aside)
    except Exception:
        if aside is not None:
            aside.clear()
        return None
    return data


def dump_result(value: object, aside: Aside | None = None) -> bytes:
    """Pickle a result, in the worker.

    Args:
        value: The result.
        aside: What takes buffers that are not to be in the bytes; None for none.

    Raises:
        TaskSerializationError: It can't be pickled.
    """
    try:
        return pickle.dumps(value, _PROTOCOL, buffer_callback=aside)
    except Exception as error:
        refusal = error
    if aside is not None:
        aside.clear()
    data = _by_value(value, aside)
    if data is None:
        raise TaskSerializationError(
            f"the result {short_repr(value)}",
            _reason(refusal),
            "Return plain data, or the path of a file that holds it",
        ) from refusal
    return data


def load_task(what: str, data: bytes | Packed) -> Any:
    """Unpickle a function or arguments, in the worker.

    Raises:
        TaskSerializationError: It can't be unpickled here.
    """
    try:
        return pickle.loads(data) if isinstance(data, bytes) else data.load()
    except Exception as error:
        raise TaskSerializationError(
            what,
            _reason(error),
            "Workers must be able to import the modules that it comes from, and find it there",
        ) from error


def load_result(data: bytes | Packed) -> Any:
    """Unpickle a result, in the parent.

    Raises:
        TaskSerializationError: It can't be unpickled here.
    """
    try:
        return pickle.load(io.BytesIO(data)) if isinstance(data, bytes) else data.load()
    except BaseException as error:  # it runs code of the user's in a thread of ours
        raise TaskSerializationError(
            "the result", _reason(error), "Its class must be importable in the parent, too"
        ) from error


class RemoteTraceback(Exception):  # noqa: N818 - it is no error, but says where one arose
    """The cause of an error that came from another process: where it was raised there.

    Its own ``__cause__`` is the cause that the error had there, if any.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def dump_error(error: BaseException) -> bytes:
    """Pickle an error with its causes and the text of its traceback, in the worker.

    An error that can't make the whole journey, which is tried here, is replaced by a
    `RemoteTaskError`; so is one that can't even be formatted.
    """
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as failure:  # its __str__, or its __notes__
        text = f"{type(error).__name__} (its traceback can't be formatted: {failure!r:.200})\n"
    chain: list[bytes] = []
    following: BaseException | None = error
    while following is not None and len(chain) < _MOST_CAUSES:
        chain.append(_dump_one(following, text))
        following = following.__cause__
    return pickle.dumps((chain, text, *_names(error)), _PROTOCOL)


def _dump_one(error: BaseException, text: str) -> bytes:
    for dump in (_by_reference, dump_parts, _by_value):
        data = dump(error)
        if data is not None and _can_be_loaded(data):
            return data
    return pickle.dumps(RemoteTaskError(*_names(error), text), _PROTOCOL)


def _by_reference(error: BaseException) -> bytes | None:
    try:
        return pickle.dumps(error, _PROTOCOL)
    except Exception:
        return None


def _can_be_loaded(data: bytes) -> bool:
    try:
        pickle.loads(data)
    except Exception:
        return False
    return True


def load_error(data: bytes) -> BaseException:
    """Unpickle an error, in the parent, with the remote traceback as its cause."""
    chain, text, type_name, message = pickle.loads(data)
    error: BaseException | None = None
    cause: BaseException | None = None
    for one in reversed(chain):  # the innermost cause first
        cause = error
        try:
            error = pickle.loads(one)
            if not isinstance(error, BaseException):
                raise TypeError(f"it became {type(error).__name__}")
        except BaseException as failure:  # it runs code of the user's in a thread of ours
            error = RemoteTaskError(
                type_name, f"{message} (it could not be unpickled: {_reason(failure)})", text
            )
        _set_cause(error, cause)
    assert error is not None
    remote = RemoteTraceback(text)
    remote.__cause__ = cause
    _set_cause(error, remote)
    return error


def _set_cause(error: BaseException, cause: BaseException | None) -> None:
    """Set ``__cause__``, whatever the error's class has made of attributes."""
    BaseException.__dict__["__cause__"].__set__(error, cause)


def _names(error: BaseException) -> tuple[str, str]:
    """Return an error's type name and message, whatever its ``__str__`` does."""
    kind = type(error)
    try:
        message = "".join(str(error))  # a plain string, whatever __str__ has returned
    except Exception:
        message = "<no message: its __str__ raised>"
    return f"{kind.__module__}.{kind.__qualname__}", message


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no reason given"
    return f"{type(error).__name__}: {text[:200]}"
