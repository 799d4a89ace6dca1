"""`Schedule`: which of those that can go on does so, at each point where there is a choice.

A schedule is a list of numbers. The n-th choice among k that can go on takes the one at
``choices[n] % k``; 0 is whoever was at it, else the one that came first; after the end of the list
every choice is 0. So each list is a valid schedule of every program, a shorter one with smaller
numbers is a simpler one, and the text form names only what is not 0::

    "2:1 5:3"     at choice 2 take the second, at choice 5 the fourth, else the first
"""

import random
import re
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from .._public import public_in_testing as public

_PAIR = re.compile(r"(\d+):(\d+)")
# More choices than this in one text form are a mistake, or no test.
_MOST = 1_000_000
# How often in a row somebody may go on while others could.
_MOST_STAYS = 500


def _as_tuple(choices: Iterable[int]) -> tuple[int, ...]:
    listed = list(choices)
    while listed and listed[-1] == 0:  # as every choice after the end is 0
        listed.pop()
    return tuple(listed)


def _check_choices(instance: object, attribute: object, value: tuple[Any, ...]) -> None:
    for choice in value:
        if isinstance(choice, bool) or not isinstance(choice, int) or choice < 0:
            raise TypeError(f"a schedule consists of ints of at least 0, not {choice!r:.80}")


@public
@attrs.frozen(repr=False)
class Schedule:
    """An order of events, for `SimulatedExecutor`; immutable.

    Attributes:
        choices: Which one, at each choice.
    """

    choices: tuple[int, ...] = attrs.field(
        default=(), converter=_as_tuple, validator=_check_choices
    )

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Return the schedule that `str` has shown as ``text``.

        Raises:
            ValueError: It is no such text.
        """
        if not isinstance(text, str):
            raise TypeError(f"a schedule's text must be a str, not {text!r:.80}")
        choices: list[int] = []
        for part in text.split():
            pair = _PAIR.fullmatch(part)
            place = -1 if pair is None else int(pair[1])
            if pair is None or place < len(choices) or place > _MOST:
                raise ValueError(
                    f"{text!r:.80} is no schedule; one looks like '2:1 5:3' (at choice 2 the "
                    "second, at choice 5 the fourth), with growing places"
                )
            choices += [0] * (place - len(choices)) + [int(pair[2])]
        return cls(choices)

    def __str__(self) -> str:
        return " ".join(f"{n}:{choice}" for n, choice in enumerate(self.choices) if choice)

    def __repr__(self) -> str:
        return f"Schedule.parse({str(self)!r})"


class Choices:
    """Makes choices, and keeps a record of them."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.widths: list[int] = []
        """Among how many, each time."""
        self._stays = 0

    def choose(self, width: int, *, stays: bool) -> int:
        """Return which of ``width`` goes on.

        Args:
            width: How many can go on; at least two.
            stays: Whether the first of them is in the middle of something, and would rather not
                be interrupted.
        """
        choice = self._choose(width, stays)
        # Who waits in a loop for others would else wait for ever.
        self._stays = self._stays + 1 if stays and not choice else 0
        if self._stays > _MOST_STAYS:
            choice = 1
            self._stays = 0
        self.made.append(choice)
        self.widths.append(width)
        return choice

    def _choose(self, width: int, stays: bool) -> int:
        raise NotImplementedError

    @property
    def schedule(self) -> Schedule:
        """What was chosen, to be chosen again."""
        return Schedule(self.made)


class Replay(Choices):
    """Follows a schedule."""

    def __init__(self, choices: Sequence[int]) -> None:
        super().__init__()
        self._choices = choices
        self._unknown = False

    @property
    def fits(self) -> bool:
        """Whether there was a choice for each that the schedule makes."""
        return not self._unknown and not any(self._choices[len(self.made) :])

    def _choose(self, width: int, stays: bool) -> int:
        place = len(self.made)
        choice = self._choices[place] if place < len(self._choices) else 0
        self._unknown = self._unknown or choice >= width
        return choice % width


class Seeded(Choices):
    """Draws from a seed: the same on every machine, in every version of Python."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        # Of `random`, this method alone is documented to give the same numbers for ever.
        self._draw = random.Random(seed).random
        # Some bugs need many changes, others few in the right places: some seeds interrupt often.
        self._interrupts = 2.0 ** -(1 + int(self._draw() * 5))

    def _choose(self, width: int, stays: bool) -> int:
        if not stays:
            return int(self._draw() * width)
        if self._draw() >= self._interrupts:
            return 0
        return 1 + int(self._draw() * (width - 1))


def make_choices(seed: object) -> Choices:
    """Return what makes choices as the ``seed`` argument of an executor says.

    Raises:
        TypeError: It is neither a seed nor a schedule.
    """
    if isinstance(seed, Schedule):
        return Replay(seed.choices)
    if isinstance(seed, str):
        return Replay(Schedule.parse(seed).choices)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int or a Schedule (or its text), not {seed!r:.80}")
    return Seeded(seed)
