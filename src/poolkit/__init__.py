"""poolkit: one switch picks the pool, one set of verbs does what people hand-roll around pools."""

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
from ._errors import TaskSerializationError as TaskSerializationError
from ._errors import TaskTimeoutError as TaskTimeoutError
from ._errors import UnsupportedError as UnsupportedError
from ._errors import WorkerCrashedError as WorkerCrashedError
from ._executor import PoolExecutor as PoolExecutor
from ._factory import make_executor as make_executor
from ._factory import register_executor as register_executor
from ._future import TaskFuture as TaskFuture
from ._map import map_batches as map_batches
from ._map import map_ordered as map_ordered
from ._map import map_outcomes as map_outcomes
from ._map import map_unordered as map_unordered
from ._options import INHERIT as INHERIT
from ._outcome import Outcome as Outcome
from ._task import CurrentTask as CurrentTask
from ._task import TaskCancelled as TaskCancelled
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
    "Outcome",
    "PoolBrokenError",
    "PoolExecutor",
    "PoolShutdownError",
    "PoolkitError",
    "QueueFullError",
    "RemoteTaskError",
    "Statistics",
    "TaskAbortedError",
    "TaskCancelled",
    "TaskFuture",
    "TaskSerializationError",
    "TaskTimeoutError",
    "UnsupportedError",
    "WorkerCrashedError",
    "as_completed",
    "available_cpus",
    "current_task",
    "make_executor",
    "map_batches",
    "map_ordered",
    "map_outcomes",
    "map_unordered",
    "register_executor",
    "wait",
)


# Public names show this module in tracebacks, pickles and documentation.
def _show_this_module() -> None:
    for name in __all__:
        public = globals()[name]
        if getattr(public, "__module__", "").startswith("poolkit."):
            public.__module__ = __name__


_show_this_module()
del _show_this_module
