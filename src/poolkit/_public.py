"""`public`: the mark of what users import from `poolkit` itself."""

from typing import Any, TypeVar

T = TypeVar("T")


def public(definition: T) -> T:
    """Let a class or function show as the package's own, in tracebacks, pickles and documents."""
    shown: Any = definition
    shown.__module__ = "poolkit"
    return definition


def public_in_testing(definition: T) -> T:
    """Let a class or function show as one of `poolkit.testing`."""
    shown: Any = definition
    shown.__module__ = "poolkit.testing"
    return definition
