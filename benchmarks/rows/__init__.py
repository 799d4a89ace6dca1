"""The rows: all that is measured, in the order in which it is shown."""

from . import arrays, hung, maps, memory, programs, skewed, submits
from ._row import BEST_PEER, Bar, Figure, Row

__all__ = ["BEST_PEER", "ROWS", "Bar", "Figure", "Row"]

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        maps.PROCESS_MAP,
        submits.PROCESS_SUBMIT,
        submits.ROUND_TRIP,
        skewed.SKEWED,
        hung.HUNG_TASKS,
        maps.THREAD_MAP,
        submits.THREAD_SUBMIT,
        arrays.ARRAYS,
        memory.MEMORY,
        programs.START_UP,
        programs.IMPORT,
        skewed.THREAD_SKEWED,
        submits.THREAD_ROUND_TRIP,
    )
}
