"""Run the same code on threads and on processes: one word is swapped."""

import ast
import sysconfig
import time
from pathlib import Path

from poolkit import make_executor, map_ordered


def count_functions(path: Path) -> int:
    """Parse a Python file, which keeps one CPU busy, and count the functions in it."""
    tree = ast.parse(path.read_bytes())
    return sum(isinstance(node, ast.FunctionDef) for node in ast.walk(tree))


def count_all(kind: str, paths: list[Path]) -> int:
    """Count the functions in all files, with the kind of pool that is asked for."""
    with make_executor(kind, max_workers=2) as pool:
        return sum(map_ordered(pool, count_functions, paths))


def main() -> None:
    """Do the same work twice."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:80]

    for kind in ("thread", "process"):  # the one word
        start = time.perf_counter()
        total = count_all(kind, paths)
        print(
            f"{kind:<7}  {total} functions in {len(paths)} files  "
            f"{time.perf_counter() - start:.2f} s"
        )


if __name__ == "__main__":
    main()
