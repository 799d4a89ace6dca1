"""Concurrent code that can be unit-tested: a test decides order, faults and the clock."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._contract import ExecutorContract as ExecutorContract
    from ._errors import WouldBlockError as WouldBlockError
    from ._explore import Exploration as Exploration
    from ._explore import explore as explore
    from ._faults import FaultCall as FaultCall
    from ._faults import FaultPlan as FaultPlan
    from ._faults import InjectedFault as InjectedFault
    from ._host import checkpoint as checkpoint
    from ._host import sleep as sleep
    from ._leaks import PoolLeakError as PoolLeakError
    from ._leaks import no_pool_leaks as no_pool_leaks
    from ._manual import ManualExecutor as ManualExecutor
    from ._override import override_executors as override_executors
    from ._schedule import Schedule as Schedule
    from ._simulated import SimulatedExecutor as SimulatedExecutor
    from ._strategies import schedules as schedules
    from ._virtual import PendingTask as PendingTask

__all__ = (
    "ExecutorContract",
    "Exploration",
    "FaultCall",
    "FaultPlan",
    "InjectedFault",
    "ManualExecutor",
    "PendingTask",
    "PoolLeakError",
    "Schedule",
    "SimulatedExecutor",
    "WouldBlockError",
    "checkpoint",
    "explore",
    "no_pool_leaks",
    "override_executors",
    "schedules",
    "sleep",
)

# Where each name comes from. They are loaded when first asked for: some need what is only
# installed where tests run.
_HOMES = {
    "_contract": ("ExecutorContract",),
    "_errors": ("WouldBlockError",),
    "_explore": ("Exploration", "explore"),
    "_faults": ("FaultCall", "FaultPlan", "InjectedFault"),
    "_host": ("checkpoint", "sleep"),
    "_leaks": ("PoolLeakError", "no_pool_leaks"),
    "_manual": ("ManualExecutor",),
    "_override": ("override_executors",),
    "_schedule": ("Schedule",),
    "_simulated": ("SimulatedExecutor",),
    "_strategies": ("schedules",),
    "_virtual": ("PendingTask",),
}
_home_of = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # to those who check types, there is nothing but what is imported above

    def __getattr__(name: str) -> Any:
        home = _home_of.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            module = import_module(f".{home}", __name__)
        except ModuleNotFoundError as error:
            if error.name != "pytest":
                raise
            raise ModuleNotFoundError(
                f"poolkit.testing.{name} needs pytest: pip install pytest", name="pytest"
            ) from None
        value = globals()[name] = getattr(module, name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
