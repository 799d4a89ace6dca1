"""A task that waits for another task of its own pool, which has a single worker."""

import sysconfig
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from poolkit import make_executor

LIBRARY = Path(sysconfig.get_path("stdlib"))


def count_lines(name: str) -> int:
    """Count the lines of a file of the standard library."""
    return len((LIBRARY / name).read_bytes().splitlines())


def compare(pool: Executor, one: str, other: str, patience: float | None) -> str:
    """Count two files: one right here, the other in a task that this one waits for."""
    inner = pool.submit(count_lines, other)
    here = count_lines(one)
    return f"{one} is {'longer' if here > inner.result(patience) else 'not longer'} than {other}"


def main() -> None:
    """Try it with the standard library's pool, then with poolkit's."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        # Without a limit to its patience, this line would never come to an end.
        outer = pool.submit(compare, pool, "argparse.py", "this.py", 0.5)
        print("standard library:", repr(outer.exception()))

    with make_executor("thread", max_workers=1) as pool:
        outer = pool.submit(compare, pool, "argparse.py", "this.py", None)
        print("poolkit:", outer.result())


if __name__ == "__main__":
    main()
