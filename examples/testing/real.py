"""The mended download manager, on real threads and against a real server on loopback."""
# mypy: disable-error-code="import-not-found"

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from mended import DownloadManager


class Echo(BaseHTTPRequestHandler):
    """Answers with the path that was asked for, a hundred times."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode() * 100)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""


with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server, TemporaryDirectory() as folder:
    threading.Thread(target=server.serve_forever, args=(0.05,)).start()
    urls = [f"http://127.0.0.1:{server.server_port}/{name}" for name in ("one", "two", "three")]
    try:
        manager = DownloadManager(Path(folder))
        for path in manager.download(urls).values():
            print(path.name, path.stat().st_size)
        print(manager.received, "bytes in all")
    finally:
        server.shutdown()
