"""The ``"process"`` kind: the standard library's pool, with a safe way to start workers."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing.context import BaseContext
from typing import Any

from .._cpu import available_cpus


def make_process_pool(
    max_workers: int | None,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    start_method: str | None,
    mp_context: Any,
    max_tasks_per_child: int | None,
) -> Executor:
    """Make a standard process pool whose workers are never forked from a threaded parent."""
    if start_method is not None and mp_context is not None:
        raise ValueError("give start_method or mp_context, not both")
    methods = multiprocessing.get_all_start_methods()
    if start_method is not None and start_method not in methods:
        raise ValueError(f"start_method must be one of {', '.join(methods)}, not {start_method!r}")
    if mp_context is not None and not isinstance(mp_context, BaseContext):
        raise TypeError(
            f"mp_context must come from multiprocessing.get_context(), not be {mp_context!r:.80}"
        )
    if mp_context is None:
        default = "forkserver" if "forkserver" in methods else "spawn"
        mp_context = multiprocessing.get_context(start_method or default)
    return ProcessPoolExecutor(
        max_workers or available_cpus(),
        mp_context,
        initializer,
        initargs,
        max_tasks_per_child=max_tasks_per_child,
    )
