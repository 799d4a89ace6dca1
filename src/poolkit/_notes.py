"""The note that an error gets on its way to the user: which call failed, where, and which try."""

from ._backend import Batch, Record

# One exception object may be raised by any number of tasks. It must not grow with each.
_MOST: int = 8


def add_note(batch: Batch, record: Record, index: int | None, attempt: int) -> None:
    """Note on a task's error what failed; never raises.

    Args:
        batch: The batch.
        record: How one of its items failed.
        index: Position in a verb's input; None for `submit`.
        attempt: Which try it was, from 1.
    """
    error = record.error
    assert error is not None
    place = "" if index is None else f"item {index}, "
    where = f", worker {record.worker}" if record.worker else ""
    try:
        note = f"poolkit: {batch.describe(record.number)} ({place}attempt {attempt}{where})"
        if len(getattr(error, "__notes__", ())) < _MOST:
            error.add_note(note)
    except BaseException:  # what is only for people must not hurt
        pass
