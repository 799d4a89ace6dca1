"""Map in order with a time limit per item: the page that hangs is given up, the others arrive."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

from poolkit import make_executor, map_outcomes


def fetch(url: str) -> str:
    """Return the text of a page. Nothing in here knows of a time limit."""
    with urlopen(url) as response:
        text: bytes = response.read()
    return text.decode()


def main() -> None:
    """Fetch four pages, one of which never comes."""
    start = time.monotonic()
    with server() as address:
        urls = [f"{address}/{name}" for name in ("one", "two", "hang", "four")]
        with make_executor("thread", max_workers=2, task_timeout=1.0) as pool:
            for outcome in map_outcomes(pool, fetch, urls, ordered=True):
                answer = outcome.value if outcome.ok else type(outcome.error).__name__
                print(f"{outcome.index}: {answer}")
        print(f"{time.monotonic() - start:.0f} s in all")


# From here on: a web server on this machine, one of whose pages never comes.

closing = threading.Event()


class Pages(BaseHTTPRequestHandler):
    """Send a page, or nothing for as long as the server is open."""

    def do_GET(self) -> None:
        """Answer a request."""
        if self.path == "/hang":
            closing.wait()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"this is page {self.path.removeprefix('/')}".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""


@contextmanager
def server() -> Iterator[str]:
    """Run the server, and give its address."""
    os.environ["no_proxy"] = "127.0.0.1"  # no proxy could find this server
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.05,)).start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            closing.set()
            httpd.shutdown()


if __name__ == "__main__":
    main()
