"""What the parts of the contract share: the declarations, and the fixtures that make executors."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, Protocol, TypeVar

import pytest

from ..._executor import PoolExecutor
from ..._factory import make_executor
from .. import _contract_tasks as tasks
from .gate import GateKeeper

T = TypeVar("T")

How = Literal["itself", "adapted"]

_SHARED: Final = pytest.StashKey[Executor]()


class MakePool(Protocol):
    """Makes a pool with `poolkit.make_executor`'s options."""

    def __call__(self, **options: Any) -> PoolExecutor: ...


class Held:
    """Tasks that do not end before the test says so.

    Where tasks run beside the test, a gate holds them. Where they run only when the test waits,
    nothing has to.
    """

    def __init__(self, keeper: GateKeeper | None) -> None:
        self._keeper = keeper
        self.task: Callable[..., Any] = tasks.identity if keeper is None else keeper.gate.hold

    def wait_started(self, count: int) -> None:
        """Wait until so many of them run, where they can run by themselves."""
        if self._keeper is not None:
            self._keeper.wait_started(count)

    def release(self) -> None:
        """Let them end."""
        if self._keeper is not None:
            self._keeper.open()


class ContractBase:
    """The declarations of `ExecutorContract`, which explains them, and the fixtures."""

    concurrent: ClassVar[bool] = True
    in_caller: ClassVar[bool] = False
    pickles: ClassVar[bool] = False
    limits_tasks: ClassVar[bool | None] = None
    stops_tasks: ClassVar[bool | None] = None
    share: ClassVar[bool] = False
    patience: ClassVar[float] = 30.0
    known_to_differ: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def make_executor(self, **options: Any) -> Executor:
        """Return a new executor with two workers; see `ExecutorContract`."""
        raise NotImplementedError(
            f"{type(self).__name__} has to define make_executor(self, **options), which returns a "
            "new executor with two workers"
        )

    def result(self, future: Future[T]) -> T:
        """Return a future's result; it has to come within the class's patience."""
        return future.result(self._limit)

    def error(self, future: Future[Any]) -> BaseException | None:
        """Return a future's error; it has to come within the class's patience."""
        return future.exception(self._limit)

    @property
    def _limit(self) -> float | None:
        # Where tasks run only when somebody waits, waiting can't be cut short by a clock.
        return self.patience if self.concurrent or self.in_caller else None

    @contextlib.contextmanager
    def _opened_soon(self, gate: GateKeeper) -> Iterator[None]:
        """Open a gate shortly after the block is entered, which has to wait for it.

        The delay decides nothing for an executor that keeps its promise; it only gives one that
        does not the time to be found out.
        """
        timer = threading.Timer(0.05, gate.open)
        timer.start()
        try:
            yield
        finally:
            timer.join()

    @pytest.fixture
    def _made(self) -> Iterator[list[Executor]]:
        """What the test has made, and is shut down after it."""
        made: list[Executor] = []
        yield made
        for executor in reversed(made):
            executor.shutdown(wait=True)

    @pytest.fixture
    def _make_itself(
        self, request: pytest.FixtureRequest, _made: list[Executor]
    ) -> Callable[..., Executor]:
        """Make executors as the author does; or hand out the one that tests share."""

        def make(*, fresh: bool, **options: Any) -> Executor:
            suite: Any = request.node.getparent(pytest.Class)
            if self.share and not fresh and (shared := suite.stash.get(_SHARED, None)) is not None:
                return shared  # type: ignore[no-any-return]
            own = fresh or not self.share
            executor = self.make_executor(**options if own else {})
            if not isinstance(executor, Executor):
                pytest.fail(f"make_executor returned {executor!r:.80}, which is no Executor")
            if own:
                _made.append(executor)
            else:
                suite.stash[_SHARED] = executor
                suite.addfinalizer(executor.shutdown)
            return executor

        return make

    @pytest.fixture
    def make_pool(self, _make_itself: Callable[..., Executor], _made: list[Executor]) -> MakePool:
        """Make new pools: the executor if it is a `PoolExecutor`, or else, the executor adapted."""

        def make(**options: Any) -> PoolExecutor:
            executor = _make_itself(fresh=False, **options)
            if isinstance(executor, PoolExecutor):
                if not self.share:
                    return executor
                made: Any = _make_itself(fresh=True, **options)
                return made  # type: ignore[no-any-return]
            pool = make_executor(executor, **options)
            _made.append(pool)
            return pool

        return make

    @pytest.fixture
    def pool(self, _make_itself: Callable[..., Executor], make_pool: MakePool) -> PoolExecutor:
        """A pool without options, for tests that don't shut it down."""
        executor = _make_itself(fresh=False)
        return executor if isinstance(executor, PoolExecutor) else make_pool()

    @pytest.fixture(params=["itself", "adapted"])
    def _make(
        self,
        request: pytest.FixtureRequest,
        _make_itself: Callable[..., Executor],
        _made: list[Executor],
    ) -> Callable[[bool], Executor]:
        name = request.function.__name__
        how: How = request.param
        if how == "itself" and name in self.known_to_differ:
            pytest.skip(f"known to differ: {self.known_to_differ[name]}")

        def make(fresh: bool) -> Executor:
            if how == "itself":
                return _make_itself(fresh=fresh)
            _made.append(make_executor(_make_itself(fresh=False)))
            return _made[-1]

        return make

    @pytest.fixture
    def executor(self, _make: Callable[[bool], Executor]) -> Executor:
        """The executor as it is made, and once more as `poolkit.make_executor` adapts it."""
        return _make(False)

    @pytest.fixture
    def own_executor(self, _make: Callable[[bool], Executor]) -> Executor:
        """As `executor`, for tests that shut it down."""
        return _make(True)

    @pytest.fixture
    def gate(self, _made: list[Executor]) -> Iterator[GateKeeper]:
        """A gate for tasks that run beside the test.

        It is closed before executors are shut down, as it depends on the list of them.
        """
        if self.in_caller or not self.concurrent:
            pytest.skip("needs tasks that run beside the test (concurrent = True)")
        keeper = GateKeeper(self.patience)
        yield keeper
        keeper.close()

    @pytest.fixture
    def late(self, request: pytest.FixtureRequest) -> Held:
        """Tasks that stay unfinished for as long as the test wants, where that is possible."""
        beside = self.concurrent and not self.in_caller
        return Held(request.getfixturevalue("gate") if beside else None)

    @pytest.fixture
    def held(self, late: Held) -> Held:
        """Tasks that stay unfinished for as long as the test wants."""
        if self.in_caller:
            pytest.skip("no task is ever pending (in_caller = True)")
        return late
