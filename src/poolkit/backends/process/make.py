"""Making a pool of processes: its options, checked, and what each start method needs."""

import os
import weakref
from collections.abc import Callable
from typing import Any

from ..._checks import check_positive_int, check_seconds
from ..._cpu import available_cpus
from ..._errors import UnsupportedError
from .. import _serialization
from . import handle, worker
from .lending import KEPT_BY_PARENT, Store
from .memory import can_be_measured
from .parcel import Packer, main_can_be_imported
from .pool import ProcessBackend
from .segments import AVAILABLE
from .starting import find_context, forget_server

DEFAULT_KILL_GRACE = 0.5

# All pools of this process; a forked child closes its copies of what they have open.
_pools: "weakref.WeakSet[ProcessBackend]" = weakref.WeakSet()


def make_process_backend(
    name: str,
    max_workers: int | None,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    *,
    start_method: str | None,
    mp_context: Any,
    max_tasks_per_child: int | None,
    max_worker_memory: int | None,
    kill_grace: float | None,
) -> ProcessBackend:
    """Check the options of the process kind, and make a pool; no process is started yet."""
    context = find_context(start_method, mp_context)
    method = context.get_start_method()
    if max_tasks_per_child is not None:
        max_tasks_per_child = check_positive_int("max_tasks_per_child", max_tasks_per_child)
        if method == "fork":
            raise ValueError(
                "max_tasks_per_child can't be had with start_method='fork', which would fork a "
                "process with threads again and again; use 'forkserver' or 'spawn'"
            )
    if max_worker_memory is not None:
        max_worker_memory = check_positive_int("max_worker_memory", max_worker_memory)
        if not can_be_measured():
            raise UnsupportedError("process", "max_worker_memory", "leave it out on this system")
    grace = DEFAULT_KILL_GRACE
    if kill_grace is not None:
        grace = check_seconds("kill_grace", kill_grace, allow_zero=True) or 0.0
    if initializer is not None and method != "fork":
        initializer = _travelling(initializer)
    if max_workers is None:
        max_workers = 1 if worker.in_worker else available_cpus()
    backend = ProcessBackend(
        name,
        max_workers,
        context,
        initializer,
        initargs,
        packer=Packer(
            main_is_shared=method == "fork" or main_can_be_imported(),
            store=Store(KEPT_BY_PARENT) if AVAILABLE else None,
        ),
        max_tasks_per_child=max_tasks_per_child,
        max_worker_memory=max_worker_memory,
        kill_grace=grace,
    )
    _pools.add(backend)
    return backend


class _ByValue:
    """An initializer that we have pickled, as multiprocessing can't pickle every one."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __call__(self, *args: Any) -> object:
        return _serialization.load_task("the initializer", self._data)(*args)


def _travelling(initializer: Callable[..., object]) -> Callable[..., object]:
    """Return the initializer in a form that multiprocessing can send; its arguments it knows."""
    hidden = not main_can_be_imported() and getattr(initializer, "__module__", "") == "__main__"
    data = _serialization.dump_task("the initializer", initializer, by_value=hidden)
    return _ByValue(data)


def _forget_parent() -> None:
    """In a forked child: close what the parent's pools have open, and forget its fork server."""
    for pool in list(_pools):
        pool.abandon()
    _pools.clear()
    handle.forget_parent()
    forget_server()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
