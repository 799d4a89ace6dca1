"""The engine: who is measured when, what comes of it, and what that says about the bars.

The contenders take turns within a round, each round begins with another one, and what counts is
the median: so that a noisy machine is noisy to all of them.
"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

import _guard
import contenders
from rows import BEST_PEER, Bar, Figure, Row

Cell = tuple[str, str]  # contender, case


class Taken(NamedTuple):
    """The samples of one cell."""

    values: list[list[float]]  # per round, per figure
    problems: list[str]

    def median(self, figure: int) -> float | None:
        """Return a figure's median; None if any round went wrong."""
        if self.problems or not self.values:
            return None
        return statistics.median(values[figure] for values in self.values)


class Verdict(NamedTuple):
    """How poolkit stands to one bar."""

    row: str
    contender: str
    case: str
    figure: str
    bar: str
    value: float | None  # in the terms of the bar
    met: bool | None  # None if it could not be measured


class Result(NamedTuple):
    """A row's samples."""

    row: Row
    taken: dict[Cell, Taken]

    def median(self, cell: Cell, figure: int) -> float | None:
        """Return a cell's median, if it was measured."""
        return self.taken[cell].median(figure) if cell in self.taken else None

    def best_peer(self, case: str, figure: int) -> str | None:
        """Return who is best in a case, poolkit and what is no library left out."""
        figures = {
            name: median
            for name in self.row.contenders
            if not is_ours(name) and not is_reference(name)
            if (median := self.median((name, case), figure)) is not None
        }
        best = max if self.row.figures[figure].more else min
        return best(figures, key=figures.__getitem__, default=None)

    def ratio(self, cell: Cell, figure: int, base: str, base_case: str = "") -> float | None:
        """Return a figure as a multiple of somebody's, in the same case or in another one."""
        if base == BEST_PEER:
            base = self.best_peer(cell[1], figure) or ""
        mine = self.median(cell, figure)
        other = self.median((base, base_case or cell[1]), figure)
        return mine / other if mine is not None and other else None

    def to_baseline(self, cell: Cell, figure: int) -> float | None:
        """Return a figure as a multiple of the standard library's."""
        row = self.row
        own = self.ratio(cell, figure, row.baseline)
        return own or self.ratio(cell, figure, row.baseline, row.baseline_case)

    def verdicts(self) -> list[Verdict]:
        """Return how poolkit stands to the row's bars."""
        return [
            self.judge((name, case), number, figure, bar)
            for name, case in self.row.cells()
            if is_ours(name)
            for number, figure in enumerate(self.row.figures)
            for bar in figure.bars
            if not bar.cases or case in bar.cases
        ]

    def judge(self, cell: Cell, number: int, figure: Figure, bar: Bar) -> Verdict:
        """Compare one cell with one bar."""
        if bar.base:
            value = self.ratio(cell, number, bar.base, bar.case)
        else:
            value = self.median(cell, number)
        met = None
        if value is not None:
            met = value >= bar.factor if figure.more else value <= bar.factor
        unit = f"x {bar.base}" if bar.base else figure.unit
        text = f"at {'least' if figure.more else 'most'} {bar.factor:g} {unit}"
        return Verdict(self.row.name, *cell, figure.name, text, value, met)


def is_ours(name: str) -> bool:
    """Say whether a contender is poolkit."""
    return contenders.find(name).ours


def is_reference(name: str) -> bool:
    """Say whether a contender is no library, but what could be had by hand."""
    return contenders.find(name).reference


def measure(
    row: Row,
    rounds: int,
    limit: float,
    *,
    quick: bool,
    tell: Callable[[str], object] = lambda text: None,
) -> Result:
    """Take a row's samples.

    Args:
        row: What is measured.
        rounds: How often. A cell that went wrong is tried once more (not if quick), and then no
            longer.
        limit: Seconds that one sample may take.
        quick: Whether to do with less work in each.
        tell: Called with a line for each sample.
    """
    cells = row.cells()
    for name in row.contenders:
        if module := contenders.missing(name):
            tell(f"{row.name}: {name} is skipped: {module} is not installed")
            cells = [cell for cell in cells if cell[0] != name]
    taken = {cell: Taken([], []) for cell in cells}
    for turn in range(rounds):
        for case in row.cases:
            turns = [cell for cell in cells if cell[1] == case]
            first = turn % len(turns) if turns else 0
            for cell in turns[first:] + turns[:first]:
                if len(taken[cell].problems) >= (1 if quick else 2):
                    continue
                arguments = [row.name, *cell, "quick" if quick else "full"]
                sample = _guard.run("import _sample; _sample.row()", arguments, limit)
                if sample.problem:
                    taken[cell].problems.append(sample.problem)
                else:
                    taken[cell].values.append(sample.values)
                what = sample.problem or ", ".join(f"{value:,.6g}" for value in sample.values)
                label = ", ".join(filter(None, [row.name, case, cell[0]]))
                tell(f"round {turn + 1}: {label}: {what}")
    return Result(row, taken)
