"""poolkit: one switch picks the pool, one set of verbs does what people hand-roll around pools."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import ALL_COMPLETED as ALL_COMPLETED
    from concurrent.futures import FIRST_COMPLETED as FIRST_COMPLETED
    from concurrent.futures import FIRST_EXCEPTION as FIRST_EXCEPTION

    from ._backend import Capabilities as Capabilities
    from ._backend import Statistics as Statistics
    from ._cpu import available_cpus as available_cpus
    from ._errors import DeadlockError as DeadlockError
    from ._errors import PoolBrokenError as PoolBrokenError
    from ._errors import PoolkitError as PoolkitError
    from ._errors import PoolShutdownError as PoolShutdownError
    from ._errors import QueueFullError as QueueFullError
    from ._errors import RemoteTaskError as RemoteTaskError
    from ._errors import TaskAbortedError as TaskAbortedError
    from ._errors import TaskCancelled as TaskCancelled
    from ._errors import TaskSerializationError as TaskSerializationError
    from ._errors import TaskTimeoutError as TaskTimeoutError
    from ._errors import UnsupportedError as UnsupportedError
    from ._errors import WorkerCrashedError as WorkerCrashedError
    from ._events import Observer as Observer
    from ._events import TaskEvent as TaskEvent
    from ._executor import PoolExecutor as PoolExecutor
    from ._factory import make_executor as make_executor
    from ._factory import register_executor as register_executor
    from ._future import TaskFuture as TaskFuture
    from ._group import TaskGroup as TaskGroup
    from ._inherit import INHERIT as INHERIT
    from ._map import map_batches as map_batches
    from ._map import map_ordered as map_ordered
    from ._map import map_outcomes as map_outcomes
    from ._map import map_unordered as map_unordered
    from ._outcome import Outcome as Outcome
    from ._outcome import collect as collect
    from ._retry import Retry as Retry
    from ._task import CurrentTask as CurrentTask
    from ._task import current_task as current_task
    from ._wait import as_completed as as_completed
    from ._wait import wait as wait

__all__ = (
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "INHERIT",
    "Capabilities",
    "CurrentTask",
    "DeadlockError",
    "Observer",
    "Outcome",
    "PoolBrokenError",
    "PoolExecutor",
    "PoolShutdownError",
    "PoolkitError",
    "QueueFullError",
    "RemoteTaskError",
    "Retry",
    "Statistics",
    "TaskAbortedError",
    "TaskCancelled",
    "TaskEvent",
    "TaskFuture",
    "TaskGroup",
    "TaskSerializationError",
    "TaskTimeoutError",
    "UnsupportedError",
    "WorkerCrashedError",
    "as_completed",
    "available_cpus",
    "collect",
    "current_task",
    "make_executor",
    "map_batches",
    "map_ordered",
    "map_outcomes",
    "map_unordered",
    "register_executor",
    "wait",
)

# Where each name comes from. They are loaded when first asked for: a worker process imports this
# package before it can do anything, and needs almost none of them.
_HOMES = {
    "concurrent.futures": ("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"),
    "poolkit._backend": ("Capabilities", "Statistics"),
    "poolkit._cpu": ("available_cpus",),
    "poolkit._errors": (
        "DeadlockError",
        "PoolBrokenError",
        "PoolkitError",
        "PoolShutdownError",
        "QueueFullError",
        "RemoteTaskError",
        "TaskAbortedError",
        "TaskCancelled",
        "TaskSerializationError",
        "TaskTimeoutError",
        "UnsupportedError",
        "WorkerCrashedError",
    ),
    "poolkit._events": ("Observer", "TaskEvent"),
    "poolkit._executor": ("PoolExecutor",),
    "poolkit._factory": ("make_executor", "register_executor"),
    "poolkit._future": ("TaskFuture",),
    "poolkit._map": ("map_batches", "map_ordered", "map_outcomes", "map_unordered"),
    "poolkit._group": ("TaskGroup",),
    "poolkit._inherit": ("INHERIT",),
    "poolkit._outcome": ("Outcome", "collect"),
    "poolkit._retry": ("Retry",),
    "poolkit._task": ("CurrentTask", "current_task"),
    "poolkit._wait": ("as_completed", "wait"),
}
_home_of = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # to those who check types, there is nothing but what is imported above

    def __getattr__(name: str) -> Any:
        home = _home_of.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(home), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
