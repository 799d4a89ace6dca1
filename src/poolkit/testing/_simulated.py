"""`SimulatedExecutor`: virtual workers on a virtual clock, in an order that a seed decides."""

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

from .._checks import check_callable, check_initializer, check_positive_int, check_seconds
from .._events import open_stream
from .._executor import PoolExecutor
from .._inherit import WhenFull
from .._options import TaskOptions, check_retry
from .._public import public_in_testing as public
from ._schedule import Schedule, make_choices
from ._simulated_backend import SimulatedBackend
from ._simulation import Simulation, current
from ._virtual import PendingTask

if TYPE_CHECKING:
    from .._events import Observer
    from .._retry import Retry

Durations = Callable[[PendingTask], float] | tuple[float, float] | None
_numbers = itertools.count(1)
# How many durations there are between two bounds.
_STEPS: Final = 20


@public
class SimulatedExecutor(PoolExecutor):
    """An executor of virtual workers, whose order of events a seed decides, on a virtual clock.

    A `PoolExecutor` in every respect. While the test's thread waits (for a future, for results, at
    the end of the ``with`` block), tasks run, one at a time. They change over at *switch points*:
    where a task starts and ends, `checkpoint`, `sleep`, ``current_task().check`` and ``.wait``,
    each wait for a future of the pool, and each wait for a lock, an event, a queue (of `threading`
    and `queue`) made in the simulation; with ``preempt="lines"`` also between the lines of the code
    under test. Who goes on there is drawn from the seed: the same seed gives the same order on
    every machine and every version of Python, as long as the code under test does the same.

    Time passes only when nobody can go on, and takes no time. ``task_timeout``, the pauses of
    retries, ``current_task().wait``, `sleep` and limits of waits follow it. A task that is late
    fails on time; its call goes on at its next switch point, as that of an abandoned thread does.

    If nobody can ever go on, the test's wait raises `WouldBlockError`, which tells who waits where.
    Threads that the code under test starts itself take no part: they run as they like.

    An executor that is made by somebody who takes part in a simulation already joins it: one clock,
    one order; its own seed does not count then.

    Args:
        seed: What decides the order: a number, or a `Schedule` (or its text) to be followed.
        max_workers: How many tasks are under way at once.
        durations: How long tasks take, in seconds of virtual time, before what they do: a
            function of the `PendingTask`, or a pair of bounds between which the seed draws. By
            default no time.
        preempt: ``"lines"`` for switch points between lines; None for none.
        max_pending: As for `make_executor`, like the arguments that follow.
        when_full: What ``submit`` does at that bound; to wait for room is a wait like any other.
        task_timeout: Seconds of virtual time that a task may run.
        retry: Whether and how failed tasks are tried again.
        initializer: Called in each worker before its first task.
        initargs: Its arguments.
        observers: Called with each `TaskEvent`.
    """

    def __init__(
        self,
        seed: int | str | Schedule = 0,
        max_workers: int = 4,
        *,
        durations: Durations = None,
        preempt: Literal["lines"] | None = None,
        max_pending: int | None = None,
        when_full: WhenFull = "block",
        task_timeout: float | None = None,
        retry: "Retry | None" = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        observers: "Iterable[Observer]" = (),
    ) -> None:
        choices = make_choices(seed)
        workers = check_positive_int("max_workers", max_workers)
        check_initializer(initializer, initargs)
        if preempt not in (None, "lines"):
            raise ValueError(f'preempt must be "lines" or None, not {preempt!r:.80}')
        options = TaskOptions(task_timeout=task_timeout, retry=check_retry(retry))
        events = open_stream(observers)
        taken = _check_durations(durations, lambda: self._simulation)
        begin = None if initializer is None else partial(initializer, *initargs)
        name = f"simulated executor {next(_numbers)}"
        self._seed = seed
        self._simulation = current() or Simulation(choices)
        self._backend = SimulatedBackend(name, self._simulation, workers, taken, preempt, begin)
        try:
            super().__init__(
                "simulated", self._backend, options, max_pending, when_full, events=events
            )
        except BaseException:
            self._backend.close()
            raise
        self._backend.face = weakref.ref(self)

    @property
    def elapsed(self) -> float:
        """Seconds of virtual time that have passed since the simulation began."""
        return self._simulation.clock.elapsed

    @property
    def schedule(self) -> Schedule:
        """What was chosen so far; ``SimulatedExecutor(schedule)`` chooses the same again."""
        return self._simulation.choices.schedule

    @property
    def log(self) -> tuple[str, ...]:
        """What happened so far, in order, for people."""
        return tuple(
            f"{task} {what}" + (f" at {place}" if place else "")
            for task, what, place in self._simulation.log
        )

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:  # which matters more than what is left
            self._tell_how_to_replay(exc)
            self.end()
            return
        try:
            super().__exit__(exc_type, exc, traceback)
        except BaseException as error:
            self._tell_how_to_replay(error)
            raise
        finally:
            self.end()

    def end(self) -> None:
        """Shut down without waiting, and end what has not ended; safe to repeat.

        The last executor of a simulation that ends, in the test's thread, ends the simulation:
        `threading` makes real locks again.
        """
        self._cancel()
        self._backend.close()

    def _tell_how_to_replay(self, error: BaseException) -> None:
        if self._simulation.explored:
            return
        note = f"poolkit: in SimulatedExecutor({self._seed!r}); the same seed gives the same order"
        with contextlib.suppress(Exception):  # an error that can't be added to
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)


def _check_durations(
    durations: Any, simulation: Callable[[], Simulation]
) -> Callable[[PendingTask], float]:
    if durations is None:
        return lambda task: 0.0
    if not isinstance(durations, (tuple, list)):
        check_callable("durations", durations)
        function: Callable[[PendingTask], float] = durations
        return function
    try:
        given: list[Any] = [*durations]
        low, high = (check_seconds("durations", each, allow_zero=True) for each in given)
    except ValueError as error:
        raise ValueError(f"durations must be a function or (least, most): {error}") from None
    if low is None or high is None or low > high:
        raise ValueError(f"durations must be (least, most) in seconds, not {durations!r:.80}")
    least, most = low, high
    # A choice like any other, so that it is replayed and made smaller with the rest.
    return lambda task: (
        least + (most - least) * simulation().choices.choose(_STEPS + 1, stays=False) / _STEPS
    )
