"""What `make_executor` returns while its kinds are overridden: see `poolkit.testing`."""

import inspect
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Final

from .. import _factory
from .._errors import UnsupportedError
from .._executor import PoolExecutor
from .._inherit import INHERIT

# What `make_executor` takes to mean "not asked for".
_DEFAULTS: Final[Mapping[str, Any]] = {
    "max_workers": None,
    "max_pending": None,
    "when_full": "block",
    "task_timeout": None,
    "retry": None,
    "observers": (),
    "initializer": None,
    "initargs": (),
}
# What a view can have, too.
_OF_VIEWS: Final = ("max_pending", "when_full", "task_timeout", "retry")


class _Making(threading.local):
    """Whether the current thread is in a factory, which may make pools itself."""

    now = False


_making = _Making()


def substitute(override: Any, kind: str, asked: Mapping[str, Any]) -> PoolExecutor:
    """Return a pool in place of the one that was asked for.

    Args:
        override: What to use: a kind, an executor, or what makes one.
        kind: What was asked for.
        asked: The arguments that `make_executor` was given, all but the kind.
    """
    if _making.now:
        return _factory.make_as_asked(kind, **asked)
    given = {name: value for name, value in asked.items() if value != _DEFAULTS.get(name, value)}
    given |= {name: value for name, value in asked.items() if name not in _DEFAULTS}
    if isinstance(override, str):
        return _of_kind(override, given)
    if isinstance(override, Executor):
        return _factory.make_as_asked(override, **_only(given, (*_OF_VIEWS, "observers")))
    return _made(override, given)


def _of_kind(kind: str, given: dict[str, Any]) -> PoolExecutor:
    own = _factory.options_of(kind)
    if own is not None:
        given = _only(given, (*_DEFAULTS, *own))
    if kind == "inline":
        given.pop("max_workers", None)
    return _factory.make_as_asked(kind, **given)


def _made(make: Callable[..., Executor], given: dict[str, Any]) -> PoolExecutor:
    taken = _taken(make, given)
    _making.now = True
    try:
        pool: Any = make(**taken)
    finally:
        _making.now = False
    rest = {name: value for name, value in given.items() if name not in taken}
    if not isinstance(pool, Executor):
        raise TypeError(f"the factory of override_executors returned {pool!r:.80}, no Executor")
    if not isinstance(pool, PoolExecutor):
        return _factory.adopt(pool, **_only(rest, (*_OF_VIEWS, "observers")))
    if "observers" in rest:
        raise UnsupportedError(
            pool.kind, "observers of a pool that exists", "let the factory take observers, too"
        )
    wanted = _only(rest, _OF_VIEWS)
    if not wanted:
        return pool
    wanted["task_timeout"] = wanted.get("task_timeout") or INHERIT
    view = pool.with_options(**wanted)
    view._owns_parent = True
    return view


def _taken(make: Callable[..., Executor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the arguments that a function takes by name."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # written in C
        return {}
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return dict(given)
    by_name = [each.name for each in parameters if each.kind is not each.POSITIONAL_ONLY]
    return _only(given, by_name)


def _only(given: Mapping[str, Any], names: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in names}
