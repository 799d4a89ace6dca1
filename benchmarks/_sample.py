"""The child of one sample: measures, writes its answer to a file, and ends at once."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ANSWER = "POOLKIT_BENCHMARK_ANSWER"  # environment: the file that the answer goes to


def answer(measure: Callable[[], Any]) -> None:
    """Measure, and leave the figures or what went wrong for the guard; then end the process.

    Args:
        measure: Returns the figures, which have to be fit for JSON.
    """
    try:
        said = {"values": measure()}
    except BaseException as error:
        said = {"problem": f"{type(error).__name__}: {error}".partition("\n")[0][:200]}
    Path(os.environ[ANSWER]).write_text(json.dumps(said))
    os._exit(0)  # some pools would wait for what hangs


def row() -> None:
    """Take the sample of a row that the command line asks for."""
    name, contender, case, quick = sys.argv[1:]
    from rows import ROWS

    answer(lambda: ROWS[name].measure(contender, case, quick == "quick"))
