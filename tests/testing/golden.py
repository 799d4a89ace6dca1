"""Prints the orders of some simulations; ``golden.txt`` holds what they have to be.

python -m tests.testing.golden > tests/testing/golden.txt
"""

import random
from collections.abc import Callable
from functools import partial

from poolkit import Retry, TaskGroup, as_completed, current_task, map_ordered, map_unordered
from poolkit.testing import SimulatedExecutor, checkpoint, sleep

log: list[str] = []


def step(name: object) -> None:
    log.append(str(name))


def busy(name: str) -> str:
    """Take some steps, with others in between."""
    step(f"{name}1")
    checkpoint()
    step(f"{name}2")
    sleep(random.Random(name).random())
    step(f"{name}3")
    return name


def lines(name: str) -> str:
    step(f"{name}a")
    step(f"{name}b")
    step(f"{name}c")
    return name


def fail_twice(failures: list[int]) -> int:
    step(f"attempt {current_task().attempt}")
    failures.append(1)
    if len(failures) < 3:
        raise OSError
    return len(failures)


def steps(seed: int) -> None:
    with SimulatedExecutor(seed, 3) as pool:
        futures = [pool.submit(busy, name) for name in "ABCDE"]
        for future in futures:
            future.add_done_callback(lambda future: step(f"-> {future.result()}"))
        for completed in as_completed(futures):
            step(f"got {completed.result()}")


def verbs(seed: int) -> None:
    with SimulatedExecutor(seed, 3, durations=(1, 9)) as pool:
        for name in map_unordered(pool, busy, "FGHI"):
            step(f"got {name}")
        for name in map_ordered(pool, busy, "JKLM", chunksize=2):
            step(f"got {name}")
        step(round(pool.elapsed, 6))


def preempted(seed: int) -> None:
    with SimulatedExecutor(seed, preempt="lines") as pool, TaskGroup(pool) as group:
        for name in "NOP":
            group.submit(lines, name)


def limits(seed: int) -> None:
    with SimulatedExecutor(seed, 2, task_timeout=5, retry=Retry(wait=60, jitter=False)) as pool:
        futures = [pool.submit(sleep, seconds) for seconds in (3, 7, 5, 4)]
        flaky = pool.submit(fail_twice, [])
        cancelled = [pool.submit(busy, name) for name in "QRS"]
        for future in cancelled:
            future.add_done_callback(lambda future: step(f"cancelled {future.cancelled()}"))
        step(flaky.result())
        pool.shutdown(cancel_futures=True)
        step(["c" if f.cancelled() else type(f.exception()).__name__ for f in futures])


def run(program: Callable[[int], None], seed: int) -> str:
    log.clear()
    program(seed)
    return f"{program.__name__} {seed}: {' '.join(log)}"


if __name__ == "__main__":
    for program in (steps, verbs, preempted, limits):
        print(*map(partial(run, program), range(4)), sep="\n")
