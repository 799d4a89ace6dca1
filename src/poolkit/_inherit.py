"""`INHERIT`: the sentinel for "as the pool has it", and the types of options that take it."""

import enum
from typing import Final, Literal

from ._public import public


class Inherit(enum.Enum):
    """Type of `INHERIT`; an enum, so that type checkers can tell it from a value."""

    INHERIT = "INHERIT"

    def __repr__(self) -> str:
        return "INHERIT"


INHERIT: Final = public(Inherit.INHERIT)
"""Keep the option as the executor has it; ``None`` means "none"."""

Seconds = float | None | Inherit
WhenFull = Literal["block", "raise"]
