"""The chart: for each row and case, how many times as fast as the standard library each pool is."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from _rounds import Result, is_ours
from _svg import COLOURS, FAINT, INK, Canvas, LogScale
from rows import Bar

LINE, LEFT, RIGHT, WIDTH, TOP = 22, 380, 20, 960, 70
OURS, PEER = COLOURS[0], "#94a3b8"
BASE_FIGURE = 0  # the chart shows the first figure of each row


class Line(NamedTuple):
    """One line of the chart: speeds as multiples of the base's."""

    label: str
    base: str
    speeds: dict[str, float]
    bar: float | None


def lines_of(result: Result) -> list[Line]:
    """Return a row's lines."""
    row, figure = result.row, result.row.figures[BASE_FIGURE]
    found = []
    for case in row.cases:
        medians = {name: result.median((name, case), BASE_FIGURE) for name in row.contenders}
        base, own_case = row.baseline, case
        if medians.get(base) is None and row.baseline_case:
            own_case = row.baseline_case
        reference = result.median((base, own_case), BASE_FIGURE)
        if reference is None:
            base = result.best_peer(case, BASE_FIGURE) or ""
            reference = result.median((base, case), BASE_FIGURE)
        if not reference:
            continue
        speeds = {
            name: median / reference if figure.more else reference / median
            for name, median in medians.items()
            if median
        }
        label = f"{row.title}, {case}" if case else row.title
        if base != row.baseline:
            label += f" (1: {base})"
        found.append(Line(label, base, speeds, bar_of(figure.bars, figure.more, result, case)))
    return found


def bar_of(bars: tuple[Bar, ...], more: bool, result: Result, case: str) -> float | None:
    """Return the bar that is a multiple of the standard library's figure, as a speed."""
    for bar in bars:
        if bar.base == result.row.baseline and (not bar.cases or case in bar.cases):
            return bar.factor if more else 1 / bar.factor
    return None


def write(path: Path, results: Iterable[Result], caption: str) -> None:
    """Draw all rows that have something to show; better is further right."""
    lines = [line for result in results if result.row.chart for line in lines_of(result)]
    height = TOP + LINE * len(lines) + 30
    canvas = Canvas(WIDTH, height, "Speed as a multiple of the standard library's")
    values = [speed for line in lines for speed in line.speeds.values()]
    scale = LogScale([*values, *(line.bar for line in lines if line.bar)], LEFT, WIDTH - RIGHT)
    bold = "font-weight: 600"
    canvas.text(
        10, 20, "Times as fast as the standard library (further right is better)", style=bold
    )
    canvas.text(10, 38, caption, ink="#64748b")
    canvas.dot(LEFT + 6, 50, OURS, 5, "poolkit")
    canvas.text(LEFT + 16, 54, "poolkit")
    canvas.dot(LEFT + 86, 50, PEER, 4, "another pool")
    canvas.text(LEFT + 96, 54, "another pool")
    canvas.line([(LEFT + 190, 44), (LEFT + 190, 56)], OURS, 2)
    canvas.text(LEFT + 198, 54, "what poolkit has to reach")
    bottom = TOP + LINE * len(lines)
    for tick in scale.ticks():
        x = scale(tick)
        canvas.line([(x, TOP - 4), (x, bottom)], INK if tick == 1 else FAINT)
        canvas.text(x, bottom + 16, f"{tick:g}", anchor="middle")
    for number, line in enumerate(lines):
        y = TOP + LINE * number + LINE / 2
        canvas.text(LEFT - 12, y + 4, line.label, anchor="end")
        canvas.line([(LEFT, y), (WIDTH - RIGHT, y)], FAINT, 0.5)
        if line.bar:
            canvas.line([(scale(line.bar), y - 7), (scale(line.bar), y + 7)], OURS, 2)
        for name, speed in sorted(line.speeds.items(), key=lambda item: is_ours(item[0])):
            colour, radius = (OURS, 5) if is_ours(name) else (PEER, 4)
            canvas.dot(scale(speed), y, colour, radius, f"{name}: {speed:.2f}")
    canvas.write(path)
