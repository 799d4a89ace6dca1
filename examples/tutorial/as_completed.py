"""Download files with five workers, and take each one as soon as it is there."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import poolkit

PAGES = {"map.txt": 0.6, "index.txt": 0.2, "photo.txt": 0.8, "menu.txt": 0.4}  # seconds each takes


def download(url: str, folder: Path) -> int:
    """Save a URL to a file, and return its size in bytes."""
    with urlopen(url) as response:
        return (folder / url.rpartition("/")[2]).write_bytes(response.read())


def main() -> None:
    """Submit every download at once; print each as it completes."""
    with (
        server() as address,
        tempfile.TemporaryDirectory() as folder,
        poolkit.make_executor("thread", max_workers=5) as pool,
    ):
        names: dict[Future[int], str] = {}
        for name in [*PAGES, "lost.txt"]:
            names[pool.submit(download, f"{address}/{name}", Path(folder))] = name

        for future in poolkit.as_completed(names):
            if error := future.exception():
                print(f"{names[future]} failed: {error}")
            else:
                print(f"{names[future]}: {future.result()} bytes")


# From here on: a web server on this machine, some of whose pages are slow.


class Pages(BaseHTTPRequestHandler):
    """Send a page after the time that it takes."""

    def do_GET(self) -> None:
        """Answer a request."""
        name = self.path.removeprefix("/")
        if name not in PAGES:
            self.send_error(404, "Not Found")
            return
        time.sleep(PAGES[name])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(name.encode() * 1000)

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
            httpd.shutdown()


if __name__ == "__main__":
    main()
