"""Progress of the verbs."""

import builtins
import io
import sys
import threading
from typing import Any

import pytest

from poolkit import make_executor, map_batches, map_ordered, map_outcomes, map_unordered

from . import tasks


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def use_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


@pytest.mark.parametrize("chunksize", [1, 16, "auto"])
def test_a_function_is_told_of_items(chunksize: Any) -> None:
    calls: list[tuple[int, int | None]] = []
    threads: set[threading.Thread] = set()

    def show(done: int, total: int | None) -> None:
        calls.append((done, total))
        threads.add(threading.current_thread())

    with make_executor("thread", 2) as pool:
        list(map_unordered(pool, tasks.square, range(100), progress=show, chunksize=chunksize))
    assert [total for _, total in calls] == [100] * len(calls)
    counts = [done for done, _ in calls]
    assert counts == sorted(counts)
    assert counts[-1] == 100
    assert threads == {threading.current_thread()}


def test_an_unknown_total() -> None:
    calls: list[Any] = []
    list(
        map_ordered(
            "thread", tasks.square, (n for n in range(5)), progress=lambda *call: calls.append(call)
        )
    )
    assert calls[-1] == (5, None)


def test_batches_count_lists() -> None:
    calls: list[Any] = []
    list(map_batches("inline", sum, range(10), 3, progress=lambda *call: calls.append(call)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("progress", [True, "rich", "squares"])
def test_bars_count_items_and_failures(progress: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    outcomes = map_outcomes(
        "thread", tasks.fail_on_multiples_of_three, range(20), progress=progress
    )
    assert len(list(outcomes)) == 20
    screen = terminal.getvalue()
    assert "20/20" in screen
    assert "7 failed" in screen
    label = "squares" if progress == "squares" else "fail_on_multiples_of_three"
    assert label in screen


@pytest.mark.parametrize("progress", [True, "rich"])
def test_bars_are_closed_on_error(progress: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    before = set(threading.enumerate())
    with pytest.raises(KeyError):
        list(map_ordered("inline", tasks.fail, range(20), progress=progress))
    for thread in set(threading.enumerate()) - before:
        if "tqdm" not in type(thread).__module__:  # whose monitor stays
            thread.join(30)
            assert not thread.is_alive()
    assert terminal.getvalue().removesuffix("\x1b[?25h").endswith("\n"), "what follows is below"


@pytest.mark.parametrize("progress", [True, "rich"])
def test_where_there_is_no_terminal(progress: Any, capsys: pytest.CaptureFixture[str]) -> None:
    list(map_ordered("thread", tasks.square, range(3000), progress=progress, chunksize=1))
    written = capsys.readouterr().err
    assert "3000/3000" in written
    assert len(written) < 1000, "a log is not flooded"


@pytest.mark.parametrize(("progress", "package"), [(True, "tqdm"), ("rich", "rich")])
def test_a_missing_package_is_named(
    progress: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=rf"{package}.*pip install 'poolkit\[progress\]'"):
        map_ordered("inline", tasks.square, [1], progress=progress)


def test_a_function_that_fails_ends_the_iteration() -> None:
    def fail(done: int, total: int | None) -> None:
        raise ZeroDivisionError

    with make_executor("thread", 1) as pool:
        with pytest.raises(ZeroDivisionError):
            list(map_ordered(pool, tasks.square, range(5), progress=fail))
        assert pool.submit(tasks.square, 2).result() == 4


@pytest.mark.parametrize("progress", [3, 1.5, ["a"]])
def test_bad_progress(progress: Any) -> None:
    with pytest.raises(TypeError, match="progress must be"):
        map_ordered("inline", tasks.square, [1], progress=progress)
