"""`explore`: one test, many orders of events."""

import inspect
from collections.abc import Callable
from typing import Literal

import attrs

from .._checks import check_callable, check_positive_int
from .._public import public_in_testing as public
from ._schedule import Choices, Replay, Schedule, make_choices
from ._search import Runner, Search
from ._simulated import Durations
from ._simulation import current


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
    runner = Runner(test, _check_test(test), workers, preempt, durations)
    if replay is not None:
        _replay(runner, make_choices(replay))
        return Exploration(1, complete=False)
    search = Search(runner, most, seed)
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


def _replay(runner: Runner, choices: Choices) -> None:
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
