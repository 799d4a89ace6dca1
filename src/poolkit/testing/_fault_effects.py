"""What each fault of a `FaultPlan` is, kind by kind: what is real, and what is imitated.

===================  =====================  ======================  =============================
fault                process                thread                  inline, other executors
===================  =====================  ======================  =============================
fail                 raised in the worker   raised in the worker    raised where the task runs
time_out, and there  the call hangs, the    the call hangs until    `TaskTimeoutError` at once
is a task_timeout    pool kills the worker  its time is over
time_out, without    `TaskTimeoutError` at  the same                the same
                     once
crash                the worker kills       `WorkerCrashedError`    `WorkerCrashedError` for that
                     itself (SIGKILL)       for that task           task
delay                real                   real                    real
unpicklable_result   the result refuses     the call is made, then  as on threads; a process pool
                     to be pickled          the error of processes  of the standard library: real
shut_down            the pool that `around` has made is shut down, by its own `shutdown`
===================  =====================  ======================  =============================

Executors on virtual time, simulated and manual ones, do as threads do; a delay and a hang let
that time pass. A delay and a hang on threads are cut short where a task that looks at
`current_task` would be.
"""

import os

from .._backend import Backend, Batch
from .._errors import RemoteTaskError, TaskTimeoutError, WorkerCrashedError
from ..backends._serialization import dump_error, load_error
from ._fault_calls import SIGKILL, Delay, Die, Fault, Hang, Raise, SpoilResult
from ._fault_rules import Rule


def make_fault(rule: Rule, batch: Batch, number: int, behind: Backend) -> Fault:
    """Return what is to befall an item of a batch, in the pool behind."""
    can, limit = behind.capabilities, batch.options.task_timeout
    killed = can.stops == "killed"
    match rule.what:
        case "delay":
            return Delay(rule.seconds)
        case "unpicklable_result":
            return SpoilResult(can.serializes)
        case "crash" if killed:
            return Die(os.getpid())
        case "crash":
            return Raise(WorkerCrashedError(batch.describe(number), os.getpid(), -SIGKILL))
        case "time_out":
            late = TaskTimeoutError(batch.describe(number), limit or 0.0)
            ends = can.deadlines in ("hard", "soft") or behind.hosted
            return Hang(None if killed else late) if ends and limit is not None else Raise(late)
        case _:
            error = rule.error() if isinstance(rule.error, type) else rule.error
            assert error is not None
            return Raise(_as_it_arrives(error) if can.serializes else error)


def _as_it_arrives(error: BaseException) -> BaseException:
    """Return what a task's error would be once it has travelled: what can't, is replaced."""
    arrived = load_error(dump_error(error))
    return arrived if isinstance(arrived, RemoteTaskError) else error
