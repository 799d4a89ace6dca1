"""What a row is: one kind of work, who does it, how it is measured, and what poolkit has to reach.

A row is measured in cases (say, with and without a limit on each task), and each measurement gives
one value for each of the row's figures. Ratios and bars speak of medians over the rounds.
"""

import gc
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import contenders

BEST_PEER = "the best peer"


class Bar(NamedTuple):
    """What poolkit has to reach."""

    factor: float
    base: str = ""  # times whose figure: a contender, BEST_PEER, or none: in the figure's unit
    cases: tuple[str, ...] = ()  # the cases that it is for; none: all
    case: str = ""  # the case of the base that is taken; none: the same


class Figure(NamedTuple):
    """One value of a measurement."""

    unit: str
    name: str = ""
    more: bool = False  # whether more is better
    bars: tuple[Bar, ...] = ()


class Row(NamedTuple):
    """One line of the budget, or one more that is worth knowing."""

    name: str
    title: str
    measure: Callable[[str, str, bool], tuple[float, ...]]  # contender, case, quick
    figures: tuple[Figure, ...]
    contenders: tuple[str, ...]
    cases: tuple[str, ...]
    offers: Callable[[str, str], bool] = lambda name, case: True  # whether it can do that case
    remark: Callable[[str], str] = lambda name: ""  # what of a contender is used
    baseline: str = "stdlib"
    baseline_case: str = ""  # the case of the baseline, where it can't do all
    chart: bool = True

    def cells(self) -> list[tuple[str, str]]:
        """Return all pairs of a contender and a case that can be measured."""
        return [(n, c) for c in self.cases for n in self.contenders if self.offers(n, c)]


NO_LIMIT, LIMIT = "no limit", "limit of 60 s"


def knows_limits(family: dict[str, type[contenders.Contender]]) -> Callable[[str, str], bool]:
    """Return the `Row.offers` of a row with the cases NO_LIMIT and LIMIT."""
    return lambda name, case: case == NO_LIMIT or family[name].limits


def remarks(family: dict[str, type[contenders.Contender]]) -> Callable[[str], str]:
    """Return the `Row.remark` of a row that uses these pools in their usual way."""
    return lambda name: family[name].remark


def maps(family: dict[str, type[contenders.Contender]]) -> tuple[str, ...]:
    """Return who has a map."""
    return tuple(name for name, made in family.items() if not made.reference)


def submitters(family: dict[str, type[contenders.Contender]]) -> tuple[str, ...]:
    """Return who takes single tasks."""
    return tuple(
        name
        for name, made in family.items()
        if made.submits and not made.reference and name not in contenders.MAPS_ONLY
    )


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that a call takes, with no garbage left from before it."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
