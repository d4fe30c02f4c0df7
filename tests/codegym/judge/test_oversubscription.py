"""Verdicts on a machine with four times as many busy processes as cores: only CPU time decides."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from codegym import AssertionTest, CallTest, StdioTest, Task, Verdict
from codegym.judge.jail import Limits
from codegym.judge.pool import LocalJudge
from codegym.judge.run import Budget, Stopped

LIMIT_S = 0.3
REPEATS = 20
CALLS = Task(
    task_id="calls",
    prompt="",
    entry_point="f",
    tests=tuple(CallTest(args=(n,), expected=2 * n) for n in range(5)),
)
ASSERTIONS = Task(
    task_id="assertions",
    prompt="",
    entry_point="f",
    tests=(AssertionTest(code="for n in range(40):\n    assert f(n) == 2 * n"),),
)
STDIO = Task(
    task_id="stdio", prompt="", entry_point=None, tests=(StdioTest(stdin="3 4\n", stdout="7\n"),) * 3
)
# Its own clock says when 40 % of the limit is used, however fast the machine is.
SPIN = f"import time\nwhile time.process_time() < {0.4 * LIMIT_S}: pass\n"
PROGRAMS = {
    "right": (CALLS, "def f(n):\n    return n + n\n", Verdict.PASSED),
    "wrong": (CALLS, "def f(n):\n    return n\n", Verdict.WRONG_ANSWER),
    "raises at last": (CALLS, "def f(n):\n    return [0, 2, 4, 6][n]\n", Verdict.RUNTIME_ERROR),
    "forty percent of the limit": (CALLS, SPIN + "def f(n):\n    return n + n\n", Verdict.PASSED),
    "forty percent, wrong": (CALLS, SPIN + "def f(n):\n    return n\n", Verdict.WRONG_ANSWER),
    "work in every call": (
        CALLS,
        "def f(n):\n    x = list(range(20_000, 0, -1))\n    return sorted(x)[0] * 2 * n\n",
        Verdict.PASSED,
    ),
    "sleeps": (
        CALLS,
        f"import time\ntime.sleep({0.4 * LIMIT_S})\ndef f(n):\n    return n + n\n",
        Verdict.PASSED,
    ),
    "many calls": (ASSERTIONS, "def f(n):\n    return n + n\n", Verdict.PASSED),
    "many calls after forty percent": (ASSERTIONS, SPIN + "def f(n):\n    return n + n\n", Verdict.PASSED),
    "many calls, wrong at last": (
        ASSERTIONS,
        "def f(n):\n    return n + n if n < 39 else 0\n",
        Verdict.WRONG_ANSWER,
    ),
    "stdio": (STDIO, "a, b = map(int, input().split())\nprint(a + b)\n", Verdict.PASSED),
    "stdio, wrong": (STDIO, "print(8)\n", Verdict.WRONG_ANSWER),
}


@contextmanager
def spinning(count, cores, **options):
    """That many processes that do nothing but use these cores; yields them."""
    program = f"import os\nos.sched_setaffinity(0, {sorted(cores)})\nwhile True: pass"
    command = [sys.executable, "-I", "-S", "-c", program]
    processes = [subprocess.Popen(command, **options) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_no_honest_program_flips_on_an_oversubscribed_machine():
    jobs = [
        (task, f"{source}# {repeat}\n") for repeat in range(REPEATS) for task, source, _ in PROGRAMS.values()
    ]
    cores = os.sched_getaffinity(0)
    # In sessions of their own, as programs are: some kernels give each session the same share of a core.
    with LocalJudge(time_limit_s=LIMIT_S, cache=False) as judge:
        with spinning(4 * len(cores), cores, start_new_session=True):
            judgements = judge.judge(jobs)
        restarts = judge.statistics.restarts
    expected = [verdict for _ in range(REPEATS) for _, _, verdict in PROGRAMS.values()]
    flips = [
        (list(PROGRAMS)[number % len(PROGRAMS)], judgement)
        for number, (judgement, verdict) in enumerate(zip(judgements, expected, strict=True))
        if judgement.verdict is not verdict
    ]
    assert flips == []
    assert restarts == 0


def wait_for(pid, seconds):
    """Let a budget believe that it waits for a process for so long, in slices."""
    budget = Budget(Limits(cpu_s=LIMIT_S, memory_bytes=2**30, output_bytes=2**20))
    budget.begin(pid)
    for _ in range(int(seconds / 0.02)):
        budget.spend(0.02)


def test_a_process_that_sleeps_is_idle_until_the_limit():
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        time.sleep(0.1)
        wait_for(sleeper.pid, LIMIT_S)
        with pytest.raises(Stopped, match="idle"):
            wait_for(sleeper.pid, 4 * LIMIT_S)
        sleeper.kill()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this test itself needs a core")
def test_a_process_that_waits_for_a_core_is_not_idle():
    core = min(os.sched_getaffinity(0))
    with spinning(3, {core}), spinning(1, {core}) as [starved]:
        # Less than a thousandth of the core, in slices that are seconds apart.
        os.sched_setscheduler(starved.pid, os.SCHED_IDLE, os.sched_param(0))
        time.sleep(0.5)
        wait_for(starved.pid, 4 * LIMIT_S)
