"""A download manager with three mistakes, which `docs/how-to/testing.md` finds and mends."""

from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.request import urlopen

from poolkit import as_completed, make_executor


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
        self.received = 0  # bytes

    def download(self, urls: Sequence[str]) -> dict[str, Path]:
        """Download all URLs, and tell where each one's file is."""
        pool = make_executor("thread", max_workers=4)
        futures = [pool.submit(self._download_one, url) for url in urls]
        paths = [future.result() for future in as_completed(futures)]
        pool.shutdown()
        return dict(zip(urls, paths, strict=True))

    def _download_one(self, url: str) -> Path:
        path = self.folder / url.rpartition("/")[2]
        self.received += path.write_bytes(self.fetch(url))
        return path
