"""`make_executor`: the switch. Kinds are looked up here by name, and made on first use."""

import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from ._checks import check_callable, check_initializer, check_name, check_positive_int
from ._errors import UnsupportedError
from ._inherit import INHERIT, WhenFull
from ._public import public

# Importing this module is what a worker process does that imports a script of the user's, and
# seldom makes a pool. So what making one takes is imported by those who do.
if TYPE_CHECKING:
    from ._backend import Backend
    from ._events import Observer
    from ._executor import PoolExecutor
    from ._retry import Retry

ENTRY_POINTS: Final = "poolkit.executors"

_INTENTS: Final[Mapping[str, str]] = MappingProxyType({"io": "thread", "cpu": "process"})

_numbers = itertools.count(1)


class ExecutorFactory(Protocol):
    """Makes the pool of a registered kind: any ``concurrent.futures.Executor`` will do."""

    def __call__(self, max_workers: int | None, **options: Any) -> Executor:
        """Make a pool.

        Args:
            max_workers: As given to `make_executor`.
            **options: ``initializer`` and ``initargs`` if an initializer was given, and the
                kind's own options. An unknown one should be a `TypeError`.
        """
        ...


overrides: "list[Callable[[str, Mapping[str, Any]], PoolExecutor]]" = []
"""Who makes pools in place of every kind, the last one first, given the kind and the arguments of
`make_executor`; see `poolkit.testing`. Changed by single, atomic operations."""

_registered: dict[str, ExecutorFactory] = {}
_registry_lock = threading.Lock()  # guards _registered


@public
def register_executor(name: str, factory: ExecutorFactory) -> None:
    """Make ``make_executor(name)`` use ``factory``, in this process.

    A package offers a kind to everybody who installs it by an entry point instead: group
    ``poolkit.executors``, the kind's name, and the factory.

    Args:
        name: The kind's name. A name that is taken is refused, unless it stands for the same
            factory.
        factory: Called as ``factory(max_workers, **options)``; returns an executor, which the
            made `PoolExecutor` owns and shuts down.

    Raises:
        ValueError: The name is taken, or no name.
    """
    check_callable("factory", factory)
    check_name("name", name)
    with _registry_lock:
        if name in _BUILTIN or name in _INTENTS or _registered.get(name, factory) != factory:
            raise ValueError(f"the kind {name!r} exists already; choose another name")
        _registered[name] = factory


@public
def make_executor(
    kind: str | Executor,
    max_workers: int | None = None,
    *,
    max_pending: int | None = None,
    when_full: WhenFull = "block",
    task_timeout: float | None = None,
    retry: "Retry | None" = None,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
    observers: "Iterable[Observer]" = (),
    **kind_options: Any,
) -> "PoolExecutor":
    """Make an executor of the kind that ``kind`` names: change the word, keep the code.

    Args:
        kind: ``"thread"``, ``"process"``, ``"interpreter"`` (threads with an interpreter each, from
            Python 3.14 on) or ``"inline"`` (in the caller, at once); ``"dask"`` and ``"ray"``,
            which join a cluster, or start one on this machine; ``"io"`` and ``"cpu"``, which
            mean thread and process; a name from `register_executor` or from an installed package;
            or any ``concurrent.futures.Executor``, which is adapted and not owned: shutting down
            then waits for the tasks given to it here, and leaves it open.
        max_workers: How many tasks run at once; by default `available_cpus` for processes and
            interpreters, four more, up to 32, for threads, and what a cluster has for its kinds.
        max_pending: The most tasks submitted and not yet resolved, running ones included; None
            for no limit.
        when_full: What `PoolExecutor.submit` does at that limit: ``"block"``, or ``"raise"``
            `QueueFullError`.
        task_timeout: Seconds that a task may run, from its start in the worker; None for no
            limit. What happens then depends on the kind: on processes the worker is killed and
            replaced; on threads the future fails on time and the hung thread is replaced, but no
            thread can be killed.
        retry: Whether and how failed tasks are tried again; see `Retry`.
        initializer: Called in each worker before its first task. If it raises, the pool is
            broken: all tasks fail with `PoolBrokenError`.
        initargs: Its arguments.
        observers: Called with each `TaskEvent`; see `Observer`.
        **kind_options: The kind's own options. For ``"thread"`` and ``"interpreter"``:
            ``thread_name_prefix``, and ``max_abandoned``, how many threads hung past their
            time-out are too many. For ``"process"``: ``start_method`` (by default
            ``"forkserver"``, else ``"spawn"``) or ``mp_context``; ``max_tasks_per_child``, and
            ``max_worker_memory`` in bytes, at which a worker is replaced between two tasks; and
            ``kill_grace``, the seconds between SIGTERM and SIGKILL where a task has to be stopped
            (0.5). For ``"dask"``: ``address`` of a scheduler, or a ``client``. For ``"ray"``:
            ``address``, and ``ray_options`` for each task, such as ``{"num_gpus": 1}``.

    Returns:
        The executor. Use it in a ``with`` block, or shut it down.

    Raises:
        ValueError: No such kind, or a value out of range.
        TypeError: A value of the wrong type, or an option that the kind does not know.
        UnsupportedError: The kind can't do what was asked.
    """
    asked: dict[str, Any] = {
        "max_workers": max_workers,
        "max_pending": max_pending,
        "when_full": when_full,
        "task_timeout": task_timeout,
        "retry": retry,
        "initializer": initializer,
        "initargs": initargs,
        "observers": observers,
        **kind_options,
    }
    if overrides and isinstance(kind, str):
        check_kind(kind, kind_options)
        check_initializer(initializer, initargs)
        if max_workers is not None:
            check_positive_int("max_workers", max_workers)
        return overrides[-1](kind, asked)
    return make_as_asked(kind, **asked)


def make_as_asked(
    kind: str | Executor,
    max_workers: int | None = None,
    *,
    max_pending: int | None = None,
    when_full: WhenFull = "block",
    task_timeout: float | None = None,
    retry: "Retry | None" = None,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
    observers: "Iterable[Observer]" = (),
    **kind_options: Any,
) -> "PoolExecutor":
    """Do what `make_executor` does while nothing is overridden."""
    if kind in ("process", "cpu") and sys.platform != "win32":
        from .backends.process.starting import warm_up

        warm_up(kind_options.get("start_method"), kind_options.get("mp_context"))
    from ._executor import PoolExecutor
    from ._options import TaskOptions, check_retry

    workers = None if max_workers is None else check_positive_int("max_workers", max_workers)
    check_initializer(initializer, initargs)
    options = TaskOptions(task_timeout=task_timeout, retry=check_retry(retry))
    events = None
    if observers != ():  # else, there is nothing to load
        from ._events import open_stream

        events = open_stream(observers)
    if isinstance(kind, PoolExecutor):
        _refuse_worker_options(kind.kind, workers, initializer, kind_options)
        if events is not None:
            raise UnsupportedError(
                kind.kind, "observers of a view", "give them to make_executor for the pool itself"
            )
        return kind.with_options(
            task_timeout=INHERIT if task_timeout is None else task_timeout,
            max_pending=max_pending,
            when_full=when_full,
            retry=INHERIT if retry is None else retry,
        )
    if isinstance(kind, Executor):
        name = type(kind).__name__
        _refuse_worker_options(name, workers, initializer, kind_options)
        name = f"adapted {name}"
        backend = _adapt(kind, name, owned=False)
        return PoolExecutor(name, backend, options, max_pending, when_full, events=events)
    if not isinstance(kind, str):
        raise TypeError(f"kind must be a name or an Executor, not {kind!r:.80}")
    name = _INTENTS.get(kind, kind)
    number = next(_numbers)
    pool_name = f"{name} pool {number}"
    if name in _BUILTIN:
        make = _BUILTIN[name]
        _check_keywords(kind, make, kind_options)
        backend = make(pool_name, workers, initializer, initargs, **kind_options)
    else:
        factory = _find(name)
        if initializer is not None:
            kind_options |= {"initializer": initializer, "initargs": initargs}
        backend = _adapt(factory(workers, **kind_options), pool_name, owned=True)
    try:
        return PoolExecutor(name, backend, options, max_pending, when_full, events=events)
    except BaseException:
        backend.shutdown(wait=False)
        raise


def adopt(pool: Executor, **asked: Any) -> "PoolExecutor":
    """Return a pool that adapts somebody else's executor, and owns it."""
    adapted = make_as_asked(pool, **asked)
    backend: Any = adapted._link.backend
    backend.owned = True
    return adapted


def pool_for(executor: str | Executor) -> "tuple[PoolExecutor, bool]":
    """Return the pool that a verb is to use, and whether it is the verb's own."""
    from ._executor import PoolExecutor

    if isinstance(executor, PoolExecutor):
        return executor, False
    if not isinstance(executor, (str, Executor)):
        raise TypeError(
            f"the first argument must be an executor or a kind's name, not {executor!r:.80}"
        )
    return make_executor(executor), isinstance(executor, str)


def _inline(
    name: str,
    max_workers: int | None,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> "Backend":
    from .backends.inline import InlineBackend

    if max_workers not in (None, 1):
        raise UnsupportedError(
            "inline", f"max_workers={max_workers}", "it runs one task at a time, in the caller"
        )
    return InlineBackend(name, initializer, initargs)


def _thread(
    name: str,
    max_workers: int | None,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    *,
    thread_name_prefix: str = "",
    max_abandoned: int | None = None,
) -> "Backend":
    from ._cpu import available_cpus

    workers = max_workers or min(32, available_cpus() + 4)
    make_threads = _threads(name, workers, thread_name_prefix, max_abandoned)
    return make_threads(initializer=initializer, initargs=initargs)


def _threads(
    name: str, max_workers: int, thread_name_prefix: str, max_abandoned: int | None
) -> "Callable[..., Backend]":
    """Return what makes a pool of threads, but for what each thread does in it."""
    from functools import partial

    from .backends.thread import DEFAULT_MAX_ABANDONED, ThreadBackend

    return partial(
        ThreadBackend,
        name,
        max_workers,
        thread_name_prefix=thread_name_prefix or name.replace(" ", "-"),
        max_abandoned=DEFAULT_MAX_ABANDONED
        if max_abandoned is None
        else check_positive_int("max_abandoned", max_abandoned),
    )


def _interpreter(
    name: str,
    max_workers: int | None,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    *,
    thread_name_prefix: str = "",
    max_abandoned: int | None = None,
) -> "Backend":
    import platform

    if sys.hexversion < 0x030E0000:
        raise UnsupportedError(
            "interpreter",
            f"Python {platform.python_version()}, and needs 3.14 or newer",
            'use "process", or "thread"',
        )
    from ._cpu import available_cpus
    from .backends.interpreter import InterpreterBackend

    workers = max_workers or available_cpus()
    make_threads = _threads(name, workers, thread_name_prefix, max_abandoned)
    return InterpreterBackend(name, initializer, initargs, make_threads)


def _process(
    name: str,
    max_workers: int | None,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    *,
    start_method: str | None = None,
    mp_context: Any = None,
    max_tasks_per_child: int | None = None,
    max_worker_memory: int | None = None,
    kill_grace: float | None = None,
) -> "Backend":
    if sys.platform == "win32":  # no process groups, no signals: see "Processes" in the docs
        from concurrent.futures import ProcessPoolExecutor

        if max_worker_memory is not None or kill_grace is not None or start_method is not None:
            raise UnsupportedError("process", "this option on Windows", "leave it out")
        pool = ProcessPoolExecutor(
            max_workers,
            mp_context,
            initializer,
            initargs,
            max_tasks_per_child=max_tasks_per_child,
        )
        return _adapt(pool, name, owned=True)
    from .backends.process.make import make_process_backend

    return make_process_backend(
        name,
        max_workers,
        initializer,
        initargs,
        start_method=start_method,
        mp_context=mp_context,
        max_tasks_per_child=max_tasks_per_child,
        max_worker_memory=max_worker_memory,
        kill_grace=kill_grace,
    )


def _dask(
    name: str,
    max_workers: int | None,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    *,
    address: str | None = None,
    client: Any = None,
) -> "Backend":
    from .backends._remote import RemoteBackend
    from .backends.dask import DaskEngine

    if address is not None and client is not None:
        raise ValueError("give address or client, not both")
    engine = DaskEngine(name, address, client, max_workers)
    return RemoteBackend(name, engine, max_workers, initializer, initargs)


def _ray(
    name: str,
    max_workers: int | None,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    *,
    address: str | None = None,
    ray_options: "Mapping[str, Any] | None" = None,
) -> "Backend":
    from .backends._remote import RemoteBackend
    from .backends.ray import RayEngine

    engine = RayEngine(name, address, max_workers, ray_options)
    return RemoteBackend(name, engine, max_workers, initializer, initargs)


_BUILTIN: Final["Mapping[str, Callable[..., Backend]]"] = MappingProxyType(
    {
        "thread": _thread,
        "process": _process,
        "interpreter": _interpreter,
        "inline": _inline,
        "dask": _dask,
        "ray": _ray,
    }
)


def _adapt(pool: Executor, name: str, *, owned: bool) -> "Backend":
    from .backends.adapted import AdaptedBackend

    if not isinstance(pool, Executor):
        raise TypeError(f"the factory of the {name} returned {pool!r:.80}, which is no Executor")
    return AdaptedBackend(name, pool, owned=owned)


def check_kind(kind: str, options: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Check that there is such a kind, and that it has these options of its own.

    Raises:
        ValueError: There is no such kind.
        TypeError: It does not know an option.
    """
    make = _BUILTIN.get(_INTENTS.get(kind, kind))
    if make is None:
        _find(kind)
    else:
        _check_keywords(kind, make, options)


def options_of(kind: str) -> list[str] | None:
    """Return the names of the options that only this kind has; None if anything may be one."""
    make = _BUILTIN.get(_INTENTS.get(kind, kind))
    return None if make is None else _keywords(make)


def _find(name: str) -> ExecutorFactory:
    """Return the factory of a kind that is not built in."""
    with _registry_lock:
        factory = _registered.get(name)
    if factory is not None:
        return factory
    import importlib.metadata

    installed = importlib.metadata.entry_points(group=ENTRY_POINTS)
    for entry_point in installed.select(name=name):
        return cast(ExecutorFactory, entry_point.load())
    import difflib

    known = sorted({*_BUILTIN, *_INTENTS, *_registered, *installed.names})
    close = difflib.get_close_matches(name.lower(), known, 1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown kind {name!r}.{hint} The known kinds are {', '.join(known)}")


def _keywords(make: "Callable[..., Backend]") -> list[str]:
    return list(getattr(make, "__kwdefaults__", None) or ())  # each of theirs has a default


def _check_keywords(kind: str, make: "Callable[..., Backend]", options: Mapping[str, Any]) -> None:
    known = _keywords(make)
    for option in options:
        if option not in known:
            own = ", ".join(known) or "none"
            raise TypeError(
                f"make_executor({kind!r}) does not know the option {option!r}; "
                f"options of this kind: {own}"
            )


def _refuse_worker_options(
    kind: str,
    max_workers: int | None,
    initializer: Callable[..., object] | None,
    kind_options: Mapping[str, Any],
) -> None:
    given = [
        *(["max_workers"] if max_workers is not None else []),
        *(["initializer"] if initializer is not None else []),
        *kind_options,
    ]
    if given:
        raise UnsupportedError(
            kind,
            " and ".join(given),
            "an executor that exists already has its workers; set this where it is made",
        )
