"""Random faults among random tasks: each future is settled once, and no innocent fails.

``POOLKIT_SOAK_SECONDS=60`` makes it last longer than the few seconds of a usual run.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path
from typing import Any, Final

import pytest

from poolkit import (
    PoolExecutor,
    TaskAbortedError,
    TaskFuture,
    TaskTimeoutError,
    WorkerCrashedError,
    map_ordered,
    map_outcomes,
    map_unordered,
)

from ..tasks import square
from . import tasks
from .helpers import MakePool, counted

SECONDS: Final = float(os.environ.get("POOLKIT_SOAK_SECONDS", "4"))
QUICK: Final[Sequence[Callable[[int], Any]]] = (square, str)
LIMIT: Final = 0.3
"""The time limit of those that hang, in seconds."""
PATIENT: Final = 120.0

pytestmark = pytest.mark.timeout(SECONDS + PATIENT + 60)


class Book:
    """What was submitted, and how it ended; each thread has its own."""

    def __init__(self) -> None:
        self.settled: Counter[int] = Counter()
        self.innocent: list[tuple[Future[Any], Any]] = []  # with what they have to return
        self.noted: dict[int, Future[Any]] = {}  # those that note in a file that they run
        self.guilty: list[tuple[Future[Any], tuple[type[BaseException], ...]]] = []
        self.futures: list[Future[Any]] = []

    def enter(self, future: Future[Any]) -> None:
        number = len(self.futures)
        self.futures.append(future)
        future.add_done_callback(lambda _: self.settled.update([number]))


def do_something(pool: PoolExecutor, book: Book, dice: random.Random, runs: Path) -> None:
    """Take one random step."""

    def submit(fn: Callable[..., Any], *args: Any, limit: float | None = None) -> TaskFuture[Any]:
        view = pool if limit is None else pool.with_options(task_timeout=limit)
        future = view.submit(fn, *args)
        book.enter(future)
        return future

    choice = dice.random()
    if choice < 0.05:
        code = dice.choice([0, 3])
        book.guilty.append((submit(tasks.exit_now, code), (WorkerCrashedError,)))
    elif choice < 0.08:
        book.guilty.append((submit(tasks.hang, limit=LIMIT), (TaskTimeoutError,)))
    elif choice < 0.11:
        task = submit(tasks.hang, limit=30 * LIMIT)
        task.abort()
        book.guilty.append((task, (TaskAbortedError, CancelledError)))
    elif choice < 0.14:
        size = dice.randrange(1 << 21)
        book.innocent.append((submit(len, bytes(size)), size))
    elif choice < 0.2:
        numbers = range(1, dice.randrange(30))
        fatal = dice.randrange(20, 60)
        outcomes = map_outcomes(
            pool,
            tasks.die_at,
            [runs] * len(numbers),
            [fatal] * len(numbers),
            numbers,
            chunksize=dice.choice([1, 7, 40]),
        )
        for outcome in outcomes:
            guilty = outcome.args[2] % fatal == 0
            assert isinstance(outcome.error, WorkerCrashedError) == guilty, outcome
    elif choice < 0.3:
        numbers, fn = range(dice.randrange(200)), dice.choice(QUICK)
        verb = dice.choice([map_ordered, map_unordered])
        sizes: list[Any] = [1, 7, "auto"]
        found = list(verb(pool, fn, numbers, chunksize=dice.choice(sizes)))
        assert Counter(found) == Counter(map(fn, numbers))
    elif choice < 0.6:  # so quick that those that wait go together
        for _ in range(dice.randrange(40)):
            fn, number = dice.choice(QUICK), dice.randrange(1 << 40)
            future = submit(fn, number, limit=dice.choice([None, None, PATIENT]))
            book.innocent.append((future, fn(number)))
            if dice.random() < 0.1:
                future.cancel()
    else:
        number = dice.randrange(1 << 40)
        book.noted[number] = future = submit(tasks.note, runs, number)
        book.innocent.append((future, number))
        if choice < 0.64:
            future.cancel()


@pytest.mark.usefixtures("either_way")
def test_random_faults_among_random_tasks(make_pool: MakePool, runs: Path) -> None:
    pool = make_pool(2, kill_grace=0.1)
    until = time.monotonic() + SECONDS
    books = [Book() for _ in range(3)]
    failures: list[BaseException] = []

    def work(book: Book, seed: int) -> None:
        dice = random.Random(seed)
        try:
            while time.monotonic() < until:
                do_something(pool, book, dice, runs)
                if len(book.futures) % 50 == 0:
                    wait(book.futures[-20:], timeout=PATIENT)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(book, n)) for n, book in enumerate(books)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    for book in books:
        assert not wait(book.futures, timeout=PATIENT).not_done
    pool.shutdown()
    ran = counted(runs)
    for book in books:
        assert set(book.settled.values()) <= {1}
        assert len(book.settled) == len(book.futures)
        for future, errors in book.guilty:
            error = CancelledError() if future.cancelled() else future.exception()
            assert isinstance(error, errors), error
        for future, value in book.innocent:
            assert future.cancelled() or future.result() == value
        for number, future in book.noted.items():
            assert ran[number] == (not future.cancelled())
    total = sum(len(book.futures) for book in books)
    print(f"\n{total} futures in {SECONDS:g} s, {sum(len(b.guilty) for b in books)} of them guilty")
