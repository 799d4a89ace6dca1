"""Download many files at once, keep the failures apart, and hash what came on every CPU.

    python downloads.py                             # serves itself, on this machine
    python downloads.py --urls list.txt --out DIR   # your own list, one URL a line

(a) download every URL with five workers, taking each file as it completes;
(b) download twenty of them again, this time in the order of the list;
(c) hash all files in processes: the same code with one word swapped;
(d) compare each file with its source (not with ``--urls``: there is no source at hand);
(e) print a table of these steps, then the failures.

Without ``--urls`` the program serves the standard library of the running Python on 127.0.0.1,
and adds three URLs that can't work: one that does not exist, one that `fetch` refuses, and one
whose response never comes. It exits with 0 if these three failed as they should, and nothing else.
"""

import argparse
import hashlib
import math
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

from rich.console import Console
from rich.table import Table

import poolkit
from poolkit import make_executor, map_ordered, map_outcomes

BLOCK = 64 * 1024  # bytes that a download holds in memory
AGAIN = 20  # files that step (b) downloads a second time
CHUNK = 32  # files that a process is sent at once: to hash one takes less time than to send it


# --- The work: module-level functions, so that any kind of pool can run them --------------------


def file_for(url: str, folder: Path) -> Path:
    """Name the file of a URL, so that it can be recognised and no two URLs share it."""
    name = PurePosixPath(urlsplit(url).path)
    digest = hashlib.sha256(url.encode()).hexdigest()
    return folder / quote(f"{name.stem}-{digest[:12]}{name.suffix}", safe="%")


def part_of(file: Path) -> Path:
    """Name what there is of a file until its download is complete."""
    return file.with_name(f"{file.name}.part")


def fetch(url: str, folder: Path) -> Path:
    """Download a URL to a file, block by block. No time-out here: the pool has one."""
    if not PurePosixPath(urlsplit(url).path).suffix:
        raise RuntimeError("the URL has no file extension")
    target = file_for(url, folder)
    with urlopen(url) as response, part_of(target).open("wb") as part:
        while block := response.read(BLOCK):
            part.write(block)
        if response.length:
            raise ConnectionError(f"{response.length} bytes never came")
    return part_of(target).replace(target)


def sha256_of(path: Path) -> str:
    """Hash one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- The steps ----------------------------------------------------------------------------------


class Report:
    """Collect what each step did and which URLs failed; print it as step (e)."""

    def __init__(self) -> None:
        self.failures: dict[str, BaseException] = {}
        self.table = Table("step", "kind")
        for heading in ("workers", "files", "MiB", "seconds"):
            self.table.add_column(heading, justify="right")

    @contextmanager
    def step(self, name: str, kind: str, workers: int) -> Iterator[list[Path]]:
        """Time a step, which adds each file that it is done with to the list that this gives."""
        files: list[Path] = []
        start = time.perf_counter()
        yield files
        seconds = f"{time.perf_counter() - start:.2f}"
        mib = f"{sum(file.stat().st_size for file in files) / 2**20:.1f}"
        self.table.add_row(name, kind, f"{workers}", f"{len(files)}", mib, seconds)

    def show(self) -> None:
        """Print the table, then one line for each failure."""
        console = Console()
        console.print(self.table)
        console.print(f"failed: {len(self.failures)}")
        for url, error in self.failures.items():
            line = f"  {type(error).__name__:<16}  {url}  ({error})"
            console.print(line, soft_wrap=True, markup=False, highlight=False)


def download(
    pool: poolkit.PoolExecutor, urls: list[str], folder: Path, report: Report
) -> list[str]:
    """Do steps (a) and (b), and return the URLs that are now files."""
    fetch_here = partial(fetch, folder=folder)

    with report.step("(a) as completed", pool.kind, pool.max_workers) as files:
        for outcome in map_outcomes(pool, fetch_here, urls, progress=True):
            if outcome.error is None:
                files.append(outcome.unwrap())
            else:
                report.failures[outcome.args[0]] = outcome.error

    again = [url for url in urls if url not in report.failures][:AGAIN]
    with report.step("(b) in order", pool.kind, pool.max_workers) as files:
        try:
            for path in map_ordered(pool, fetch_here, again):
                files.append(path)
        except Exception as error:  # in order: so it is the first one that we have not got
            report.failures[again[len(files)]] = error

    for url in report.failures:  # a download that hangs is given up, and can't tidy up
        with suppress(OSError):
            part_of(file_for(url, folder)).unlink()
    return [url for url in urls if url not in report.failures]


def hash_all(paths: list[Path], report: Report) -> list[str]:
    """Do step (c), with one worker for each CPU."""
    with report.step("(c) hash", "process", poolkit.available_cpus()) as files:
        files.extend(paths)
        # The swap: with "thread" for "process", all else stays as it is.
        return list(map_ordered("process", sha256_of, files, chunksize=CHUNK))


def check(digests: dict[str, str], sources: dict[str, Path], report: Report) -> None:
    """Do step (d): hash the sources right here, and compare."""
    with report.step("(d) check", "inline", 1) as files:
        files.extend(sources[url] for url in digests)
        expected = map_ordered("inline", sha256_of, files)
        for (url, digest), right_one in zip(digests.items(), expected, strict=True):
            if digest != right_one:
                report.failures[url] = ValueError("the file differs from its source")


# --- The server: the standard library's files, and three URLs that can't work -------------------


class LibraryServer(ThreadingHTTPServer):
    """Serve the running Python's standard library on a free port of 127.0.0.1."""

    request_queue_size = 128  # more than the workers that may connect at once

    def __init__(self) -> None:
        library = Path(sysconfig.get_path("stdlib"))
        super().__init__(("127.0.0.1", 0), partial(LibraryHandler, directory=str(library)))
        self.closing = threading.Event()
        address = f"http://127.0.0.1:{self.server_port}"
        self.sources = {
            f"{address}/{quote(name.as_posix())}": library / name
            for name in sorted(path.relative_to(library) for path in library.rglob("*.py"))
            if not {"site-packages", "dist-packages", "test", "tests"} & set(name.parts)
        }
        self.bad_urls: dict[str, type[BaseException]] = {
            f"{address}/silent.html": poolkit.TaskTimeoutError,
            f"{address}/missing.html": HTTPError,
            f"{address}/no-extension": RuntimeError,
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve in the background, for the length of a ``with`` block."""
        os.environ["no_proxy"] = "127.0.0.1"  # no proxy could find this server
        with self:
            threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
            try:
                yield
            finally:
                self.closing.set()
                self.shutdown()


class LibraryHandler(SimpleHTTPRequestHandler):
    """Answer one request to a `LibraryServer`."""

    def do_GET(self) -> None:
        """Send a file, or an error; for one URL, nothing until the server closes."""
        assert isinstance(self.server, LibraryServer)
        if self.path == "/silent.html":
            self.server.closing.wait()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet: the progress bar has the screen."""


# --- The command line ---------------------------------------------------------------------------


def positive(number: type[int] | type[float]) -> Callable[[str], float]:
    """Make a reader of positive numbers for `argparse`."""

    def read(text: str) -> float:
        with suppress(ValueError):
            if 0 < (value := number(text)) < math.inf:
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive {number.__name__}")

    return read


def url_list(name: str) -> list[str]:
    """Read a file of URLs for `argparse`: one a line, each once; ``#`` starts a comment."""
    try:
        lines = [line.strip() for line in Path(name).read_text("utf-8").splitlines()]
        urls = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable():
                raise ValueError(f"{url!r} is not an http or https URL")
        if not urls:
            raise ValueError("there is no URL in it")
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{name!r}: {error}") from None
    return urls


def main() -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(description="Download many files at once, and hash them.")
    add = parser.add_argument
    add("--urls", type=url_list, metavar="FILE", help="a file with a URL on each line")
    add("--out", type=Path, metavar="DIR", help="keep the files here (default: don't keep them)")
    add("--workers", type=positive(int), default=5, help="default: %(default)s")
    add("--timeout", type=positive(float), default=2.0, help="seconds per URL (%(default)s)")
    add("--kind", default="thread", help="kind of pool for the downloads (%(default)s)")
    options = parser.parse_args()
    report = Report()

    with ExitStack() as stack:
        try:
            folder = options.out or Path(stack.enter_context(TemporaryDirectory()))
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"argument --out: {error}")
        try:
            pool = make_executor(options.kind, options.workers, task_timeout=options.timeout)
        except (poolkit.UnsupportedError, ValueError) as error:
            parser.error(f"argument --kind: {error}")
        if pool.kind == "inline" and not options.urls:  # it has nobody who could stop waiting
            parser.error("argument --kind: 'inline' can't give up the URL that never answers")
        server = None if options.urls else LibraryServer()
        if server:
            stack.enter_context(server.running())
        urls = [*server.bad_urls, *server.sources] if server else options.urls

        with pool:
            good = download(pool, urls, folder, report)
        digests = hash_all([file_for(url, folder) for url in good], report)
        if server:
            check(dict(zip(good, digests, strict=True)), server.sources, report)
        report.show()

    if server is None:
        print("(d) was skipped: with --urls there is no source to compare with")
        return 1 if report.failures else 0
    failed = {url: type(error) for url, error in report.failures.items()}
    return 0 if failed == server.bad_urls else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
