"""Just enough SVG to draw a chart: text, lines, dots, and a logarithmic axis."""

import math
from html import escape
from pathlib import Path

COLOURS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#a16207", "#0f766e", "#64748b")
INK, FAINT = "#1f2937", "#d1d5db"


class Canvas:
    """A white sheet, in pixels; (0, 0) is at its top left."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"',
            f'width="{width:g}" height="{height:g}" role="img"',
            'font-family="system-ui, sans-serif" font-size="12">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width:g}" height="{height:g}" fill="white"/>',
        ]

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "start",
        style: str = "",
        ink: str = INK,
    ) -> None:
        """Write; the anchor is ``start``, ``middle`` or ``end``."""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{ink}" '
            f'style="{style}">{escape(text)}</text>'
        )

    def line(
        self, points: list[tuple[float, float]], ink: str = INK, width: float = 1, dash: str = ""
    ) -> None:
        """Draw straight lines from point to point."""
        where = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{where}" fill="none" stroke="{ink}" stroke-width="{width:g}" '
            f'stroke-dasharray="{dash}"/>'
        )

    def dot(self, x: float, y: float, ink: str, radius: float, tip: str) -> None:
        """Draw a dot that tells what it is if one points at it."""
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{ink}">'
            f"<title>{escape(tip)}</title></circle>"
        )

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_text("\n".join([*self.parts, "</svg>", ""]), encoding="utf-8")


class LogScale:
    """Maps positive values to pixels, so that equal ratios are equal distances."""

    def __init__(self, values: list[float], start: float, end: float, margin: float = 0.05) -> None:
        logs = [math.log10(value) for value in values if value > 0] or [0.0]
        spare = margin * max(max(logs) - min(logs), 0.5)
        self.low, self.high = min(logs) - spare, max(logs) + spare
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        """Return where a value is."""
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return the powers of ten on the axis, at most seven; if there are few, also between."""
        powers = range(math.ceil(self.low), math.floor(self.high) + 1)
        if len(powers) > 2:
            return [10.0**power for power in powers[:: math.ceil(len(powers) / 7)]]
        around = range(math.floor(self.low), math.ceil(self.high) + 1)
        fine = [step * 10.0**power for power in around for step in (1, 2, 5)]
        return [tick for tick in fine if self.low <= math.log10(tick) <= self.high]
