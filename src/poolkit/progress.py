"""Progress bars for the verbs, by tqdm."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._window import Progress


def open_progress(progress: Any, label: str, total: int | None) -> "Progress | None":
    """Return a bar for the ``progress`` argument of a verb; None if none is wanted.

    Args:
        progress: True for a bar; False or None for none.
        label: What stands before the bar.
        total: How many items are expected, if known.

    Raises:
        ImportError: tqdm is not installed.
    """
    if progress is None or progress is False:
        return None
    if progress is not True:
        raise TypeError(f"progress must be True, False or None, not {progress!r:.80}")
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError(
            "progress=True needs tqdm, which is not installed: pip install 'poolkit[progress]'"
        ) from error
    bar: Progress = tqdm(total=total, desc=label, unit="item", file=sys.stderr)
    return bar
