"""`FaultPlan`: what is to go wrong with which task, in any executor, on record and repeatable."""

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from typing import Any, Self, Unpack

from .._checks import check_seconds
from .._executor import PoolExecutor
from .._factory import make_executor
from .._public import public_in_testing as public
from ._fault_backend import make_faulty
from ._fault_rules import Aim, Rule, What, Whom, make_rule
from ._fault_rules import FaultCall as FaultCall
from ._fault_rules import InjectedFault as InjectedFault


@public
class FaultPlan:
    """What is to go wrong with the tasks of any executor; thread-safe.

    ::

        plan = FaultPlan(seed=7).crash(task=2).fail(OSError("disk full"), rate=0.1)
        with plan.around("process", 2) as pool:
            ...
        plan.injected  # what was done to whom

    Each method adds one line and returns the plan. Exactly one of these says whom it strikes:

    * ``task``: the number of a task, or several. Tasks are numbered from 0 in the order in which
      they are submitted to the pool that `around` makes. Each item of a verb is a task; so is each
      batch of `map_batches`.
    * ``when``: a function of a `FaultCall`, that says whether to strike. Called in the thread that
      submits, or tries again. What it raises, that call raises.
    * ``rate``: how likely each task is to be struck, from 0 to 1. Drawn from the plan's seed, the
      line and the task's number alone, so that the same tasks are struck in each run, in whatever
      order workers run them.

    ``attempts`` says how many attempts at a task are struck, beginning with the first; None for
    all. By default, one: the second attempt of a `Retry` is spared.

    At one attempt all delays apply that hit it, and of all other faults the first line that does.

    All methods that add a line raise `TypeError` for a wrong type of argument, or if not exactly
    one of the three is given, and `ValueError` for a value out of range.

    Args:
        seed: What rates draw from.
    """

    def __init__(self, seed: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed must be an int, not {seed!r:.80}")
        self._seed = seed
        # All changed by single, atomic operations.
        self._lines = itertools.count()
        self._rules: list[Rule] = []
        self._places = itertools.count()
        self._injected: dict[int, InjectedFault] = {}
        """By their places in the record."""

    @property
    def injected(self) -> list[InjectedFault]:
        """What was injected up to now, in the order in which tasks were handed to workers.

        A fault is on record from the moment when its task is handed to the workers, unless it is
        taken back before it starts. The record keeps functions and arguments alive.
        """
        return list(self._injected.values())

    def __repr__(self) -> str:
        lines, injected = len(self._rules), len(self._injected)
        return f"<FaultPlan: seed={self._seed}, lines={lines}, injected={injected}>"

    def fail(self, error: BaseException | type[BaseException], **whom: Unpack[Whom]) -> Self:
        """Have the task raise an error, without calling the function.

        Args:
            error: An exception, of which each task raises a copy; or a class that needs no
                arguments.
            **whom: ``task``, ``when`` or ``rate``, and ``attempts``; see the class.
        """
        if isinstance(error, type) and issubclass(error, BaseException):
            try:
                error()
            except Exception as failure:
                raise TypeError(
                    f"{error.__name__}() raises {type(failure).__name__}: pass fail() an "
                    "exception, not its class, where the class needs arguments"
                ) from failure
        elif not isinstance(error, BaseException):
            raise TypeError(f"fail() takes an exception or its class, not {error!r:.80}")
        return self._add("fail", whom, error=error)

    def time_out(self, **whom: Unpack[Whom]) -> Self:
        """Have the task fail with `TaskTimeoutError`, without calling the function.

        With a ``task_timeout`` the call hangs until the pool ends it, so that takes as long; where
        nobody could end it, and without a limit, it fails at once.

        Args:
            **whom: As for `fail`.
        """
        return self._add("time_out", whom)

    def crash(self, **whom: Unpack[Whom]) -> Self:
        """Have the worker die at the task, without calling the function.

        On processes the worker really kills itself; elsewhere the task fails with the same
        `WorkerCrashedError`, and nothing else happens.

        Args:
            **whom: As for `fail`.
        """
        return self._add("crash", whom)

    def delay(self, seconds: float, **whom: Unpack[Whom]) -> Self:
        """Have the task wait before the call.

        Args:
            seconds: How long; of virtual time, where tasks live in it. The wait is part of the
                run: ``task_timeout`` counts it.
            **whom: As for `fail`.
        """
        pause = check_seconds("seconds", seconds, allow_zero=True)
        if pause is None:
            raise ValueError(f"seconds must be a number of seconds, not {seconds!r:.80}")
        return self._add("delay", whom, seconds=pause)

    def unpicklable_result(self, **whom: Unpack[Whom]) -> Self:
        """Have the task return what can't be sent back: it fails with `TaskSerializationError`.

        The function is called, so its effects are there.

        Args:
            **whom: As for `fail`.
        """
        return self._add("unpicklable_result", whom)

    def shut_down(self, *, cancel_futures: bool = False, **whom: Unpack[Aim]) -> Self:
        """Have the pool shut down under the caller's feet when the task is submitted.

        That submission and all later ones fail with `PoolShutdownError`; a chunk of a verb is
        refused whole. What was submitted before is finished. Only the pool that `around` has made
        is shut down, with its own workers, if it has any.

        Args:
            cancel_futures: Whether what has not started is cancelled.
            **whom: ``task``, ``when`` or ``rate``; see the class.
        """
        return self._add("shut_down", whom, cancel_futures=bool(cancel_futures))

    def _add(self, what: What, whom: Aim, **details: Any) -> Self:
        draw = f"{self._seed}/{next(self._lines)}"
        self._rules.append(make_rule(what, draw, whom, details))
        return self

    def around(
        self, executor: Executor | str, max_workers: int | None = None, **options: Any
    ) -> PoolExecutor:
        """Return a pool on which the plan comes true.

        All verbs, views and groups work on it. Task numbers begin at 0 for each pool.

        Args:
            executor: Any executor, whose workers are used and which is left open: to shut the
                returned pool down waits for the tasks given to it, as for a view. Or a kind's
                name, for a pool with workers of its own.
            max_workers: As for `make_executor`.
            **options: As for `make_executor`.

        Returns:
            The pool. Use it in a ``with`` block, or shut it down.

        Raises:
            TypeError: No executor, or a wrong option.
            ValueError: No such kind, or a value out of range.
            UnsupportedError: The kind can't do what was asked.
        """
        owned = not isinstance(executor, PoolExecutor)
        if isinstance(executor, PoolExecutor) and max_workers is None and not options:
            pool = executor
        else:
            pool = make_executor(executor, max_workers, **options)
        return make_faulty(pool, self, owned=owned)

    # -- for the backend --------------------------------------------------------------------

    def rules_for(self, call: FaultCall) -> list[Rule]:
        """Return what strikes a call: all delays that do, then the first other line that does."""
        delays = [rule for rule in self._rules if rule.what == "delay" and rule.strikes(call)]
        others = (rule for rule in self._rules if rule.what != "delay" and rule.strikes(call))
        return [*delays, *itertools.islice(others, 1)]

    def note(self, call: FaultCall, rules: Iterable[Rule]) -> Sequence[int]:
        """Put on record that a call was struck; return the places in the record."""
        places: list[int] = []
        for rule in rules:
            places.append(place := next(self._places))
            self._injected[place] = InjectedFault(
                call.number, call.attempt, call.fn, call.args, call.kwargs, rule.what
            )
        return places

    def strike_out(self, places: Iterable[int]) -> None:
        """Take off the record what befell nobody."""
        for place in places:
            self._injected.pop(place, None)
