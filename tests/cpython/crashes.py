"""What goes wrong in the tests beside: tasks, and values that act while they are pickled."""

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import attrs


def segfault(_x: object = None) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)  # it may take a moment to arrive


def leave() -> NoReturn:
    sys.exit(1)


def refuse() -> NoReturn:
    raise pickle.UnpicklingError("not with me")


def raise_here() -> NoReturn:
    raise RuntimeError(123)  # this very line


class Argument:
    """Is there to be let go of."""


def fail_to_initialize(_x: object) -> NoReturn:
    raise ValueError("error in initializer")


def fail(_x: object = None) -> NoReturn:
    raise KeyError("failing task")


def say_pid_and_sleep(fifo: Path) -> None:
    """Write the worker's process id, in ten bytes, and be busy."""
    with fifo.open("wb", buffering=0) as pids:
        pids.write(b"%10d" % os.getpid())
    time.sleep(60)


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@attrs.frozen
class AtPickling:
    """Acts where it is pickled."""

    act: Callable[[], object]

    def __reduce__(self) -> Any:
        self.act()
        return self.act, ()


@attrs.frozen
class AtUnpickling:
    """Acts where it is unpickled."""

    act: Callable[[], object]

    def __reduce__(self) -> Any:
        return self.act, ()
