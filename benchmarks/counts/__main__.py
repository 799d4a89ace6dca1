"""Count, and compare with the file, or put the counts into it.

uv run python -m benchmarks.counts [--update] [--require] [--only instructions]
"""

import argparse
import sys

from . import book, instructions, system_calls
from ._child import UnavailableError

WAYS = {"instructions": instructions, "system-calls": system_calls}


def main() -> int:
    """Return 1 if something has grown beyond its tolerance, or is missing that is required."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counts")
    parser.add_argument("--update", action="store_true", help="put this build's counts in the file")
    parser.add_argument(
        "--require", action="store_true", help="fail where a tool or this build's entry is missing"
    )
    parser.add_argument("--only", choices=WAYS, help="count nothing else")
    options = parser.parse_args()
    build = book.this_build()
    entry = book.load().get(build, {})
    print(build)
    missing, lines = False, list[book.Line]()
    for name, way in WAYS.items():
        if options.only not in (None, name):
            continue
        print(f"\n{way.GROUP}:", flush=True)
        try:
            counts = way.measure()
        except UnavailableError as error:
            print(f"skipped: {error}")
            missing = True
            continue
        before = entry.get(way.GROUP, {})
        compared = book.compare(before, counts, way.tolerance_of)
        print(book.table(compared))
        if options.update:
            book.save(build, {way.GROUP: counts})
        elif before:
            lines += compared
        else:
            print("not compared: the file has no counts of this build yet; see --update")
            missing = True
    said = {line.says for line in lines}
    if said - {""}:
        print("\nIf that is as it should be, --update puts the counts into the file.")
    return 1 if "grew" in said or (missing and options.require) else 0


if __name__ == "__main__":
    sys.exit(main())
