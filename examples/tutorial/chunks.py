"""Many tiny calls: send them one by one, then many at a time, on threads and on processes."""

import sysconfig
import time
from pathlib import Path
from typing import Literal

from poolkit import make_executor, map_ordered

FILES = ("argparse.py", "ast.py", "datetime.py", "inspect.py", "typing.py")


def count_words(line: str) -> int:
    """Do very little, as many functions that people map do."""
    return len(line.split())


def main() -> None:
    """Count the words of some thousand lines, four times over."""
    library = Path(sysconfig.get_path("stdlib"))
    lines = [line for name in FILES for line in (library / name).read_text("utf-8").splitlines()]
    expected = sum(map(count_words, lines))

    sizes: tuple[int | Literal["auto"], ...] = (1, 256, "auto")
    for kind in ("thread", "process"):
        with make_executor(kind, max_workers=2) as pool:
            pool.submit(count_words, "").result()  # so that no time below is that of the start
            for size in sizes:
                start = time.perf_counter()
                words = sum(map_ordered(pool, count_words, lines, chunksize=size))
                milliseconds = 1000 * (time.perf_counter() - start)
                verdict = "right" if words == expected else "wrong"
                print(f"{kind:<7}  chunksize={size!r:<6}  {verdict}  {milliseconds:6.0f} ms")


if __name__ == "__main__":
    main()
