"""What `explore` does: it runs a test, searches for orders, and makes a failing one smaller."""

import contextlib
import gc
import inspect
import logging
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from .._inherit import WhenFull
from ._override import override_executors
from ._preempt import tracing
from ._schedule import Choices, Replay, Schedule, Seeded
from ._simulated import Durations, SimulatedExecutor
from ._simulation import PATIENCE, Simulation

if TYPE_CHECKING:
    from .._events import Observer
    from .._retry import Retry

# So many orders are drawn to guess how many there are.
_PROBES: Final = 10
# The most runs that are spent on making a failing order smaller.
_MOST_SHRINKS: Final = 300
# How much of what happened is told.
_MOST_LINES: Final = 60


class Runner:
    """Runs the test."""

    def __init__(
        self,
        test: Callable[..., object],
        takes_pool: bool,
        max_workers: int,
        preempt: Literal["lines"] | None,
        durations: Durations,
    ) -> None:
        self._test = test
        self._takes_pool = takes_pool
        self._max_workers = max_workers
        self._preempt: Literal["lines"] | None = preempt
        self._durations = durations
        self.log: tuple[str, ...] = ()
        """What happened in the latest run."""
        self.anything_ran = False
        """Whether there ever was a task."""
        self.lines = 0
        """How many lines were switch points."""
        self._patience = PATIENCE
        self.broken = False
        """Whether the latest run had to be given up."""
        self.error: BaseException | None = None
        """How the smallest failing order has failed again."""

    def run(self, choices: Choices) -> BaseException | None:
        """Run the test in one order; return how it failed."""
        simulation = Simulation(choices, explored=True)
        simulation.patience = self._patience
        # What the collector finalizes would take part, whenever it strikes.
        collects = gc.isenabled()
        gc.disable()
        unretrieved = logging.getLogger("poolkit.unretrieved")
        was, unretrieved.disabled = unretrieved.disabled, True  # it would be said for each run
        try:
            return self._run_on(self._make())
        finally:
            simulation.end()
            self._patience = simulation.patience
            self.lines += simulation.lines
            if collects:
                gc.enable()
            gc.collect(0)
            self.broken = simulation.broken
            unretrieved.disabled = was

    def _run_on(self, pool: SimulatedExecutor) -> BaseException | None:
        try:
            with pool, tracing(pool._simulation, self._preempt):
                if self._takes_pool:
                    result: Any = self._test(pool)
                else:
                    with override_executors(self._make):
                        result = self._test()
                if inspect.isawaitable(result) or inspect.isgenerator(result):
                    raise TypeError(f"the test returned {result!r:.80}, which nobody runs")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            return error
        finally:
            self.log = pool.log
            self.anything_ran = self.anything_ran or bool(self.log)
        return None

    def _make(
        self,
        max_workers: int | None = None,
        *,
        max_pending: int | None = None,
        when_full: WhenFull = "block",
        task_timeout: float | None = None,
        retry: "Retry | None" = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        observers: "Iterable[Observer]" = (),
    ) -> SimulatedExecutor:
        return SimulatedExecutor(
            0,
            max_workers or self._max_workers,
            preempt=self._preempt,
            durations=self._durations,
            max_pending=max_pending,
            when_full=when_full,
            task_timeout=task_timeout,
            retry=retry,
            initializer=initializer,
            initargs=initargs,
            observers=observers,
        )


class Search:
    """Which orders were tried, and which are next."""

    def __init__(self, runner: Runner, most: int, seed: int) -> None:
        self._runner = runner
        self._most = most
        self._seed = seed
        self.seen: set[tuple[int, ...]] = set()
        self.complete = False

    def _run(self, choices: Choices) -> None:
        __tracebackhide__ = True
        error = self._runner.run(choices)
        self.seen.add(tuple(choices.made))
        if error is not None:
            self._report(choices.made, error)

    def seems_small(self) -> bool:
        """Guess whether there are few enough orders to try all.

        The product of how many could go on, at each choice, is on average the number of orders
        (D. E. Knuth, "Estimating the efficiency of backtrack programs", 1975).
        """
        __tracebackhide__ = True
        guesses: list[float] = []
        for number in range(min(_PROBES, self._most)):
            choices = Seeded(self._seed + number)
            self._run(choices)
            guesses.append(math.prod(choices.widths, start=1.0))
        return sum(guesses) / len(guesses) <= self._most

    def exhaust(self) -> None:
        """Try all orders, one after the other, unless there are too many."""
        __tracebackhide__ = True
        prefix: list[int] = []
        for _ in range(self._most):
            choices = Replay(prefix)
            self._run(choices)
            if choices.made[: len(prefix)] != prefix:
                raise RuntimeError(
                    "the test does not do the same each time, even in the same order of events: "
                    "does it keep something between runs, or use chance, real time or threads?"
                )
            following = _next_prefix(choices)
            if following is None:
                self.complete = True
                return
            prefix = following

    def sample(self) -> None:
        """Try orders that the seed draws."""
        __tracebackhide__ = True
        for number in range(2 * self._most):
            if len(self.seen) >= self._most:
                return
            self._run(Seeded(self._seed + number))

    def _report(self, made: list[int], error: BaseException) -> NoReturn:
        """Make a failing order smaller, and raise its error."""
        __tracebackhide__ = True
        tried = len(self.seen)
        if not self._runner.broken:
            made, error = _Shrinking(self._runner, error).shrink(made)
        with contextlib.suppress(Exception):  # an error that can't be added to
            error.add_note(self._tell(tried, str(Schedule(made))))
        try:
            raise error
        finally:
            del error  # a traceback that holds its own error would be a cycle

    def _tell(self, tried: int, schedule: str) -> str:
        lines = [*self._runner.log]
        if len(lines) > _MOST_LINES:
            lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES} more"]
        told = f"poolkit: the test failed in order {tried} of those that explore has tried; "
        if self._runner.broken or self._runner.error is not None:
            told += (
                f"the smallest that fails so is this, and explore(..., replay={schedule!r}) runs "
                "it again"
            )
            if not schedule:
                told += " (it is the plainest: order may have nothing to do with it)"
        else:
            told += (
                "and not again in the same one: it depends on something else, such as chance, real "
                "time, or what earlier runs have left"
            )
        return told + ":" + "".join(f"\n  {line}" for line in lines)


def _next_prefix(choices: Choices) -> list[int] | None:
    """Return how the next order begins; None if this was the last one."""
    made, widths = choices.made, choices.widths
    for place in reversed(range(len(made))):
        if made[place] + 1 < widths[place]:
            return [*made[:place], made[place] + 1]
    return None


class _Shrinking:
    """Makes a failing order smaller, as long as it fails in the same way."""

    def __init__(self, runner: Runner, error: BaseException) -> None:
        self._runner = runner
        self._error = error
        self._left = _MOST_SHRINKS

    def shrink(self, made: list[int]) -> tuple[list[int], BaseException]:
        """Return the smallest that was found, and its error; the runner has run it last."""
        best = made
        pieces = 1
        while self._left > 0:  # first much at once, as most choices don't matter
            size = max(1, len(_not_first(best)) // pieces)
            best = self._clear(best, size)
            if size == 1:
                break
            pieces *= 2
        for place in _not_first(best):
            for choice in range(1, best[place]):
                if (tried := self._fails(_with(best, [place], choice))) is not None:
                    best = tried
                    break
        self._runner.error = self._runner.run(Replay(best))
        return best, self._runner.error or self._error

    def _clear(self, best: list[int], size: int) -> list[int]:
        """Let the first go on, where possible, at so many choices at once; the last ones first."""
        end = len(_not_first(best))
        while end > 0 and self._left > 0:
            places = _not_first(best)[max(0, end - size) : end]
            tried = self._fails(_with(best, places, 0))
            end -= size
            if tried is not None:
                best = tried
                end = min(end, len(_not_first(best)))
        return best

    def _fails(self, choices: list[int]) -> list[int] | None:
        """Return what is chosen if these choices fail in the same way."""
        if self._left <= 0:
            return None
        self._left -= 1
        replay = Replay(choices)
        error = self._runner.run(replay)
        if type(error) is not type(self._error):
            return None
        assert error is not None
        self._error = error
        return replay.made


def _not_first(choices: list[int]) -> list[int]:
    return [place for place, choice in enumerate(choices) if choice]


def _with(choices: list[int], places: list[int], choice: int) -> list[int]:
    changed = choices.copy()
    for place in places:
        changed[place] = choice
    return changed
