"""`override_executors`: other pools than the code under test asks for."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial

from .._factory import check_kind, overrides
from .._public import public_in_testing as public
from ._substitutes import substitute


@public
@contextmanager
def override_executors(
    kind_or_factory: str | Executor | Callable[..., Executor], /
) -> Iterator[None]:
    """Let every pool that is asked for by a kind's name be another one, inside a ``with`` block.

    That concerns `make_executor`, and verbs and groups given a kind's name, in all threads. The
    code's options are kept: ``max_pending``, ``task_timeout``, ``retry`` and their like in any
    case; ``max_workers``, the initializer and the kind's own options where the pool in its place
    takes them. Overriding again inside the block counts before this one.

    Args:
        kind_or_factory: A kind's name, such as ``"inline"``; or an executor, for all to share,
            which is not shut down with them; or what makes one, called with those of the code's
            options that it takes by name.

    What the code asks for has to make sense all the same: a kind or an option that does not exist
    is an error, as without this.

    Raises:
        ValueError: There is no such kind.
        TypeError: It is none of these.
    """
    if isinstance(kind_or_factory, str):
        check_kind(kind_or_factory)
    elif not isinstance(kind_or_factory, Executor) and not callable(kind_or_factory):
        raise TypeError(
            "override_executors takes a kind's name, an executor, or a function that makes one, "
            f"not {kind_or_factory!r:.80}"
        )
    override = partial(substitute, kind_or_factory)
    overrides.append(override)
    try:
        yield
    finally:
        overrides.remove(override)  # not the last one: blocks in several threads may overlap
