"""The file of counts: what each build of Python had, and how that compares with what it has now."""

import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

FILE: Final = Path(__file__).with_name("counts.json")

Counts = dict[str, float]
Entry = dict[str, Counts]
"""The counts of one build, in groups."""


def this_build() -> str:
    """Return what the counts belong to: another compiler, or its other mood, gives others."""
    _, built = platform.python_build()
    return (
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{platform.python_compiler()} of {' '.join(built.split())}, "
        f"{' '.join(platform.libc_ver())}, {platform.machine()}"
    )


class Line(NamedTuple):
    """A count, then and now; None where there is none."""

    name: str
    before: float | None
    now: float | None
    tolerance: float
    """How much it may grow: a fraction of what it was."""

    @property
    def says(self) -> Literal["grew", "shrank", "new", "gone", ""]:
        """What is to be said of it; nothing if it is within the tolerance."""
        if self.before is None:
            return "new"
        if self.now is None:
            return "gone"
        if self.now > self.before * (1 + self.tolerance):
            return "grew"
        return "shrank" if self.now * (1 + self.tolerance) < self.before else ""


def compare(before: Counts, now: Counts, tolerance_of: Callable[[str], float]) -> list[Line]:
    """Compare the counts of a group, in their order, what is gone last."""
    names = [*now, *(name for name in before if name not in now)]
    return [Line(name, before.get(name), now.get(name), tolerance_of(name)) for name in names]


def load(path: Path = FILE) -> dict[str, Entry]:
    """Return the entries by build; none if there is no file."""
    if not path.exists():
        return {}
    entries: dict[str, Entry] = json.loads(path.read_text(encoding="utf-8"))
    return entries


def save(build: str, groups: Mapping[str, Counts], path: Path = FILE) -> None:
    """Put groups of counts in the place of a build's earlier ones; all others stay."""
    entries = load(path)
    entry = entries.get(build, {})
    for group, counts in groups.items():
        entry[group] = {name: round(count, 2) for name, count in counts.items()}
    entries[build] = entry
    in_order = dict(sorted(entries.items()))
    path.write_text(json.dumps(in_order, indent=1) + "\n", encoding="utf-8")


def table(lines: list[Line]) -> str:
    """Return the counts as text, for people."""
    width = max(len(line.name) for line in lines)
    rows = [f"{'':{width}}  {'before':>12} {'now':>12} {'change':>9} {'allowed':>9}"]
    for line in lines:
        cells = ["" if value is None else f"{value:,.1f}" for value in (line.before, line.now)]
        change = "" if not (line.before and line.now) else f"{line.now / line.before - 1:+.1%}"
        allowed = f"{line.tolerance:+.0%}"
        row = f"{line.name:{width}}  {cells[0]:>12} {cells[1]:>12} {change:>9} {allowed:>9}"
        rows.append(f"{row}  {line.says}".rstrip())
    return "\n".join(rows)
