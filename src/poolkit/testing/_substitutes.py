"""What `make_executor` returns while its kinds are overridden: see `poolkit.testing`."""

import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Final

from .. import _factory
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


def substitute(override: Any, asked: Mapping[str, Any]) -> PoolExecutor:
    """Return a pool in place of the one that was asked for.

    Args:
        override: What to use: a kind, an executor, or what makes one.
        asked: The arguments that `make_executor` was given, all but the kind.
    """
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
    pool: Any = make(**taken)
    rest = {name: value for name, value in given.items() if name not in taken}
    if not isinstance(pool, Executor):
        raise TypeError(f"the factory of override_executors returned {pool!r:.80}, no Executor")
    if not isinstance(pool, PoolExecutor):
        return _factory.adopt(pool, **_only(rest, (*_OF_VIEWS, "observers")))
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
