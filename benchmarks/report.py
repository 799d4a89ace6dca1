"""What the reader gets: a table for each row, the bars, and a JSON file with every sample."""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _contender import METHOD, WORKERS
from _rounds import Cell, Result, Verdict, is_ours
from rich.console import Console
from rich.table import Table
from rows import Row

DISTRIBUTIONS = (
    "poolkit",
    "deadpool-executor",
    "distributed",
    "futurist",
    "joblib",
    "loky",
    "more-executors",
    "mpire",
    "numpy",
    "pebble",
    "streamable",
)
VERDICTS = {True: "met", False: "[red]missed[/]", None: "[red]not measured[/]"}


def number(value: float | None) -> str:
    """Return a figure as one would write it."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def versions() -> dict[str, str]:
    """Return the version of each library that is installed."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def about(rounds: int, quick: bool) -> dict[str, Any]:
    """Return what one has to know of the circumstances."""
    return {
        "python": platform.python_implementation() + " " + sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "workers": WORKERS,
        "start_method": METHOD,
        "rounds": rounds,
        "quick": quick,
        "versions": versions(),
    }


def show(result: Result, console: Console) -> None:
    """Print a row's table."""
    row = result.row
    several = len(row.cases) > 1
    columns = ["case"] if several else []
    table = Table(*columns, "pool", title=row.title, title_justify="left", title_style="bold")
    for figure in row.figures:
        better = "more" if figure.more else "less"
        name = f"{figure.name}, " if figure.name else ""
        table.add_column(f"{name}{figure.unit} ({better} is better)", justify="right")
        if len(row.figures) == 1:
            table.add_column("least to most", justify="right")
        if shows_ratios(row):
            table.add_column(f"x {row.baseline}", justify="right")
            table.add_column("x best peer", justify="right")
    for case in row.cases:
        lines = [(name, cell) for name in row.contenders if (cell := (name, case)) in result.taken]
        for name, cell in lines:
            remark = row.remark(name)
            label = f"{name} ({remark})" if remark else name
            style = "bold" if is_ours(name) else None
            first = [case if cell == lines[0][1] else ""] if several else []
            last = cell == lines[-1][1]
            table.add_row(*first, label, *texts(result, cell), style=style, end_section=last)
    console.print(table)
    for (name, case), taken in result.taken.items():
        if taken.problems:
            where = ", ".join(filter(None, [case, name]))
            tries = len(taken.problems) + len(taken.values)
            console.print(
                f"{where}: {len(taken.problems)} of {tries} went wrong: {taken.problems[-1]}",
                markup=False,
            )


def shows_ratios(row: Row) -> bool:
    """Say whether there is room for ratios."""
    return len(row.figures) < 3


def texts(result: Result, cell: Cell) -> list[str]:
    """Return what stands in a line, for each figure."""
    row, taken = result.row, result.taken[cell]
    found: list[str] = []
    for i in range(len(row.figures)):
        median = result.median(cell, i)
        found.append(number(median) if median is not None else "failed")
        if len(row.figures) == 1:
            values = [values[i] for values in taken.values]
            found.append(f"{number(min(values))} to {number(max(values))}" if values else "")
        if not shows_ratios(row):
            continue
        found.append(number(result.to_baseline(cell, i)))
        best = result.best_peer(cell[1], i)
        found.append("best" if best == cell[0] else number(result.ratio(cell, i, best or "")))
    return found


def show_bars(verdicts: Iterable[Verdict], console: Console) -> None:
    """Print how poolkit stands to every bar."""
    table = Table(
        "row", "case", "pool", "bar", "figure", "", title="the bars", title_justify="left"
    )
    for verdict in verdicts:
        table.add_row(
            verdict.row,
            ", ".join(filter(None, [verdict.case, verdict.figure])),
            verdict.contender,
            verdict.bar,
            number(verdict.value),
            VERDICTS[verdict.met],
        )
    console.print(table)


def write_json(path: Path, facts: dict[str, Any], results: Iterable[Result]) -> None:
    """Write the circumstances, every sample, the medians and the bars."""
    rows = [
        {
            "name": result.row.name,
            "title": result.row.title,
            "figures": [
                {"name": figure.name, "unit": figure.unit, "more_is_better": figure.more}
                for figure in result.row.figures
            ],
            "cells": [
                {
                    "contender": name,
                    "remark": result.row.remark(name),
                    "case": case,
                    "samples": taken.values,
                    "problems": taken.problems,
                    "medians": [taken.median(i) for i in range(len(result.row.figures))],
                    "to_stdlib": [
                        result.to_baseline((name, case), i) for i in range(len(result.row.figures))
                    ],
                }
                for (name, case), taken in result.taken.items()
            ],
            "bars": [verdict._asdict() for verdict in result.verdicts()],
        }
        for result in results
    ]
    path.write_text(json.dumps({"about": facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")
