"""A task that returns the future of another task: it arrives as it is."""

import sysconfig
from concurrent.futures import Future
from pathlib import Path

from poolkit import PoolExecutor, make_executor


def count_lines(path: Path) -> int:
    """Count the lines of a file."""
    return len(path.read_bytes().splitlines())


def find_then_count(pool: PoolExecutor, name: str) -> Future[int]:
    """Look for a file, start another task for the long part, and don't wait for it."""
    folder = Path(sysconfig.get_path("stdlib"))
    return pool.submit(count_lines, next(folder.rglob(name)))


def main() -> None:
    """Ask for the outer result, and then for the inner one."""
    with make_executor("thread", max_workers=2) as pool:
        outer = pool.submit(find_then_count, pool, "handlers.py")
        inner = outer.result()
        print("the outer task's result is a future:", isinstance(inner, Future))
        print("the inner task's result is a number:", inner.result() > 0)


if __name__ == "__main__":
    main()
