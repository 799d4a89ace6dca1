"""What is done inside of Dask's scheduler.

These functions travel by value, as the scheduler may have no poolkit. That is why they are made by
others: cloudpickle sends what a function has defined as it is.
"""

import importlib
from collections.abc import Callable
from typing import Any


def make_death_rule() -> Any:
    """Make a plugin that has no task of poolkit's run again whose worker died.

    The scheduler would run each again ``allowed-failures`` times, on one worker after the other.
    """
    plugin: Any = importlib.import_module("distributed").SchedulerPlugin

    class DeathRule(plugin):  # type: ignore[misc]
        name = "poolkit-deaths"
        idempotent = True

        def update_graph(self, scheduler: Any, *, keys: Any = (), **_more: Any) -> None:
            for key in keys:
                task = scheduler.tasks.get(key)
                if task is not None and str(key).startswith("poolkit-"):
                    task.suspicious = max(task.suspicious, scheduler.allowed_failures)

    return DeathRule()


def make_forgetting(topic: str) -> Callable[..., None]:
    """Make a function that drops a topic, of which the scheduler would keep everything."""

    def forget(dask_scheduler: Any) -> None:
        # What is on its way, the news that nobody listens any more too, would make it anew.
        topics = dask_scheduler._broker._topics
        dask_scheduler.loop.call_later(1.0, lambda: topics.pop(topic, None))

    return forget
