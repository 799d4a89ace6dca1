"""Three tests, each of which finds one mistake of `manager.py`."""
# mypy: disable-error-code="import-not-found"
# ruff: noqa: D103

from pathlib import Path

import pytest
from manager import DownloadManager

from poolkit.testing import checkpoint, explore

URLS = ["http://example.org/a", "http://example.org/bb"]


def fetch(url: str) -> bytes:
    checkpoint()
    return url.encode()


def test_every_byte_is_counted(tmp_path: Path) -> None:
    def check() -> None:
        manager = DownloadManager(tmp_path, fetch)
        manager.download(URLS)
        assert manager.received == len("".join(URLS))

    explore(check)


def test_each_url_has_its_own_file(tmp_path: Path) -> None:
    def check() -> None:
        files = DownloadManager(tmp_path, fetch).download(URLS)
        assert [path.name for path in files.values()] == ["a", "bb"]

    explore(check)


@pytest.mark.no_pool_leaks
def test_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def refuse(url: str) -> bytes:
        raise ConnectionError(url)

    with pytest.raises(ConnectionError):
        DownloadManager(tmp_path, refuse).download(URLS)
