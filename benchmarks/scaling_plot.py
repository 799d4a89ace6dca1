"""The plots of `scaling`: time and memory over each axis, a line for each pool."""

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from _svg import COLOURS, FAINT, INK, Canvas, LogScale

Titles = tuple[str, str]  # of the plots of time and of memory


class Point(NamedTuple):
    """The samples of one pool at one value."""

    axis: str
    pool: str
    value: int
    samples: list[tuple[float, float]]
    problem: str

    def median(self, which: int) -> float:
        """Return the median seconds (0) or MiB (1)."""
        return statistics.median(sample[which] for sample in self.samples)


WIDE, HIGH, GAP = 420, 280, 90


def draw(path: Path, points: list[Point], titles: dict[str, Titles], caption: str) -> None:
    """Draw time and memory over each axis; both scales are logarithmic."""
    names = list(dict.fromkeys(point.axis for point in points))
    height = 70 + len(names) * (HIGH + GAP)
    canvas = Canvas(2 * WIDE + 180, height, "Time and memory as the work grows")
    canvas.text(10, 20, "Time and memory as the work grows", style="font-weight: 600")
    canvas.text(10, 38, caption, ink="#64748b")
    for row, name in enumerate(names):
        top = 70 + row * (HIGH + GAP)
        mine = [point for point in points if point.axis == name and point.samples]
        for which in (0, 1):
            plot(canvas, mine, which, 70 + which * (WIDE + 80), top, titles[name][which])
        pools = dict.fromkeys(point.pool for point in mine)
        for number, pool in enumerate(pools):
            x = 70 + number * 150
            canvas.line([(x, top + HIGH + 46), (x + 18, top + HIGH + 46)], *stroke(pool, pools))
            canvas.text(x + 22, top + HIGH + 50, pool)
    canvas.write(path)


def short(value: int) -> str:
    """Return a number with its unit's prefix, if it is a round one."""
    for factor, prefix in ((2**20, " Mi"), (2**10, " Ki"), (10**6, " M"), (10**3, " k")):
        if value % factor == 0:
            return f"{value // factor}{prefix}"
    return str(value)


def stroke(pool: str, pools: Iterable[str]) -> tuple[str, float, str]:
    """Return a pool's colour, width and dashes."""
    colour = COLOURS[list(pools).index(pool) % len(COLOURS)]
    return colour, 2.5 if pool.startswith("poolkit") else 1.5, "5 3" if "threads" in pool else ""


def plot(
    canvas: Canvas, points: list[Point], which: int, left: float, top: float, title: str
) -> None:
    """Draw one plot."""
    least = 1e-6 if which == 0 else 0.1  # a logarithm has no place for nothing at all
    heights = [max(point.median(which), least) for point in points]
    across = LogScale([point.value for point in points], left, left + WIDE)
    up = LogScale(heights, top + HIGH, top + 20)
    canvas.text(left, top + 6, title, style="font-weight: 600")
    for value in dict.fromkeys(point.value for point in points):
        canvas.line([(across(value), top + 20), (across(value), top + HIGH)], FAINT)
        canvas.text(across(value), top + HIGH + 16, short(value), anchor="middle")
    for tick in up.ticks():
        canvas.line([(left, up(tick)), (left + WIDE, up(tick))], FAINT)
        canvas.text(left - 6, up(tick) + 4, f"{tick:g}", anchor="end")
    canvas.line([(left, top + 20), (left, top + HIGH), (left + WIDE, top + HIGH)], INK)
    pools = dict.fromkeys(point.pool for point in points)
    for pool in pools:
        mine = [point for point in points if point.pool == pool]
        places = [(across(p.value), up(max(p.median(which), least))) for p in mine]
        canvas.line(places, *stroke(pool, pools))
        for (x, y), point in zip(places, mine, strict=True):
            tip = f"{pool}: {point.value:,}: {point.median(which):.4g}"
            canvas.dot(x, y, stroke(pool, pools)[0], 3, tip)
