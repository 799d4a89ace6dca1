"""`schedules`: orders of events for hypothesis."""

from typing import TYPE_CHECKING

from .._checks import check_positive_int
from .._public import public_in_testing as public
from ._schedule import Schedule

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

# More can seldom go on at once; larger numbers would only be other names for the same.
_MOST_ABLE = 8


@public
def schedules(max_choices: int = 100) -> "SearchStrategy[Schedule]":
    """Return a strategy for `Schedule`, to be given to `SimulatedExecutor`; it shrinks well.

    A failing order shrinks towards one with few changes, in which tasks run one after the other.

    Args:
        max_choices: How many choices are drawn; after that, the first goes on.

    Raises:
        ModuleNotFoundError: hypothesis is not installed.
    """
    from hypothesis import strategies

    most = check_positive_int("max_choices", max_choices)
    choices = strategies.lists(strategies.integers(0, _MOST_ABLE - 1), max_size=most)
    return choices.map(Schedule)
