"""Make the documentation's table of the bars from the JSON files of one or more runs.

uv run --group bench python benchmarks/table.py figures-3.11.json figures-3.13.json
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _rounds import is_ours, is_reference
from report import number
from rows import ROWS

MARKS = {True: "", False: " **short**", None: " **not measured**"}

Bar = dict[str, Any]
Run = dict[str, Any]
Key = tuple[str, ...]


def key_of(bar: Bar) -> Key:
    """Return what makes a bar the same one in several runs."""
    return bar["row"], bar["case"], bar["figure"], bar["bar"], bar["contender"]


def bars_of(run: Run) -> dict[Key, Bar]:
    """Return a run's bars."""
    return {key_of(bar): bar for row in run["rows"] for bar in row["bars"]}


def best_peer(run: Run, bar: Bar) -> str:
    """Return who is the best peer in a bar's case, and its figure in the terms of the bar."""
    row: Any = next(row for row in run["rows"] if row["name"] == bar["row"])
    names = [figure["name"] for figure in row["figures"]]
    index = names.index(bar["figure"])
    peers = {
        cell["contender"]: cell
        for cell in row["cells"]
        if cell["case"] == bar["case"] and cell["medians"][index] is not None
        if not is_ours(cell["contender"]) and not is_reference(cell["contender"])
    }
    if not peers:
        return ""
    best = max if row["figures"][index]["more_is_better"] else min
    name = best(peers, key=lambda peer: peers[peer]["medians"][index])
    unit = bar["bar"].partition(" x ")[2]
    if unit == "stdlib":
        ratio = peers[name]["to_stdlib"][index]
        return f"{name}: {number(ratio)}" if ratio else name
    return name if unit else f"{name}: {number(peers[name]['medians'][index])}"


def lines(runs: Sequence[Run]) -> list[str]:
    """Return the lines of the table; what falls short in any run comes first."""
    bars = [bars_of(run) for run in runs]
    keys = [key for key in bars[0] if all(key in each for each in bars)]
    keys.sort(key=lambda key: all(each[key]["met"] for each in bars))  # stable
    pythons = [run["about"]["python"].split()[1] for run in runs]
    heads = ["work", "bar", *pythons, *(f"best peer, {python}" for python in pythons)]
    found = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for key in keys:
        row, case, figure, bar, contender = key
        work = ", ".join(filter(None, [ROWS[row].title, case, figure]))
        work += " (ordered)" if "ordered" in contender else ""
        ours = [f"{number(each[key]['value'])}{MARKS[each[key]['met']]}" for each in bars]
        peers = [best_peer(run, each[key]) for run, each in zip(runs, bars, strict=True)]
        found.append(f"| {' | '.join([work, bar, *ours, *peers])} |")
    return found


def main(paths: Sequence[str]) -> None:
    """Print the table."""
    runs = [json.loads(Path(path).read_text(encoding="utf-8")) for path in paths]
    print("\n".join(lines(runs)))


if __name__ == "__main__":
    main(sys.argv[1:])
