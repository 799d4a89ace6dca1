"""What failures mean: hard cases of notes, and large results."""

from pathlib import Path
from typing import Any

import pytest

import poolkit
from poolkit import map_ordered, map_unordered
from poolkit._notes import _MOST as MOST_NOTES

from .. import tasks

VERBS = (map_ordered, map_unordered)
FAILING = {0, 3, 6, 9, 12, 15, 18}


class Hostile:
    """Its repr fails, or is endless."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __repr__(self) -> str:
        if not self.size:
            raise SystemExit("from a repr")
        return "x" * self.size


@pytest.mark.parametrize(
    "argument",
    [Hostile(0), Hostile(10**6), b"x" * 10**7, "x" * 10**7, list(range(10**5)), 10**5000],
    ids=["raises", "huge", "bytes", "str", "list", "int"],
)
def test_arguments_that_are_hard_to_show(argument: Any) -> None:
    with poolkit.make_executor("thread", 1) as pool:
        error = pool.submit(tasks.fail, argument).exception()
    assert isinstance(error, KeyError)
    assert len(error.__notes__[0]) < 300


def test_one_error_raised_again_and_again_does_not_grow() -> None:
    error = ValueError("always the same")

    def fail(_number: int) -> None:
        raise error

    with poolkit.make_executor("thread", 2) as pool:
        assert list(map_ordered(pool, fail, range(100), on_error="skip")) == []
    assert len(error.__notes__) == MOST_NOTES


class Unnotable(Exception):
    """An error that can't be given a note."""

    def add_note(self, note: str) -> None:
        raise SystemExit(note)


def test_an_error_that_takes_no_note_is_raised_all_the_same() -> None:
    def fail() -> None:
        raise Unnotable("as it is")

    with poolkit.make_executor("thread", 1) as pool:
        assert isinstance(pool.submit(fail).exception(), Unnotable)


def test_large_results(tmp_path: Path) -> None:
    with poolkit.make_executor("process", 2) as pool:
        sizes = [100_000_000, 1, 50_000_000]
        assert [len(data) for data in map_ordered(pool, bytes, sizes)] == sizes
