"""The download manager of `manager.py`, without the mistakes."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.request import urlopen

from poolkit import make_executor, map_ordered


def fetch_over_http(url: str) -> bytes:
    """Return what a URL holds."""
    with urlopen(url, timeout=10) as page:
        content: bytes = page.read()
    return content


class DownloadManager:
    """Downloads files into a folder, four at a time.

    Args:
        folder: Where the files go.
        fetch: Returns the content of a URL.
    """

    def __init__(self, folder: Path, fetch: Callable[[str], bytes] = fetch_over_http) -> None:
        self.folder = folder
        self.fetch = fetch
        self.received = 0  # bytes; guarded by _lock
        self._lock = threading.Lock()

    def download(self, urls: Sequence[str]) -> dict[str, Path]:
        """Download all URLs, and tell where each one's file is."""
        with make_executor("thread", max_workers=4) as pool:
            paths = map_ordered(pool, self._download_one, urls)
            return dict(zip(urls, paths, strict=True))

    def _download_one(self, url: str) -> Path:
        path = self.folder / url.rpartition("/")[2]
        size = path.write_bytes(self.fetch(url))
        with self._lock:
            self.received += size
        return path
