"""The lines of a `FaultPlan`: whom each one strikes, and with what."""

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any, Literal, TypedDict

import attrs

from .._checks import check_callable, check_positive_int
from .._public import public_in_testing as public

What = Literal["fail", "time_out", "crash", "delay", "unpicklable_result", "shut_down"]


@public
@attrs.frozen
class FaultCall:
    """A call that a `FaultPlan` looks at.

    Attributes:
        number: Of the task, from 0, in the order in which tasks were submitted to the pool; each
            item of a verb is one.
        attempt: Which attempt at the task this is, from 1.
        fn: The function.
        args: Its arguments.
        kwargs: Its keyword arguments.
    """

    number: int
    attempt: int
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@public
@attrs.frozen
class InjectedFault(FaultCall):
    """What a `FaultPlan` has done to a call.

    Attributes:
        what: The name of the plan's method that told so, such as ``"crash"``.
    """

    what: What


class Aim(TypedDict, total=False):
    """Which tasks a line strikes; exactly one of these is given."""

    task: int | Iterable[int] | None
    when: Callable[[FaultCall], bool] | None
    rate: float | None


class Whom(Aim, total=False):
    """Which tasks a line strikes, and how many attempts at them."""

    attempts: int | None


@attrs.frozen
class Rule:
    """One line of a plan."""

    what: What
    hits: Callable[[FaultCall], bool]
    attempts: int | None
    error: BaseException | type[BaseException] | None = None
    seconds: float = 0.0
    cancel_futures: bool = False

    def strikes(self, call: FaultCall) -> bool:
        """Whether a call is to be struck."""
        early = self.attempts is None or call.attempt <= self.attempts
        return early and bool(self.hits(call))


def make_rule(what: What, draw: str, whom: Mapping[str, Any], details: Mapping[str, Any]) -> Rule:
    """Return a line of a plan, having checked whom it is to strike.

    Args:
        what: The fault.
        draw: What a rate draws from, besides the task's number.
        whom: An `Aim` or `Whom`, as the user gave it.
        details: What else there is to know of the fault.
    """
    for name in whom:
        if name not in (Aim if what == "shut_down" else Whom).__annotations__:
            raise TypeError(f"{what}() got an unexpected keyword argument {name!r}")
    given = {name: whom[name] for name in whom if name != "attempts" and whom[name] is not None}
    if len(given) != 1:
        raise TypeError(
            f"{what}() needs exactly one of task=, when= and rate=, which say whom it strikes; "
            f"{len(given)} were given"
        )
    attempts = whom.get("attempts", 1)
    if attempts is not None:
        attempts = check_positive_int("attempts", attempts)
    return Rule(what, _make_aim(draw, **given), attempts, **details)


def _make_aim(
    draw: str, task: Any = None, when: Any = None, rate: Any = None
) -> Callable[[FaultCall], bool]:
    if task is not None:
        numbers = _check_numbers(task)
        return lambda call: call.number in numbers
    if rate is not None:
        likelihood = _check_rate(rate)
        return lambda call: Random(f"{draw}/{call.number}").random() < likelihood
    check_callable("when", when)
    predicate: Callable[[FaultCall], bool] = when
    return predicate


def _check_numbers(task: Any) -> frozenset[int]:
    given: list[Any] = [task]
    if isinstance(task, Iterable):
        given = [*task]  # of a text, its characters, which are no numbers
    if not given or not all(hasattr(n, "__index__") and not isinstance(n, bool) for n in given):
        raise TypeError(f"task must be the number of a task, or several, not {task!r:.80}")
    numbers = frozenset(int(number) for number in given)
    if min(numbers) < 0:
        raise ValueError(f"task must be at least 0: tasks are numbered from 0; not {task!r:.80}")
    return numbers


def _check_rate(rate: Any) -> float:
    try:
        if isinstance(rate, (bool, str, bytes)):
            raise TypeError
        number = float(rate)
    except (TypeError, ValueError):
        raise TypeError(f"rate must be a number from 0 to 1, not {rate!r:.80}") from None
    if not 0 <= number <= 1:
        raise ValueError(f"rate must be from 0 to 1, not {number:g}")
    return number
