"""The tests of CPython's that don't run on poolkit, each with what forbids it."""

from collections.abc import Mapping
from typing import Final, NamedTuple

BROKEN: Final = "demands a broken pool"
LATE: Final = "demands that `submit` takes what can't be pickled"
EARLY: Final = "demands that a task counts as running before a worker is there to run it"
INNER: Final = "runs a test that is left out"

_PROOFS: Final = {
    BROKEN: "BrokenProcessPool",
    LATE: "PicklingError",
    EARLY: "assertGreater(len(others), 0)",
    INNER: "FailingInitializerTest",
}


class LeftOut(NamedTuple):
    """A test that is left out.

    Attributes:
        because: The private attribute that it touches, or one of the reasons above.
        instead: Our own test of what it is about, in `test_adapted`.
        since: The Python from which on it must be there. Earlier ones may have it, too.
    """

    because: str
    instead: str | None = None
    since: tuple[int, int] = (3, 13)

    @property
    def why(self) -> str:
        """What forbids it, as what the test does."""
        return self.because if self.because in _PROOFS else f"touches {self.because}"

    @property
    def proof(self) -> str:
        """What the test's source holds if that is so."""
        return _PROOFS.get(self.because, self.because)


PY14: Final = (3, 14)
PY15: Final = (3, 15)  # some that newer 3.13 and 3.14 have, and older ones have not

TABLE: Final[Mapping[str, Mapping[str, Mapping[str, LeftOut]]]] = {
    "thread": {
        "test_as_completed": {},
        "test_future": {},
        "test_init": {
            "FailingInitializerMixin.test_initializer": LeftOut("executor._broken"),
        },
        "test_shutdown": {
            "ThreadPoolShutdownTest.test_context_manager_shutdown": LeftOut("executor._threads"),
            "ThreadPoolShutdownTest.test_del_shutdown": LeftOut("executor._threads"),
            "ThreadPoolShutdownTest.test_shutdown_no_wait": LeftOut("executor._threads"),
            "ThreadPoolShutdownTest.test_thread_names_assigned": LeftOut("executor._threads"),
            "ThreadPoolShutdownTest.test_thread_names_default": LeftOut("executor._threads"),
            "ThreadPoolShutdownTest.test_threads_terminate": LeftOut("executor._threads"),
        },
        "test_thread_pool": {
            "ThreadPoolExecutorTest.test_default_workers": LeftOut("executor._max_workers"),
            "ThreadPoolExecutorTest.test_idle_thread_reuse": LeftOut("executor._threads"),
            "ThreadPoolExecutorTest.test_saturation": LeftOut("executor._threads"),
        },
        "test_wait": {},
    },
    "process": {
        "test_as_completed": {},
        "test_deadlock": {
            "ExecutorDeadlockTest.test_error_at_task_pickle": LeftOut(
                LATE, "test_arguments_that_refuse_to_be_pickled"
            ),
            "ExecutorDeadlockTest.test_error_at_task_unpickle": LeftOut(
                BROKEN, "test_one_that_can_not_travel"
            ),
            "ExecutorDeadlockTest.test_error_during_result_unpickle_in_result_handler": LeftOut(
                BROKEN, "test_one_that_can_not_travel"
            ),
            "ExecutorDeadlockTest.test_exit_at_task_unpickle": LeftOut(
                BROKEN, "test_one_that_can_not_travel"
            ),
            "ExecutorDeadlockTest.test_exit_during_result_unpickle_in_result_handler": LeftOut(
                BROKEN, "test_one_that_can_not_travel"
            ),
            "ExecutorDeadlockTest.test_gh105829_should_not_deadlock_if_wakeup_pipe_full": LeftOut(
                "process._ExecutorManagerThread"
            ),
            "ExecutorDeadlockTest.test_shutdown_deadlock_pickle": LeftOut(
                "executor._executor_manager_thread", "test_arguments_that_refuse_to_be_pickled"
            ),
        },
        "test_init": {
            "FailingInitializerMixin.test_initializer": LeftOut(
                "executor._broken", "test_initializer_that_fails"
            ),
            "FailingInitializerResourcesTest.test_forkserver": LeftOut(
                INNER, "test_initializer_that_fails"
            ),
            "FailingInitializerResourcesTest.test_spawn": LeftOut(
                INNER, "test_initializer_that_fails"
            ),
        },
        "test_process_pool": {
            "ProcessPoolExecutorTest.test_broken_process_pool_traceback": LeftOut(
                "executor._processes", "test_each_killed_task_has_an_error_of_its_own", PY15
            ),
            "ProcessPoolExecutorTest.test_failed_worker_replacement_breaks_pool": LeftOut(
                "executor._executor_manager_thread", "test_workers_that_never_get_ready", PY15
            ),
            "ProcessPoolExecutorTest.test_force_shutdown_during_max_tasks_worker_exit": LeftOut(
                "executor._force_shutting_down", "test_forced_end", PY15
            ),
            "ProcessPoolExecutorTest.test_force_shutdown_workers": LeftOut(
                "executor._processes", "test_forced_end", PY14
            ),
            "ProcessPoolExecutorTest.test_force_shutdown_workers_invalid_op": LeftOut(
                "executor._force_shutdown", None, PY14
            ),
            "ProcessPoolExecutorTest.test_force_shutdown_workers_stops_pool": LeftOut(
                "executor._processes", "test_forced_end", PY14
            ),
            "ProcessPoolExecutorTest.test_gc_during_max_tasks_worker_exit_gh152967": LeftOut(
                "executor._executor_manager_thread", "test_workers_are_replaced_to_the_end", PY15
            ),
            "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": LeftOut(
                "executor._processes", "test_workers_start_on_demand"
            ),
            "ProcessPoolExecutorTest.test_idle_process_reuse_one": LeftOut(
                "executor._processes", "test_workers_start_on_demand"
            ),
            "ProcessPoolExecutorTest.test_kill_workers": LeftOut(
                "executor._force_shutdown", "test_forced_end", PY14
            ),
            "ProcessPoolExecutorTest.test_killed_child": LeftOut(
                "executor._processes", "test_each_killed_task_has_an_error_of_its_own"
            ),
            "ProcessPoolExecutorTest.test_max_tasks_per_child": LeftOut(
                "executor._processes", "test_max_tasks_per_child"
            ),
            "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": LeftOut(
                "executor._mp_context"
            ),
            "ProcessPoolExecutorTest.test_python_finalization_error": LeftOut(
                "threading._start_joinable_thread", "test_without_threads"
            ),
            "ProcessPoolExecutorTest.test_saturation": LeftOut(
                "executor._processes", "test_no_more_workers_than_asked_for"
            ),
            "ProcessPoolExecutorTest.test_shutdown_no_wait_max_tasks_gh119592": LeftOut(
                "executor._executor_manager_thread", "test_workers_are_replaced_to_the_end", PY15
            ),
            "ProcessPoolExecutorTest.test_terminate_workers": LeftOut(
                "executor._force_shutdown", "test_forced_end", PY14
            ),
            "ProcessPoolExecutorTest.test_traceback": LeftOut(
                "process._RemoteTraceback", "test_remote_traceback"
            ),
            "ProcessPoolExecutorTest.test_traceback_when_child_process_terminates_abruptly": (
                LeftOut("process._RemoteTraceback", "test_crash_costs_one_task", PY15)
            ),
        },
        "test_shutdown": {
            "ExecutorShutdownTest.test_cancel_futures": LeftOut(EARLY, "test_cancel_futures"),
            "ProcessPoolShutdownTest.test_context_manager_shutdown": LeftOut(
                "e._processes", "test_workers_end"
            ),
            "ProcessPoolShutdownTest.test_del_shutdown": LeftOut(
                "executor._processes", "test_workers_end"
            ),
            "ProcessPoolShutdownTest.test_processes_terminate": LeftOut(
                "executor._processes", "test_workers_end"
            ),
            "ProcessPoolShutdownTest.test_shutdown_gh_132969_case_1": LeftOut(
                "executor._executor_manager_thread", "test_workers_are_replaced_to_the_end", PY14
            ),
            "ProcessPoolShutdownTest.test_shutdown_gh_132969_case_2": LeftOut(
                "executor._executor_manager_thread", "test_workers_are_replaced_to_the_end", PY14
            ),
            "ProcessPoolShutdownTest.test_shutdown_no_wait": LeftOut(
                "executor._processes", "test_workers_end"
            ),
        },
        "test_wait": {},
    },
}
"""For each family of kinds and each module with tests of it: the tests left out. The names are
as CPython's source has them, so that one row stands for all start methods."""
