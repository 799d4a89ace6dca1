"""The counts that CI compares: what is a regression, what their file says, what is counted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.counts import __main__ as command
from benchmarks.counts import book, instructions, system_calls
from benchmarks.counts._child import UnavailableError

GROUPS = {way.GROUP: way.tolerance_of for way in (instructions, system_calls)}
COUNTS = {"submit": 1000.0, "resolve": 500.0}

Measure = Callable[[], dict[str, float]]


def missing_tool() -> dict[str, float]:
    raise UnavailableError("there is no such tool")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command on a file of its own, with made-up counts of instructions."""
    path = tmp_path / "counts.json"
    load, save = book.load, book.save
    monkeypatch.setattr(book, "load", lambda _=None: load(path))
    monkeypatch.setattr(book, "save", lambda build, groups: save(build, groups, path))

    def run_it(measure: Measure, *arguments: str) -> int:
        monkeypatch.setattr(instructions, "measure", measure)
        monkeypatch.setattr("sys.argv", ["counts", "--only", "instructions", *arguments])
        return command.main()

    return run_it


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (1000.0, ""),
        (1020.0, ""),
        (1020.1, "grew"),
        (981.0, ""),
        (980.0, "shrank"),
        (0.0, "shrank"),
    ],
)
def test_a_count_may_change_by_its_tolerance(now: float, says: str):
    (line,) = book.compare({"submit": 1000.0}, {"submit": now}, lambda _: 0.02)
    assert line.says == says
    assert book.table([line]).endswith(says or "+2%")


def test_a_count_that_was_none_may_not_become_any():
    (line,) = book.compare({"messages": 0.0}, {"messages": 0.1}, lambda _: 1.0)
    assert line.says == "grew"


def test_counts_that_only_one_side_has_are_told():
    lines = book.compare({"a": 1.0, "b": 1.0}, {"b": 1.0, "c": 1.0}, lambda _: 0.02)
    assert [(line.name, line.says) for line in lines] == [("b", ""), ("c", "new"), ("a", "gone")]
    assert len(book.table(lines).splitlines()) == 4


def test_growth_fails_until_it_is_taken_over(run: Callable[..., int], capsys):
    assert run(COUNTS.copy, "--update") == 0
    assert run(COUNTS.copy) == 0
    assert "--update" not in capsys.readouterr().out.splitlines()[-1]
    more = {**COUNTS, "submit": 1030.0}
    assert run(lambda: more) == 1
    assert "+3.0%       +2%  grew" in capsys.readouterr().out
    assert run(lambda: more, "--update") == 0
    assert run(lambda: more) == 0


def test_less_is_told_and_does_not_fail(run: Callable[..., int], capsys):
    run(COUNTS.copy, "--update")
    assert run(lambda: {**COUNTS, "submit": 900.0}) == 0
    assert "shrank" in capsys.readouterr().out


def test_a_build_without_counts_fails_only_where_they_are_required(run: Callable[..., int], capsys):
    assert run(COUNTS.copy) == 0
    assert "no counts of this build" in capsys.readouterr().out
    assert run(COUNTS.copy, "--require") == 1


def test_a_missing_tool_fails_only_where_it_is_required(run: Callable[..., int], capsys):
    run(COUNTS.copy, "--update")
    assert run(missing_tool) == 0
    assert "skipped: there is no such tool" in capsys.readouterr().out
    assert run(missing_tool, "--require") == 1
    assert run(missing_tool, "--update") == 0
    assert run(COUNTS.copy, "--require") == 0  # what was there is still there


@pytest.mark.parametrize("way", [instructions, system_calls])
def test_tools_are_looked_for(way, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="is not installed"):
        way.measure()


def test_an_update_leaves_other_builds_and_groups_alone(tmp_path: Path):
    path = tmp_path / "counts.json"
    book.save("b", {"x": {"one": 1.234}, "y": {"two": 2.0}}, path)
    book.save("a", {"x": {"one": 5.0}}, path)
    book.save("b", {"x": {"three": 3.0}}, path)
    assert book.load(path) == {
        "a": {"x": {"one": 5.0}},
        "b": {"x": {"three": 3.0}, "y": {"two": 2.0}},
    }
    assert list(book.load(path)) == ["a", "b"]


def test_the_file_has_all_counts_of_each_build():
    entries = book.load()
    assert entries
    names = {group: list(counts) for group, counts in next(iter(entries.values())).items()}
    assert names.keys() == GROUPS.keys()
    for build, entry in entries.items():
        assert build.startswith("CPython 3.")
        assert {group: list(counts) for group, counts in entry.items()} == names
        assert all(count > 0 for counts in entry.values() for count in counts.values())


def test_this_build_has_a_name_of_its_own():
    build = book.this_build()
    assert build == book.this_build()
    assert build.count(", ") == 3


def test_system_calls_are_counted_between_the_marks():
    listing = """\
1 sendto(7, "before", 6, 0, NULL, 0) = 6
1 write(-1, "begin 500 map", 13) = -1 EBADF (Bad file descriptor)
1 sendto(7, "\\10\\0\\"a, 1", 9, 0, NULL, 0 <unfinished ...>
2 epoll_wait(3, [], 3, 0) = 0
1 <... sendto resumed>) = 6
1 sendto(8, "!", 1, 0, NULL, 0) = 1
2 sendmsg(7, {msg_iov=[{iov_base="\\0"..., iov_len=8}, {iov_base="x", iov_len=100}]}, 0) = 108
2 --- SIGCHLD {si_signo=SIGCHLD} ---
2 write(1, "begin 1 x"..., 90) = 90
1 write(-1, "end", 3) = -1 EBADF (Bad file descriptor)
1 futex(0x1, FUTEX_WAKE, 1) = 0
1 write(-1, "begin 500 map", 13) = -1 EBADF (Bad file descriptor)
1 write(-1, "end", 3) = -1 EBADF (Bad file descriptor)
"""
    assert system_calls.count(listing.splitlines()) == {
        "map: bytes sent": [2 * (9 + 108 + 90), 0.0],
        "map: sends": [2 * 3, 0.0],
        "map: all": [2 * 5, 0.0],
    }


def test_what_does_not_depend_on_who_is_quicker_is_held_to_two_percent():
    assert system_calls.tolerance_of("submit: sends") == 0.02
    assert system_calls.tolerance_of("submit: bytes sent") == 0.02
    assert system_calls.tolerance_of("map: sends") == 0.1
    assert system_calls.tolerance_of("map: bytes sent") == 0.1
    assert system_calls.tolerance_of("submit: all") == 0.3
    assert system_calls.tolerance_of("map_ordered: bytes sent") == 0.02
    assert system_calls.tolerance_of("map_ordered: sends") > 0.02
    assert system_calls.tolerance_of("map, chunksize='auto': all") > 0.02
