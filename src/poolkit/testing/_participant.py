"""`Participant`: a thread that takes turns; and what a simulation needs of pools and limits."""

import _thread
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ._simulation import Simulation


def always() -> bool:
    """Stand for something that is true."""
    return True


class Staffed(Protocol):
    """A pool of workers, as seen by the simulation."""

    def staff(self) -> None:
        """Give pending tasks to free workers."""
        ...

    @property
    def over(self) -> bool:
        """Whether nothing will come of it any more."""
        ...

    def close_face(self) -> None:
        """Take no more tasks, and cancel what has not started."""
        ...

    def give_up_rest(self) -> None:
        """Let everything fail that has not ended."""
        ...


class Limited(Protocol):
    """Something whose time may be over."""

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        ...

    def stop(self) -> None:
        """Say that it is late."""
        ...


class Participant:
    """A thread that takes turns."""

    def __init__(self, simulation: "Simulation", name: str) -> None:
        self.simulation = simulation
        self.name = name
        self.number = -1
        """Who comes first: the number of the task that it is busy with; the test is before all."""
        self.place = len(simulation.workers)
        self.ready: Callable[[], bool] = always
        self.wake_at = math.inf
        self.error: BaseException | None = None
        """To be raised when it gets its turn."""
        self.frame: Any = None
        """Where it waits."""
        self.ident = 0
        """Its thread, as Python counts, and, following, as the system does."""
        self.thread_id = 0
        self.ended = False
        """Its thread wants no more turns."""
        self.patient = False
        """It waits for somebody who takes no part and who will be done some time: in real time."""
        # Not a `threading.Lock`, which in a simulation is made to take turns itself.
        self._baton = _thread.allocate_lock()
        self._baton.acquire()

    @property
    def what(self) -> Any:
        """What it is busy with."""
        return self.name

    def wake(self) -> None:
        """Let it have the turn."""
        self._baton.release()

    def sleep(self, seconds: float = -1) -> bool:
        """Wait for the turn; say whether it came."""
        return self._baton.acquire(True, seconds)

    def raise_error(self) -> None:
        """Raise what was to be raised in it, if anything."""
        error, self.error = self.error, None
        if error is not None:
            raise error

    def can_go_on(self, now: float) -> bool:
        """Whether it could make use of a turn."""
        return self.error is not None or self.wake_at <= now or self.ready()
