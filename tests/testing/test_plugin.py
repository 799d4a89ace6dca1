"""The pytest plugin, in pytest runs of its own."""

import importlib.util
import pickle
import subprocess
import sys
import threading
import time
import zlib

import pytest

import poolkit
from poolkit.testing._leaks import PoolLeakError, no_pool_leaks

PLUGIN = ("-p", "poolkit.pytest_plugin", "-p", "no:cacheprovider")

HEAD = """
import multiprocessing, subprocess, threading, time
from concurrent.futures import ThreadPoolExecutor
import pytest
import poolkit

gate = threading.Event()

def fail():
    raise KeyError("on purpose")

def nap():
    time.sleep(60)
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Run a test file in a process of its own; return its result."""

    # Loads nothing that happens to be installed, poolkit's own entry point included.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(source: str, *args: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=HEAD + source)
        return pytester.runpytest_subprocess(*PLUGIN, *args, timeout=50)

    return run


def line_of(source: str, mark: str = "# here") -> int:
    lines = (HEAD + source).strip().splitlines()
    (line,) = [number for number, text in enumerate(lines, 1) if text.endswith(mark)]
    return line


# -- being loaded -----------------------------------------------------------------------------


def test_loading_it_imports_nothing_else_of_poolkit():
    code = """if True:
        import sys, poolkit
        before = {name for name in sys.modules if name.startswith("poolkit")}
        import poolkit.pytest_plugin
        after = {name for name in sys.modules if name.startswith("poolkit")}
        assert after - before == {"poolkit.pytest_plugin"}, after - before
        assert "multiprocessing" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("entry_point_first", [True, False])
def test_it_may_be_loaded_twice(pytester: pytest.Pytester, entry_point_first: bool):
    info = pytester.mkdir("poolkit_twin-1.0.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: poolkit-twin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pytest11]\npoolkit = poolkit.pytest_plugin\n")
    pytester.syspathinsert(pytester.path)
    pytester.makepyfile("def test(executor): pass")
    if entry_point_first:
        pytester.makeconftest('pytest_plugins = ["poolkit.pytest_plugin"]')
        result = pytester.runpytest_subprocess("-v")
    else:
        result = pytester.runpytest_subprocess("-v", *PLUGIN)
    result.assert_outcomes(passed=2)


def test_a_test_without_marks_is_left_alone(run):
    result = run(
        """
def test():
    import sys
    poolkit.make_executor("thread").submit(fail)
    assert not hasattr(threading.Thread.start, "__wrapped__")
    assert "poolkit.testing._origins" not in sys.modules
""",
        "--strict-markers",
    )
    result.assert_outcomes(passed=1)


# -- executors --------------------------------------------------------------------------------


def test_executor_is_of_the_kinds_that_the_settings_name(run, pytester: pytest.Pytester):
    source = """
def test_default(executor):
    assert executor.submit(abs, -1).result() == 1

@pytest.mark.pool_kinds("process", "thread", max_workers=1)
def test_marked(executor, request):
    assert executor.max_workers == 1
    assert executor.kind in request.node.name
"""
    result = run(source, "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines_random(
        [f"*test_default?{kind}? PASSED*" for kind in ("inline", "thread")]
        + [f"*test_marked?{kind}? PASSED*" for kind in ("process", "thread")]
    )
    pytester.makeini("[pytest]\npoolkit_kinds = inline")
    run(source, "-k", "default").assert_outcomes(passed=1, deselected=2)


def test_an_unknown_kind_fails_that_test_alone(run):
    result = run("""
@pytest.mark.pool_kinds("thred", "inline")
def test(executor):
    pass

@pytest.mark.pool_kinds("thread", max_worker=1)
def test_option(executor):
    pass
""")
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(["*unknown kind 'thred'*known kinds are*inline*thread*"])
    result.stdout.fnmatch_lines(["*does not know the option 'max_worker'*"])


def test_fixtures_and_parameters_of_that_name_go_first(run, pytester: pytest.Pytester):
    pytester.makeconftest("""
import pytest

@pytest.fixture
def executor():
    return "mine"
""")
    result = run("""
def test_mine(executor):
    assert executor == "mine"

@pytest.mark.parametrize("executor", [1, 2])
def test_parameter(executor):
    assert executor in (1, 2)

class TestFace:
    @pytest.fixture
    def executor(self, executor):
        return executor
    def test(self, executor):
        assert executor == "mine"
""")
    result.assert_outcomes(passed=4)


def test_a_face_of_the_fixture_keeps_its_kinds(run):
    result = run("""
@pytest.fixture
def executor(executor):
    return executor.with_options(max_pending=1)

@pytest.fixture
def client(executor):
    return executor

def test(client):
    assert client.submit(abs, -1).result() == 1
""")
    result.assert_outcomes(passed=2)


def test_a_task_that_hangs_does_not_hang_the_teardown(run):
    result = run("""
import poolkit.pytest_plugin
poolkit.pytest_plugin._PATIENCE = 0.2

@pytest.mark.pool_kinds("thread")
def test(executor):
    executor.submit(gate.wait)

def test_after():
    pass
""")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*went on for*were stopped:*", "*Event.wait(*"])


def test_a_failing_test_tells_its_seed(run):
    source = """
@pytest.mark.parametrize("ok", [False, True])
def test(simulated_executor, ok):
    order = []
    for number in range(4):
        simulated_executor.submit(order.append, number)
    simulated_executor.shutdown()
    print("made with", simulated_executor._seed, "!")
    assert ok
"""
    seed = zlib.crc32(b"test_it.py::test[False]")
    result = run(source)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines_random(
        [f"poolkit seed: {seed}, replay with --poolkit-seed={seed}", f"made with {seed} !"]
    )
    assert result.stdout.str().count("replay with") == 1
    result = run(source, "--poolkit-seed=7")
    result.stdout.fnmatch_lines_random(["poolkit seed: 7, replay with *", "made with 7 !"])


def test_what_a_test_leaves_in_a_double_is_cancelled(run):
    run("""
futures = []

def test_manual(manual_executor):
    futures.append(manual_executor.submit(fail))

def test_simulated(simulated_executor):
    lock = threading.Lock()
    lock.acquire()
    futures.append(simulated_executor.submit(lock.acquire))
    futures.append(simulated_executor.submit(poolkit.current_task))
    futures[-1].result()

def test_after():
    assert futures[0].cancelled()
    assert all(future.done() for future in futures)
    assert type(threading.Lock()).__name__ != "TurnLock"
""").assert_outcomes(passed=3)


# -- leaks ------------------------------------------------------------------------------------

LEAKS = {
    "thread": (
        "threading.Thread(target=gate.wait, name='forgotten', daemon=True).start()",
        "*thread 'forgotten', started at",
    ),
    "thread of a pool": (
        "ThreadPoolExecutor(1).submit(gate.wait); threading.Timer(3, gate.set).start()",
        "*thread 'ThreadPoolExecutor-*', started at",
    ),
    "abandoned thread": (
        "poolkit.map_ordered('thread', gate.wait, [5], task_timeout=0.05, on_error='skip').close()",
        "*thread 'thread-pool-*', started at",
    ),
    "process": (
        "multiprocessing.get_context('spawn').Process(target=nap, daemon=True).start()",
        "*process 'SpawnProcess-*', pid *, started at",
    ),
    "worker process": (
        "kept.append(poolkit.make_executor('process', 1)); kept[0].submit(abs, 1).result()",
        "*process '*', pid *, started at",
    ),
    "open executor": (
        "kept.append(poolkit.make_executor('thread', 1))",
        "*open executor (thread pool *), made at",
    ),
    "dropped executor": (
        "poolkit.make_executor('thread', 1).submit(abs, 1).result()",
        "*open executor (thread pool *), made at",
    ),
    "dropped failure": (
        "pool.submit(fail)",
        "*failure that nobody asked for (KeyError('on purpose')), submitted at",
    ),
    "kept failure": (
        "kept.append(pool.submit(fail))",
        "*failure that nobody asked for (KeyError('on purpose')), submitted at",
    ),
}


def test_a_leak_fails_the_test_and_its_line_is_named(run):
    source = "kept = []\n"
    for number, (leak, _) in enumerate(LEAKS.values()):
        source += f"""
@pytest.mark.no_pool_leaks(grace=0.05)
def test_{number}():
    with poolkit.make_executor("inline") as pool:
        if True:
            {leak}  # here {number}

@pytest.mark.no_pool_leaks(grace=0)
def test_after_{number}():
    pass
"""
    result = run(source)
    result.assert_outcomes(failed=len(LEAKS), passed=len(LEAKS))
    for number, (_, text) in enumerate(LEAKS.values()):
        line = line_of(source, f"# here {number}")
        result.stdout.fnmatch_lines([f"{text} test_it.py:{line} in test_{number}"])


def test_what_is_put_in_order_is_no_leak(run):
    result = run("""
pytestmark = pytest.mark.no_pool_leaks(grace=30)

@pytest.fixture
def make():
    pools = []
    def make(*args, **kwargs):
        pools.append(poolkit.make_executor(*args, **kwargs))
        return pools[-1]
    yield make
    for pool in pools:
        pool.shutdown()

@pytest.mark.parametrize("kind", ["thread", "process", "inline"])
def test_clean(make, kind):
    pool = make(kind)
    view = pool.with_options()
    assert view.submit(abs, -1).result() == 1
    with pytest.raises(TypeError):
        view.submit(abs).result()
    assert list(poolkit.map_unordered(pool, abs, [-1, -2], retry=poolkit.Retry()))

def test_ends_within_the_grace():
    threading.Timer(0.1, gate.set).start()
    pool = poolkit.make_executor("process", 1)
    pool.submit(abs, 1)
    pool.shutdown(wait=False)
    threading.Thread(target=gate.wait).start()

def test_adapted():
    with ThreadPoolExecutor(1) as pool:
        assert list(poolkit.map_ordered(pool, abs, [-1])) == [1]
        poolkit.make_executor(pool).submit(abs, 1).result()
    poolkit.make_executor("inline").submit(abs, 1).result()

def test_retrieved_later():
    with poolkit.make_executor("thread", 1) as pool:
        future = pool.submit(fail)
    assert isinstance(future.exception(), KeyError)
""")
    result.assert_outcomes(passed=6)


def test_what_outlives_the_test_by_right_is_no_leak(run):
    result = run("""
pytestmark = pytest.mark.no_pool_leaks(grace=0)
older = poolkit.make_executor("thread", 4)
older_still = ThreadPoolExecutor(4)
failed = older.submit(fail)

@pytest.fixture(scope="module", params=["thread", "process"])
def shared(request):
    with poolkit.make_executor(request.param, 4) as pool:
        pool.submit(abs, 1).result()
        with ThreadPoolExecutor(4) as other:
            pool.other = other
            yield pool

def work(pool):
    assert [f.result() for f in [pool.submit(abs, -n) for n in range(8)]] == list(range(8))

@pytest.mark.parametrize("which", ["first", "second"])
def test(shared, which):
    work(shared)
    work(shared.other)
    work(older)
    work(older_still)
    shared.with_options(max_pending=8).submit(abs, 1).result()
""")
    result.assert_outcomes(passed=4)


def test_what_is_not_asked_for_does_not_count(run):
    result = run("""
@pytest.mark.no_pool_leaks(executors=False, threads=False, failures=False)
def test():
    global pool
    pool = poolkit.make_executor("thread", 1)
    pool.submit(fail)
""")
    result.assert_outcomes(passed=1)


def test_the_setting_marks_all_tests(run, pytester: pytest.Pytester):
    pytester.makeini("[pytest]\npoolkit_no_leaks = true")
    result = run("""
def test():
    poolkit.make_executor("thread")

@pytest.mark.no_pool_leaks(executors=False)
def test_has_its_own():
    poolkit.make_executor("thread")
""")
    result.assert_outcomes(failed=1, passed=1)


def test_a_failure_of_the_tests_own_is_not_replaced(run):
    source = """
@pytest.mark.no_pool_leaks(grace=0)
def test():
    poolkit.make_executor("thread")  # here
    assert 1 == 2

@pytest.mark.no_pool_leaks(grace=0)
@pytest.mark.xfail
def test_expected():
    assert 1 == 2

@pytest.fixture
def broken():
    yield
    raise OSError("in the teardown")

@pytest.mark.no_pool_leaks(grace=0)
def test_broken(broken):
    pass

@pytest.mark.no_pool_leaks
@pytest.mark.skip
def test_skipped():
    pass
"""
    result = run(source)
    # Of a test that is checked, the outcome counts that comes last.
    result.assert_outcomes(failed=1, xfailed=1, errors=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*assert 1 == 2",
            "*pool leaks*",
            f"*open executor (thread pool 1), made at test_it.py:{line_of(source)} in test",
        ]
    )


def test_wrapped_functions_are_put_back(run):
    result = run("""
start = threading.Thread.start

@pytest.mark.no_pool_leaks
def test_wrapped():
    assert threading.Thread.start is not start

def test_after():
    assert threading.Thread.start is start

@pytest.mark.no_pool_leaks
def test_exit():
    pytest.exit("over")
""")
    result.stdout.fnmatch_lines(["*over*"])
    result.assert_outcomes(passed=2)


def test_a_block_can_be_checked():
    start = threading.Thread.start
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, daemon=True)

    def leave_a_thread():
        with no_pool_leaks(grace=0), no_pool_leaks(threads=False, grace=0):
            thread.start()

    with pytest.raises(PoolLeakError, match=r", started at .*test_plugin\.py:\d+ in") as raised:
        leave_a_thread()
    (leak,) = raised.value.leaks
    assert thread.name in leak.what
    copied = pickle.loads(pickle.dumps(raised.value))
    assert copied.leaks == raised.value.leaks
    assert str(copied) == str(raised.value)
    stop.set()
    thread.join()
    assert threading.Thread.start is start


def test_a_block_that_raises_has_its_leaks_noted():
    def fail():
        with no_pool_leaks(grace=0):
            poolkit.make_executor("thread").shutdown()
            poolkit.make_executor("thread")
            raise KeyError

    with pytest.raises(KeyError) as raised:
        fail()
    (note,) = raised.value.__notes__
    assert note.count("open executor") == 1


def test_a_block_checks_its_arguments_at_the_call():
    with pytest.raises(TypeError):
        no_pool_leaks(grace="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        no_pool_leaks(thread=False)  # type: ignore[call-arg]


# -- the watchdog -----------------------------------------------------------------------------

HUNG = """
@pytest.mark.pool_watchdog(0.3)
def test_hangs():
    with poolkit.make_executor("thread", 2, max_pending=9) as pool:
        def outer():
            return pool.submit(inner).result()
        def inner():
            gate.wait()
        first = pool.submit(outer)
        for _ in range(2):
            pool.submit(inner)
        first.result()

@pytest.mark.no_pool_leaks
def test_after():
    import signal
    assert signal.getsignal(signal.SIGURG) in (signal.SIG_DFL, signal.SIG_IGN)
"""


def test_the_watchdog_fails_a_test_that_hangs(run):
    start = time.monotonic()
    result = run(HUNG)
    assert time.monotonic() - start < 40
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "*has not ended within 0.3 s (pool_watchdog)",
            "pools:",
            "*thread pool 1: *running*",
            "*outer() runs for * in thread-pool-1_0, which waits for *inner(), which runs in *",
            "threads that wait for futures:",
            "*MainThread waits for the future of *outer(), which runs in thread pool 1",
            "stacks*",
            "*thread MainThread*",
            "*in test_hangs",
            "*first.result()",
        ]
    )


def test_the_watchdog_ends_waits_of_all_sorts(run):
    result = run(
        """
pytestmark = pytest.mark.pool_watchdog(timeout=0.2)

def test_lock():
    try:
        gate.wait()
    except Exception:
        pass

def test_sleep():
    time.sleep(60)

def test_loop():
    while True:
        pass

def test_swallows():
    with pytest.raises(BaseException):
        gate.wait()

def test_twice(monkeypatch):
    from poolkit.testing import _watchdog
    monkeypatch.setattr(_watchdog, "_NEXT_ROUND", 0.1)
    try:
        gate.wait()
    finally:
        gate.wait()

def test_process():
    with poolkit.make_executor("process", 1) as pool:
        pool.submit(time.sleep, 60).result()

def test_map():
    list(poolkit.map_ordered("process", time.sleep, [60]))

def test_quick():
    with poolkit.make_executor("process", 1) as pool:
        pool.submit(abs, 1).result()
"""
    )
    result.assert_outcomes(failed=7, passed=1)
    result.stdout.fnmatch_lines(["*MainThread waits for results of a map of sleep"])


def test_the_watchdog_leaves_alarms_to_others(run):
    if importlib.util.find_spec("pytest_timeout") is None:
        pytest.skip("pytest-timeout is not installed")
    result = run(
        """
@pytest.mark.pool_watchdog(30)
@pytest.mark.timeout(1)
def test_alarm():
    gate.wait()

@pytest.mark.pool_watchdog(0.2)
@pytest.mark.timeout(30)
def test_dog():
    gate.wait()
""",
        "-p",
        "pytest_timeout",
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*Timeout*1*s*", "*has not ended within 0.2 s*"])


def test_without_signals_the_dump_is_printed(run):
    result = run(
        """
from poolkit.testing import _watchdog

@pytest.fixture(autouse=True)
def no_signals(monkeypatch):
    monkeypatch.setattr(_watchdog, "_free_signal", lambda: None)
    monkeypatch.setattr(_watchdog, "_PATIENCE", 0.1)

@pytest.mark.pool_watchdog(0.2)
def test():
    with poolkit.make_executor("thread", 1) as pool:
        pool.submit(gate.wait).result()

def test_after():
    pass
"""
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*can't be interrupted by a signal here*"])


# -- markers that make no sense ---------------------------------------------------------------


LEAKS_TAKES = "threads, processes, executors, failures, grace"
WATCHDOG_TAKES = "seconds, timeout"
REFUSED = {
    "no_pool_leaks(thread=False)": LEAKS_TAKES,
    "no_pool_leaks(1)": LEAKS_TAKES,
    "no_pool_leaks(threads=1)": LEAKS_TAKES,
    "no_pool_leaks(grace='1')": LEAKS_TAKES,
    "no_pool_leaks(grace=-1)": LEAKS_TAKES,
    "no_pool_leaks(grace=None)": LEAKS_TAKES,
    "pool_watchdog(secs=3)": WATCHDOG_TAKES,
    "pool_watchdog('3')": WATCHDOG_TAKES,
    "pool_watchdog(None)": WATCHDOG_TAKES,
    "pool_watchdog(0)": WATCHDOG_TAKES,
    "pool_watchdog(3, timeout=3)": WATCHDOG_TAKES,
}


def test_arguments_that_make_no_sense_fail_their_test(run):
    tests = [
        f"@pytest.mark.{marker}\ndef test_{number}():\n    pass\n"
        for number, marker in enumerate(REFUSED)
    ]
    result = run("\n".join(tests) + "def test_after():\n    pass\n")
    result.assert_outcomes(errors=len(REFUSED), passed=1)
    result.stdout.fnmatch_lines(
        [
            f"marker {marker.partition('(')[0]}: *; its arguments are {known}"
            for marker, known in REFUSED.items()
        ]
    )


# -- elsewhere --------------------------------------------------------------------------------


def test_under_xdist(run):
    pytest.importorskip("xdist")
    result = run(
        HUNG
        + """
@pytest.mark.no_pool_leaks(grace=0)
def test_leaks():
    poolkit.make_executor("thread")

@pytest.mark.no_pool_leaks(grace=0)
def test_fails():
    poolkit.make_executor("thread")
    assert 1 == 2

def test_executor(executor):
    assert executor.submit(abs, -1).result() == 1
""",
        "-p",
        "xdist",
        "-n",
        "2",
    )
    result.assert_outcomes(failed=3, passed=3)
    result.stdout.fnmatch_lines_random(
        ["*has not ended within 0.3 s*", "*pool leaks: left behind:*", "*assert 1 == 2*"]
    )
