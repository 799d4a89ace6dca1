"""`explore`: one test, many orders of events."""

import contextlib
import gc
import inspect
import logging
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import attrs

from .._checks import check_callable, check_positive_int
from .._inherit import WhenFull
from .._public import public_in_testing as public
from ._override import override_executors
from ._preempt import tracing
from ._schedule import Choices, Replay, Schedule, Seeded, make_choices
from ._simulated import Durations, SimulatedExecutor
from ._simulation import PATIENCE, Simulation, current

if TYPE_CHECKING:
    from .._events import Observer
    from .._retry import Retry

# So many orders are drawn to guess how many there are.
_PROBES: Final = 10
# The most runs that are spent on making a failing order smaller.
_MOST_SHRINKS: Final = 300
# How much of what happened is told.
_MOST_LINES: Final = 60


@public
@attrs.frozen
class Exploration:
    """What `explore` has done.

    Attributes:
        count: How many different orders the test ran under.
        complete: Whether those were all there are, where events change over only at switch points.
    """

    count: int
    complete: bool


@public
def explore(
    test: Callable[..., object],
    *,
    schedules: int = 500,
    max_workers: int = 4,
    seed: int = 0,
    preempt: Literal["lines"] | None = None,
    durations: Durations = None,
    replay: "str | Schedule | None" = None,
) -> Exploration:
    """Run a test under many orders of events: all of them if they are few, else drawn from a seed.

    The test is run again and again, each time on a new `SimulatedExecutor`. When it fails, the
    order is made smaller as long as it fails in the same way; the error of the smallest is raised,
    with notes that tell what happened, and how to see it again.

    Args:
        test: Called with the executor; or without arguments, if it takes none: then every pool
            that the code under test makes by `make_executor`, or by a kind's name, is part of the
            simulation, see `override_executors`. It has to do the same each time, but for the
            order.
        schedules: The most orders to try. (The test runs somewhat more often, as the same order
            may be drawn again.)
        max_workers: As for `SimulatedExecutor`, like the arguments that follow.
        seed: What decides the orders, where not all are tried.
        preempt: ``"lines"`` to switch between lines, too, also those of the test's own thread;
            then there are too many orders to try all. Inside of a line nothing is switched, though
            real threads may be.
        durations: How long tasks take.
        replay: An order that failed before, as the notes tell it: only that is run.

    Returns:
        How many different orders the test ran under, and whether those were all.

    Raises:
        BaseException: Whatever the test raised.
        RuntimeError: The test does not do the same each time; or no task took part.
    """
    __tracebackhide__ = True
    most = check_positive_int("schedules", schedules)
    workers = check_positive_int("max_workers", max_workers)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int, not {seed!r:.80}")
    if replay is not None and not isinstance(replay, (str, Schedule)):
        raise TypeError(f"replay must be a Schedule or its text, not {replay!r:.80}")
    if current() is not None:
        raise RuntimeError(
            "explore can't be called inside of a simulation; is there a SimulatedExecutor that has "
            "not been shut down, or does the test use the fixture simulated_executor?"
        )
    runner = _Runner(test, _check_test(test), workers, preempt, durations)
    if replay is not None:
        _replay(runner, make_choices(replay))
        return Exploration(1, complete=False)
    search = _Search(runner, most, seed)
    if preempt is None and search.seems_small():
        search.exhaust()
    if not search.complete:
        search.sample()
    if not runner.anything_ran:
        raise RuntimeError(
            "no task took part in the simulation: explore sees those of the executor that the test "
            "is given, and of pools made by make_executor, or by a kind's name, in a test that "
            "takes no argument"
        )
    if preempt is not None and not runner.lines:
        raise RuntimeError(
            "no line was a switch point: preempt looks at code that is not installed as a package, "
            "nor part of the standard library"
        )
    return Exploration(len(search.seen), search.complete)


def _check_test(test: Callable[..., object]) -> bool:
    """Return whether a test takes an executor.

    Raises:
        TypeError: It can't be explored.
    """
    check_callable("test", test)
    if (
        inspect.iscoroutinefunction(test)
        or inspect.isgeneratorfunction(test)
        or inspect.isasyncgenfunction(test)
    ):
        raise TypeError("test must be a plain function; a coroutine or generator would not run")
    try:
        signature = inspect.signature(test)
    except (TypeError, ValueError):  # written in C
        return True
    for arguments in ((None,), ()):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return bool(arguments)
    raise TypeError(f"test must take an executor, or nothing, not {signature}")


def _replay(runner: "_Runner", choices: Choices) -> None:
    """Run the test in one order, that was told before."""
    __tracebackhide__ = True
    error = runner.run(choices)
    if error is not None:
        raise error
    if isinstance(choices, Replay) and not choices.fits:
        raise RuntimeError(
            "the order to be replayed does not fit the test, which has changed since; explore it "
            "anew, without replay"
        )


class _Runner:
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


class _Search:
    """Which orders were tried, and which are next."""

    def __init__(self, runner: _Runner, most: int, seed: int) -> None:
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

    def __init__(self, runner: _Runner, error: BaseException) -> None:
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
