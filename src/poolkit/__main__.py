"""``python -m poolkit doctor``: what pools can do on this machine, and what is missing."""

import argparse
import importlib.metadata
import importlib.util
import multiprocessing
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from ._backend import Capabilities
from ._cpu import available_cpus
from ._factory import ENTRY_POINTS, make_executor

_EXTRAS: Final = (
    ("cloudpickle", "cloudpickle", "lambdas and closures on processes"),
    ("progress", "tqdm", "progress=True"),
    ("progress", "rich", 'progress="rich", and this table'),
    ("dask", "distributed", 'the "dask" kind'),
    ("ray", "ray", 'the "ray" kind'),
)
_KINDS: Final = ("inline", "thread", "interpreter", "process")
_CLUSTERS: Final = (("dask", "distributed", "DaskEngine"), ("ray", "ray", "RayEngine"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m poolkit", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    doctor = commands.add_parser("doctor", help="tell what pools can do here")
    doctor.set_defaults(command=show)
    parser.parse_args(arguments).command()
    return 0


def show() -> None:
    """Print what there is, as tables if rich is installed, else as plain lines."""
    tables = (
        ("this machine", list(_machine())),
        ("kinds", list(_kinds())),
        ("extras", list(_extras())),
        ("what to use here", list(_advice())),
    )
    try:
        from rich.console import Console
        from rich.table import Table
    except ModuleNotFoundError:
        for title, rows in tables:
            print(f"{title}:")
            for name, text in rows:
                print(f"  {name}: {text}")
        return
    console = Console()
    for title, rows in tables:
        table = Table(show_header=False, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def _machine() -> Iterator[tuple[str, str]]:
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "global interpreter lock", "on" if _has_gil() else "off: threads run Python in parallel"
    yield "platform", platform.platform(terse=True)
    yield "CPUs of the machine", str(os.cpu_count())
    yield "CPUs for this process", f"{available_cpus()} (after affinity and control groups)"
    methods = multiprocessing.get_all_start_methods()
    yield "start methods", ", ".join(methods)


def _has_gil() -> bool:
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def _kinds() -> Iterator[tuple[str, str]]:
    for kind in _KINDS:
        try:
            with make_executor(kind) as pool:
                yield kind, _lacks(pool.capabilities)
        except Exception as error:  # whatever it is, it is what the reader wants to know
            yield kind, f"can't be made here: {type(error).__name__}: {error}"
    for kind, package, engine in _CLUSTERS:  # to make one would start a cluster
        if importlib.util.find_spec(package) is None:
            yield kind, f"needs {package}, which is not installed"
        else:
            module = importlib.import_module(f"poolkit.backends.{kind}")
            yield kind, _lacks(getattr(module, engine).capabilities)
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        package = point.dist.name if point.dist is not None else "an unknown package"
        yield point.name, f"from {package} ({point.value})"


def _lacks(capabilities: Capabilities) -> str:
    """Return what a kind can't do, in words."""
    lacks = [
        *(["runs tasks in the caller, one at a time"] if capabilities.runs_in_caller else []),
        *(["functions and data have to be pickled"] if capabilities.serializes else []),
        {
            "hard": "",
            "soft": "",
            "after": "limits are looked at when a task has ended",
            "none": "no limits for tasks",
        }[capabilities.deadlines],
        {
            "killed": "",
            "abandoned": "a task past its limit fails on time, but goes on in its thread",
            None: "running tasks can't be stopped",
        }[capabilities.stops],
    ]
    return "; ".join(filter(None, lacks)) or "nothing to note"


def _extras() -> Iterator[tuple[str, str]]:
    for extra, package, purpose in _EXTRAS:
        try:
            found = f"{importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            found = f"not installed; pip install 'poolkit[{extra}]'"
        yield f"{package} (for {purpose})", found


def _advice() -> Iterator[tuple[str, str]]:
    yield "io", '"thread": waiting for networks and disks needs no CPU'
    if available_cpus() == 1:
        yield "cpu", '"inline" or "thread": there is one CPU; processes would only add their cost'
    elif not _has_gil():
        yield "cpu", '"thread": without the lock they run in parallel, and nothing is pickled'
    else:
        yield "cpu", f'"process": {available_cpus()} CPUs, and a lock in each interpreter'


if __name__ == "__main__":
    raise SystemExit(main())
