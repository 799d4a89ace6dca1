"""`ExecutorContract`: all parts of the contract in one class, to be subclassed by authors."""

from concurrent.futures import Executor
from typing import Any

from ..._public import public_in_testing as public
from .bounds import BoundsContract
from .claims import ClaimsContract
from .events import EventsContract
from .failures import FailuresContract
from .groups import GroupsContract
from .mapping import MapContract
from .retries import RetriesContract
from .shutdown import ShutdownContract
from .submitting import SubmitContract
from .verbs import VerbsContract


@public
class ExecutorContract(
    ClaimsContract,
    SubmitContract,
    MapContract,
    ShutdownContract,
    BoundsContract,
    VerbsContract,
    FailuresContract,
    GroupsContract,
    RetriesContract,
    EventsContract,
):
    """The tests that every kind of executor passes, for authors of executors; run by pytest.

    Subclass it in a test module, under a name that pytest collects, say how to make the executor,
    and declare what it can do::

        from concurrent.futures import ThreadPoolExecutor

        from poolkit.testing import ExecutorContract


        class TestThreadPoolExecutor(ExecutorContract):
            def make_executor(self, **options):
                return ThreadPoolExecutor(2)

    There are two contracts. The standard library's (``submit``, futures, ``map``, ``shutdown``,
    the ``with`` block) is checked twice: on the executor *itself*, and on what
    `poolkit.make_executor` makes of it, *adapted*. poolkit's own (bounds, views, the verbs, task
    groups, retries, observers, time limits) is checked on the executor itself if it is a
    `poolkit.PoolExecutor`, and else on the adapted one.

    What an executor is declared not to do has to be refused clearly wherever somebody can ask for
    it; tests of what can't even be tried are skipped, with the reason. No test sleeps, and none
    waits longer than `patience` for a future; an executor that can hang in other ways should be
    tested under pytest-timeout.

    The tasks of the suite are importable functions, and some need to reach the test over a socket
    of this machine's loopback device; the worker processes have to be able to import poolkit, but
    not pytest.

    A test that does not hold for an executor can be overridden: ``test_name = None`` removes it.

    Attributes:
        concurrent: Whether tasks run beside the test, two at once. Where it is False, and
            `in_caller` too, tasks run only when the test waits for them by ``result()`` or
            ``exception()`` of a future, `poolkit.wait` or `poolkit.as_completed`, an iteration,
            or the end of the executor. True by default.
        in_caller: Whether a task runs inside ``submit``, in the caller's thread. False by default;
            if it is True, `concurrent` has to be False.
        pickles: Whether functions, arguments and results are pickled, as between processes. False
            by default.
        limits_tasks: Whether ``task_timeout`` is kept, and `stops_tasks`: whether a running task
            can be aborted. By default None: as the `poolkit.PoolExecutor.capabilities` say, to
            which the executor is held in any case.
        stops_tasks: See `limits_tasks`.
        share: Whether one executor, made without options, serves all tests of the class that
            don't shut it down; for those whose workers take long to start. False by default: each
            test gets a new one, and can't suffer from an earlier one.
        patience: Seconds that a test waits for what has to happen, before it fails; 30 by default.
        known_to_differ: Names of tests which the executor itself does not pass, and why. They are
            skipped for it, and checked on the adapted one only.
    """

    # Shows as what users import, in their tests' reports and in documents.
    __module__ = "poolkit.testing"

    def make_executor(self, **options: Any) -> Executor:
        """Return a new executor with two workers; the suite shuts it down.

        Args:
            **options: Some of `poolkit.make_executor`'s: ``max_pending``, ``when_full``,
                ``task_timeout``, ``retry`` and ``observers``, as a test needs them. Hand them on
                if the executor is a `poolkit.PoolExecutor`; if not, ignore them, and the suite
                gives them to the adapted one.
        """
        return super().make_executor(**options)
