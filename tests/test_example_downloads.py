"""`examples/downloads.py`, run as a person would run it: in a process of its own."""

import errno
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from .clusters.start import needs

PROGRAM = Path(__file__).parent.parent / "examples" / "downloads.py"
SHORT = b"a page that ends one byte early"
LIMIT = 120  # seconds, for a program that needs five, or ten with a cluster; only hangs reach it

pytestmark = pytest.mark.timeout(LIMIT + 30)


class Finished(NamedTuple):
    code: int
    out: str
    err: str
    session: int
    temp: Path

    @property
    def table(self) -> list[list[str]]:
        rows = [line.strip("│").split("│") for line in self.out.splitlines() if "│" in line]
        return [[cell.strip() for cell in row] for row in rows]

    @property
    def steps(self) -> list[tuple[str, str, str]]:
        """Step, kind and files of each line of the table."""
        return [(step[:3], kind, files) for step, kind, _, files, _, _ in self.table]

    @property
    def failures(self) -> list[tuple[str, str]]:
        return re.findall(r"^ +(\w+) +(http\S+)  \(", self.out, re.MULTILINE)


@pytest.fixture
def temp() -> Iterator[Path]:
    """A short path, unlike pytest's: sockets have their names in here, and those must be short."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def run(temp):
    """Run the program to its end, and until every process that it started has closed its output."""

    def run_program(*arguments: object) -> Finished:
        with subprocess.Popen(
            [sys.executable, PROGRAM, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "TMPDIR": str(temp), "COLUMNS": "100", "PYTHONUTF8": "1"},
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=LIMIT)
            except BaseException:
                process.kill()
                raise
        return Finished(process.returncode, out, err, process.pid, temp)

    return run_program


def assert_nothing_left(finished: Finished) -> None:
    """No process of its session, and no temporary file."""
    if sys.platform == "linux":
        for pid in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]:
            try:
                if os.getsid(pid) != finished.session:
                    continue
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            with os.fdopen(handle):
                # A process on its last instructions has let go of its output, but is still listed.
                gone, _, _ = select.select([handle], [], [], 10)
                assert gone, f"process {pid} is still there"
    assert list(finished.temp.iterdir()) == []


@contextmanager
def serve(pages: Mapping[str, bytes | None]) -> Iterator[str]:
    """Serve `pages`; one that is None never comes."""
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path, b"")
            if body is None:
                closing.wait()
            elif not body:
                self.send_error(404)
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body) + (body is SHORT)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            closing.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def url_file(tmp_path):
    def write(*lines: str) -> Path:
        path: Path = tmp_path / "urls.txt"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_serves_itself_and_ends_well(run):
    finished = run()

    assert finished.code == 0, finished.out + finished.err
    assert [row[:2] for row in finished.table] == [
        ["(a) as completed", "thread"],
        ["(b) in order", "thread"],
        ["(c) hash", "process"],
        ["(d) check", "inline"],
    ]
    workers = [int(row[2]) for row in finished.table]
    files = [int(row[3]) for row in finished.table]
    assert workers[:2] == [5, 5]
    assert files[0] >= 300
    assert files == [files[0], 20, files[0], files[0]]
    assert all(float(row[4]) > 0 for row in finished.table)
    assert f"{files[0] + 3}/{files[0] + 3}" in finished.err, "the progress bar counts files"
    assert "Traceback" not in finished.err

    assert "failed: 3" in finished.out
    assert sorted((name, urlsplit(url).path) for name, url in finished.failures) == [
        ("HTTPError", "/missing.html"),
        ("RuntimeError", "/no-extension"),
        ("TaskTimeoutError", "/silent.html"),
    ]

    assert_nothing_left(finished)
    port = urlsplit(finished.failures[0][1]).port
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


@pytest.mark.parametrize("kind", ["process", pytest.param("dask", marks=needs("distributed"))])
def test_another_kind_gives_the_same_table(run, kind):
    finished = run("--kind", kind)

    assert finished.code == 0, finished.out + finished.err
    (a, b, c, d) = finished.table
    assert [a[:2], b[:2]] == [["(a) as completed", kind], ["(b) in order", kind]]
    assert a[2:4] == ["5", c[3]]
    assert (b[3], d[3]) == ("20", c[3])
    assert "failed: 3" in finished.out
    assert "Traceback" not in finished.err
    assert_nothing_left(finished)


def test_list_of_urls_all_good(run, url_file, tmp_path):
    pages = {f"/{name}/page.txt": name.encode() * 1000 for name in ("one", "two", "three")}
    out = tmp_path / "new" / "folder"
    with serve(pages) as address:
        good = [f"{address}{path}" for path in pages]
        finished = run("--urls", url_file("# a comment", "", *good, good[0]), "--out", out)

    assert finished.code == 0, finished.out + finished.err
    assert finished.steps == [
        ("(a)", "thread", "3"),
        ("(b)", "thread", "3"),
        ("(c)", "process", "3"),
    ]
    assert "(d) was skipped" in finished.out
    assert finished.failures == []
    assert sorted(file.read_bytes() for file in out.iterdir()) == sorted(pages.values())
    assert all(file.name.startswith("page-") and file.suffix == ".txt" for file in out.iterdir())
    assert_nothing_left(finished)


def test_list_of_urls_some_bad(run, url_file, tmp_path):
    """The page that hangs goes on hanging until after the program has ended."""
    with serve({"/good.txt": b"good", "/hang.txt": None, "/short.txt": SHORT}) as address:
        paths = ("/hang.txt", "/lost.txt", "/none", "/short.txt", "/good.txt")
        urls = url_file(*(f"{address}{path}" for path in paths))
        finished = run("--urls", urls, "--out", tmp_path / "out", "--timeout", "3")

    assert finished.code == 1, finished.out + finished.err
    assert finished.steps == [
        ("(a)", "thread", "1"),
        ("(b)", "thread", "1"),
        ("(c)", "process", "1"),
    ]
    assert sorted(finished.failures) == [
        ("ConnectionError", f"{address}/short.txt"),
        ("HTTPError", f"{address}/lost.txt"),
        ("RuntimeError", f"{address}/none"),
        ("TaskTimeoutError", f"{address}/hang.txt"),
    ]
    assert [file.read_bytes() for file in (tmp_path / "out").iterdir()] == [b"good"]
    assert "Traceback" not in finished.err
    assert_nothing_left(finished)


def test_every_url_bad(run, url_file):
    with serve({}) as address:
        finished = run("--urls", url_file(f"{address}/a.txt", "http://127.0.0.1:1/b.txt"))

    assert finished.code == 1
    assert finished.steps == [
        ("(a)", "thread", "0"),
        ("(b)", "thread", "0"),
        ("(c)", "process", "0"),
    ]
    assert [name for name, _ in sorted(finished.failures)] == ["HTTPError", "URLError"]
    assert "Traceback" not in finished.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--workers", "0"], "--workers: '0' is not a positive int"),
        (["--workers", "-3"], "--workers: '-3' is not a positive int"),
        (["--workers", "many"], "--workers: 'many' is not a positive int"),
        (["--timeout", "0"], "--timeout: '0' is not a positive float"),
        (["--timeout", "nan"], "--timeout: 'nan' is not a positive float"),
        (["--timeout", "inf"], "--timeout: 'inf' is not a positive float"),
        (["--kind", "thraed"], "--kind: "),
        (["--kind", "inline"], "--kind: "),
        (["--out", PROGRAM], "--out: "),
        (["--urls", "no such file"], "--urls: "),
        (["--urls", PROGRAM.parent], "--urls: "),
        (["--what"], "unrecognized arguments: --what"),
    ],
)
def test_bad_option(run, arguments, complaint):
    finished = run(*arguments)

    assert finished.code == 2, finished.out
    assert complaint in finished.err
    assert finished.err.startswith("usage: ")
    assert "Traceback" not in finished.err
    assert finished.out == ""
    assert_nothing_left(finished)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "there is no URL in it"),
        (b"# nothing\n\n", "there is no URL in it"),
        (b"file:///etc/hosts.txt\n", "'file:///etc/hosts.txt' is not an http or https URL"),
        (b"http:///page.txt\n", "'http:///page.txt' is not"),
        (b"http://[1/page.txt\n", "--urls: "),
        (b"http://127.0.0.1/a\x00b.txt\n", "is not an http or https URL"),
        (b"http://127.0.0.1/\xff.txt\n", "--urls: "),
    ],
)
def test_bad_url_file(run, tmp_path, content, complaint):
    path = tmp_path / "urls.txt"
    path.write_bytes(content)
    finished = run("--urls", path)

    assert finished.code == 2, finished.out
    assert complaint in finished.err
    assert "Traceback" not in finished.err


def test_help(run):
    finished = run("--help")

    assert finished.code == 0
    for option in ("--urls", "--out", "--workers", "--timeout", "--kind"):
        assert option in finished.out
