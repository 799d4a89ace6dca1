"""Progress of the verbs: bars by tqdm or rich, or a function of yours.

All of them count items that came back, never chunks, and are told from the thread that iterates.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ._window import Progress as Display

Progress = bool | str | Callable[[int, int | None], object] | None
"""The ``progress`` argument of the verbs: True for a bar by tqdm, ``"rich"`` for one by rich, any
other text for a bar of tqdm's with that label, or a function that is called with how many items
are done and how many there are (None if unknown)."""

# Where there is no terminal, a bar is a line in a log: so many seconds apart.
_LOG_EVERY: Final = 10.0


class _Tqdm:
    def __init__(self, label: str, total: int | None) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise _missing("tqdm", "progress=True") from error
        pace = 0.1 if sys.stderr.isatty() else _LOG_EVERY
        self._bar = tqdm(total=total, desc=label, unit="item", file=sys.stderr, mininterval=pace)
        self._failed = 0

    def update(self, count: int, failed: int) -> None:
        if failed:
            self._failed += failed
            self._bar.set_postfix_str(f"{self._failed} failed", refresh=False)
        self._bar.update(count)

    def close(self) -> None:
        self._bar.close()


class _Rich:
    def __init__(self, label: str, total: int | None) -> None:
        try:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
        except ImportError as error:
            raise _missing("rich", 'progress="rich"') from error
        self._display = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failures]}", style="red"),
            console=Console(file=sys.stderr),
        )
        self._task = self._display.add_task(label, total=total, rate="", failures="")
        self._failed = 0
        self._display.start()

    def update(self, count: int, failed: int) -> None:
        self._failed += failed
        fields = {"failures": f"{self._failed} failed"} if self._failed else {}
        speed = self._display.tasks[0].finished_speed or self._display.tasks[0].speed
        if speed:
            fields["rate"] = f"{speed:,.1f} items/s"
        self._display.update(self._task, advance=count, **fields)  # type: ignore[arg-type]

    def close(self) -> None:
        self._display.stop()


class _Call:
    def __init__(self, function: Callable[[int, int | None], object], total: int | None) -> None:
        self._function = function
        self._total = total
        self._done = 0

    def update(self, count: int, _failed: int) -> None:
        self._done += count
        self._function(self._done, self._total)

    def close(self) -> None:
        """A function has nothing to close."""


def _missing(package: str, argument: str) -> ImportError:
    return ImportError(
        f"{argument} needs {package}, which is not installed: pip install 'poolkit[progress]'"
    )


def open_progress(progress: Any, label: str, total: int | None) -> "Display | None":
    """Return what the ``progress`` argument of a verb asks for; None if nothing.

    Args:
        progress: See `Progress`.
        label: What stands before the bar, if nothing was given.
        total: How many items are expected, if known.

    Raises:
        ImportError: The package that draws the bar is not installed.
        TypeError: It is none of these.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        return _Tqdm(label, total)
    if progress == "rich":
        return _Rich(label, total)
    if isinstance(progress, str):
        return _Tqdm(progress, total)
    if callable(progress):
        return _Call(progress, total)
    raise TypeError(
        f'progress must be True, "rich", a label or a function (done, total), not {progress!r:.80}'
    )
