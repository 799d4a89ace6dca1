"""Compare poolkit with other pools, row by row of its budget of speed.

uv run --group bench python benchmarks/run.py [--quick] [--only ROW] [--rounds N]
    [--json FILE] [--svg FILE]
"""

import argparse
import sys
from pathlib import Path

import _rounds
import chart
import report
from rich.console import Console
from rows import ROWS


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="three rounds of less work each, of the rows with a bar",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=ROWS,
        metavar="ROW",
        help=f"measure this row alone; may be repeated: {', '.join(ROWS)}",
    )
    parser.add_argument("--rounds", type=int, help="how often (5, or 3 with --quick)")
    parser.add_argument(
        "--limit", type=float, help="seconds for one sample (90, or 30 with --quick)"
    )
    parser.add_argument("--json", type=Path, help="write all samples to this file")
    parser.add_argument("--svg", type=Path, help="draw the chart into this file")
    options = parser.parse_args()
    if options.rounds is None:
        options.rounds = 3 if options.quick else 5
    options.limit = options.limit or (30.0 if options.quick else 90.0)
    quick = [name for name, row in ROWS.items() if any(figure.bars for figure in row.figures)]
    options.rows = options.only or (quick if options.quick else list(ROWS))
    if options.rounds < 1:
        parser.error("--rounds has to be at least 1")
    return options


def main() -> int:
    """Measure, and print; return 1 if poolkit hung, crashed or erred anywhere."""
    options = parse()
    console = Console(width=120, highlight=False)
    facts = report.about(options.rounds, options.quick)
    caption = (
        f"{facts['python']}, {facts['cpus']} CPUs, {facts['workers']} workers, "
        f"medians of {options.rounds}"
    )
    console.print(caption)
    console.print(", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    results = []
    for name in options.rows:
        result = _rounds.measure(
            ROWS[name],
            options.rounds,
            options.limit,
            quick=options.quick,
            tell=lambda text: print(text, file=sys.stderr, flush=True),
        )
        report.show(result, console)
        results.append(result)
    report.show_bars([verdict for result in results for verdict in result.verdicts()], console)
    if options.json:
        report.write_json(options.json, facts, results)
    if options.svg:
        chart.write(options.svg, results, caption)
    return any(
        taken.problems
        for result in results
        for (name, _), taken in result.taken.items()
        if _rounds.is_ours(name)
    )


if __name__ == "__main__":
    sys.exit(main())
