# ruff: noqa: E501 - programs are easier to read on few lines
"""Verdicts on honest programs: the contract of a judge, test by test."""

import pytest

from codegym import AssertionTest, CallTest, StdioTest, Task, TaskError, Verdict
from codegym.judge.pool import LocalJudge


@pytest.fixture(scope="module")
def judge():
    with LocalJudge(workers=1, time_limit_s=0.5, memory_limit_mb=256) as judge:
        yield judge


def calls(*pairs, entry="f"):
    tests = tuple(CallTest(args=args, expected=expected) for args, expected in pairs)
    return Task(task_id="calls", prompt="", entry_point=entry, tests=tests)


def stdio(*pairs):
    tests = tuple(StdioTest(stdin=given, stdout=expected) for given, expected in pairs)
    return Task(task_id="stdio", prompt="", entry_point=None, tests=tests)


def asserts(*codes, prompt=""):
    tests = tuple(AssertionTest(code=code) for code in codes)
    return Task(task_id="asserts", prompt=prompt, entry_point="f", tests=tests)


ABSOLUTE = calls(((1,), 1), ((-1,), 1), ((0,), 0))


@pytest.mark.parametrize(
    ("program", "verdict", "results", "line"),
    [
        ("def f(x):\n    return abs(x)\n", Verdict.PASSED, (True, True, True), None),
        ("def f(x):\n    return x\n", Verdict.WRONG_ANSWER, (True, False, True), None),
        ("def f(x):\n    return -x\n", Verdict.WRONG_ANSWER, (False, True, True), None),
        ("def f(x):\n    if x < 0:\n        raise KeyError(x)\n    return x\n", Verdict.RUNTIME_ERROR, (True, False, True), 3),
        ("def f(x):\n    return 7 if x else 1 / 0\n", Verdict.WRONG_ANSWER, (False, False, False), None),
        ("def f(x):\n    return x +\n", Verdict.SYNTAX_ERROR, (False,) * 3, 2),
        ("def f(x):\n  return x\n    return\n", Verdict.SYNTAX_ERROR, (False,) * 3, 3),
        ("import nothing_like_this\n", Verdict.RUNTIME_ERROR, (False,) * 3, 1),
        ("def g(x):\n    return abs(x)\n", Verdict.RUNTIME_ERROR, (False,) * 3, None),
        ("f = 3\n", Verdict.RUNTIME_ERROR, (False,) * 3, None),
        ("", Verdict.RUNTIME_ERROR, (False,) * 3, None),
        ("def f(x):\n    while x < 0:\n        pass\n    return x\n", Verdict.TIME_LIMIT, (True, False, False), None),
        ("def f(x):\n    return bytearray(10**9) if x < 0 else x\n", Verdict.MEMORY_LIMIT, (True, False, True), 2),
        ("def f(x):\n    return [0] * 10**7 if x < 0 else x\n", Verdict.OUTPUT_LIMIT, (True, False, True), None),
        ("def f(x):\n    return f(x)\n", Verdict.RUNTIME_ERROR, (False,) * 3, 2),
        ("def f(x):\n    return f\n", Verdict.WRONG_ANSWER, (False,) * 3, None),
    ],
)  # fmt: skip
def test_verdict_results_and_line_of_call_tests(judge, program, verdict, results, line):
    judgement = judge.judge([(ABSOLUTE, program)])[0]
    assert (judgement.verdict, judgement.results, judgement.error_line) == (verdict, results, line), judgement


def test_the_line_is_the_innermost_one_inside_the_module(judge):
    program = "import json\ndef g(text):\n    return json.loads(text)\n\ndef f(x):\n    return g('{')\n"
    judgement = judge.judge([(ABSOLUTE, program)])[0]
    assert (judgement.verdict, judgement.error_line) == (Verdict.RUNTIME_ERROR, 3)
    assert judgement.message.startswith("JSONDecodeError")


@pytest.mark.parametrize(
    ("expected", "source"),
    [
        (True, "1"),
        (1, "True"),
        (1, "1.0"),
        ([1, 2], "(1, 2)"),
        ((1, 2), "[1, 2]"),
        ({1}, "[1]"),
        ("1", "1"),
        (None, "False"),
        (0.3, "0.1 + 0.2"),
        ({"a": 1}, "{'a': True}"),
    ],
)
def test_a_value_of_another_type_is_a_wrong_answer(judge, expected, source):
    task = calls(((), expected))
    wrong, right = judge.judge([(task, f"def f(): return {source}"), (task, f"def f(): return {expected!r}")])
    assert (wrong.verdict, right.verdict) == (Verdict.WRONG_ANSWER, Verdict.PASSED)


@pytest.mark.parametrize(
    ("expected", "source"),
    [
        (float("nan"), "float('nan')"),
        ([float("nan")], "[float('inf') - float('inf')]"),
        (0.0, "-0.0"),
        ({"a": 1, "b": [2]}, "dict(b=[2], a=1)"),
        ({1, (2, 3)}, "{(2, 3), 1}"),
        (10**4000, "10**4000"),
        ({"a": 2}, "__import__('collections').Counter('aa')"),
        ("\ud800é\n\0", "'\\ud800é\\n\\0'"),
        (b"\xff", "b'\\xff'"),
        (None, "None"),
    ],
)
def test_equal_values_pass(judge, expected, source):
    assert judge.judge([(calls(((), expected)), f"def f(): return {source}")])[0].passed


def test_arguments_arrive_as_they_are(judge):
    arguments = ([1, (2, {3})], {"k": b"x"}, None, 1.5, "é", range(3), 2**80, frozenset({1}))
    task = calls((arguments, repr(arguments)))
    assert judge.judge([(task, "def f(*args):\n    return repr(args)\n")])[0].passed


def test_each_call_gets_fresh_arguments_but_the_module_keeps_its_state(judge):
    task = calls((([1],), [1, 1]), (([1],), [1, 2]))
    program = "n = 0\ndef f(x):\n    global n\n    n += 1\n    x.append(n)\n    return x\n"
    assert judge.judge([(task, program)])[0].passed


def test_everything_printed_is_ignored_by_call_tests(judge):
    assert judge.judge([(ABSOLUTE, "print('x' * 10**6)\ndef f(x):\n    print(x)\n    return abs(x)\n")])[
        0
    ].passed


def test_the_module_is_not_the_main_one_for_call_tests(judge):
    program = "def f(x):\n    return abs(x)\nif __name__ == '__main__':\n    raise SystemExit\n"
    assert judge.judge([(ABSOLUTE, program)])[0].passed


@pytest.mark.parametrize(
    "program",
    [
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: 'int'\ndef f(x): return abs(P(x).x)",
        "import sqlite3, ssl, decimal, xml.etree.ElementTree, unittest, zoneinfo, multiprocessing\nf = abs",
        "import tempfile\ndef f(x):\n    with tempfile.TemporaryFile() as t:\n        t.write(b'%d' % abs(x))\n"
        "        t.seek(0)\n        return int(t.read())",
        "import os\ndef f(x):\n    open('a', 'w').write(str(abs(x)))\n    return int(open('a').read())",
        "import asyncio\nasync def g(x):\n    await asyncio.sleep(0)\n    return abs(x)\ndef f(x): return asyncio.run(g(x))",
        "import functools\n@functools.cache\ndef f(x): return abs(x)",
        "import sys\nsys.setrecursionlimit(20000)\ndef r(n): return n and 1 + r(n - 1)\ndef f(x): return abs(x) + r(9000) - 9000",
        "from typing import *\nimport re, math, heapq\ndef f(x: Optional[int]) -> int:\n    return int(math.fabs(x))",
        "class S:\n    def __call__(self, x): return abs(x)\nf = S()",
        "f = lambda x: abs(x)  # \u2200 \U0001f600",
        "import random, time\ndef f(x):\n    random.random(), time.time(), time.localtime()\n    return abs(x)",
    ],
)
def test_honest_programs_pass(judge, program):
    judgement = judge.judge([(ABSOLUTE, program)])[0]
    assert judgement.passed, judgement


def test_random_numbers_and_hashes_are_the_same_in_every_run(judge):
    task = calls(((), 0))
    program = (
        "import random\ndef f(): raise ValueError(random.random(), hash('x'), random.sample(range(99), 3))"
    )
    first, second = (judge.judge([(task, program + tail)])[0].message for tail in ("", "\n"))
    assert first == second


def test_threads_are_an_option():
    program = (
        "import threading\ndef f(x):\n    out = []\n    t = threading.Thread(target=lambda: out.append(abs(x)))\n"
        "    t.start()\n    t.join()\n    return out[0]\n"
    )
    with LocalJudge(workers=1, threads=True) as judge:
        assert judge.judge([(ABSOLUTE, program)])[0].passed


def test_cpu_time_and_tier_are_reported(judge):
    program = "import time\ndef f(x):\n    while time.process_time() < 0.1: pass\n    return abs(x)\n"
    judgement = judge.judge([(ABSOLUTE, program)])[0]
    assert judgement.passed
    assert 0.05 < judgement.cpu_s < 0.3
    assert judgement.wall_s >= judgement.cpu_s
    assert judgement.tier == judge.tier


ECHO = stdio(("3\n1 2 3\n", "6\n"), ("1\n5\n", "5\n"))


@pytest.mark.parametrize(
    ("program", "verdict", "results"),
    [
        ("input()\nprint(sum(map(int, input().split())))", Verdict.PASSED, (True, True)),
        ("import sys\nprint(sum(map(int, sys.stdin.read().split()[1:])))", Verdict.PASSED, (True, True)),
        ("print(sum(map(int, open(0).read().split()[1:])), end='')", Verdict.PASSED, (True, True)),
        ("import sys\nsys.stdout.write('%d  \\n\\n' % sum(map(int, sys.stdin.buffer.read().split()[1:])))", Verdict.PASSED, (True, True)),
        ("import os\nos.write(1, b'6')\nos._exit(0)", Verdict.WRONG_ANSWER, (True, False)),
        ("import os\nos.write(1, b'6')\nos._exit(3)", Verdict.RUNTIME_ERROR, (False, False)),
        ("print(6)\nraise SystemExit", Verdict.WRONG_ANSWER, (True, False)),
        ("print(6)\nraise SystemExit(1)", Verdict.RUNTIME_ERROR, (False, False)),
        ("print(6)\nprint(5)", Verdict.WRONG_ANSWER, (False, False)),
        ("print(6)\n1 / 0", Verdict.RUNTIME_ERROR, (False, False)),
        ("print(6", Verdict.SYNTAX_ERROR, (False, False)),
        ("input()\ninput()\ninput()", Verdict.RUNTIME_ERROR, (False, False)),
        ("while True: pass", Verdict.TIME_LIMIT, (False, False)),
        ("while True: print('x' * 10**5)", Verdict.OUTPUT_LIMIT, (False, False)),
        ("import atexit\n@atexit.register\ndef done(): print(6)", Verdict.WRONG_ANSWER, (True, False)),
        ("if __name__ == '__main__':\n    print(6)", Verdict.WRONG_ANSWER, (True, False)),
        ("import sys\nprint(6, file=sys.stderr)", Verdict.WRONG_ANSWER, (False, False)),
    ],
)  # fmt: skip
def test_verdict_and_results_of_stdio_tests(judge, program, verdict, results):
    judgement = judge.judge([(ECHO, program)])[0]
    assert (judgement.verdict, judgement.results) == (verdict, results), judgement


def test_each_stdio_test_runs_in_a_fresh_process(judge):
    program = "import os\nprint(os.path.exists('mark'))\nopen('mark', 'w').close()"
    assert judge.judge([(stdio(("", "False"), ("", "False")), program)])[0].passed


def test_the_line_of_a_failing_stdio_program(judge):
    assert judge.judge([(ECHO, "x = 1\ny = 0\nprint(x / y)\n")])[0].error_line == 3


def test_assertions_run_unmodified_and_independently(judge):
    task = asserts(
        "assert f(1) == 1", "def check(candidate):\n    assert candidate(2) == 4", "assert f(3) == 9"
    )
    judgement = judge.judge([(task, "def f(x):\n    return x ** 3\n")])[0]
    assert (judgement.verdict, judgement.results) == (Verdict.WRONG_ANSWER, (True, False, False))
    assert judge.judge([(task, "def f(x):\n    return x ** 2\n")])[0].passed


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    f(-1)\nexcept ValueError as e:\n    assert str(e) == 'ValueError: negative'\nelse:\n    assert False",
        "import math\nassert math.isclose(f(2), 2.0)",
        "assert [f(x=i) for i in (1, 2)] == [1, 2]",
        "assert set(map(f, {1, 2})) == {1, 2}",
        "assert f(1) == helper(1)",
        "assert callable(f) and f.__name__ == 'f'",
    ],
)
def test_assertions_see_a_function(judge, code):
    prompt = "def helper(x):\n    return x\n\n\ndef f(x):\n"
    program = "def f(x):\n    if x < 0:\n        raise ValueError('negative')\n    return x\n"
    judgement = judge.judge([(asserts(code, prompt=prompt), program)])[0]
    assert judgement.passed, judgement


def test_an_exception_of_the_candidate_keeps_its_line_through_an_assertion(judge):
    judgement = judge.judge([(asserts("assert f(0) == 1"), "def f(x):\n    y = 1\n    return y / x\n")])[0]
    assert (judgement.verdict, judgement.error_line) == (Verdict.RUNTIME_ERROR, 3)


def test_a_test_that_chokes_on_a_value_is_a_wrong_answer(judge):
    assert (
        judge.judge([(asserts("assert f(0) > 1"), "def f(x): return None")])[0].verdict
        is Verdict.WRONG_ANSWER
    )


def test_kinds_of_tests_mix_and_results_keep_the_tasks_order(judge):
    tests = (
        StdioTest(stdin="", stdout="hello"),
        AssertionTest(code="assert f(2) == 2"),
        CallTest(args=(1,), expected=1),
        AssertionTest(code="assert f(1) == 2"),
        CallTest(args=(2,), expected=3),
    )
    task = Task(task_id="mixed", prompt="", entry_point="f", tests=tests)
    judgement = judge.judge([(task, "def f(x):\n    return x\nprint('hello')\n")])[0]
    assert judgement.results == (True, True, True, False, False)
    assert judgement.verdict is Verdict.WRONG_ANSWER


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (Task(task_id="none", prompt="", entry_point="f", tests=()), "no tests"),
        (Task(task_id="entry", prompt="", entry_point=None, tests=ABSOLUTE.tests), "no entry_point"),
        (calls(((object(),), 1)), "not plain data"),
        (calls(((1,), object())), "not plain data"),
        (asserts("assert f("), "no Python"),
    ],
)
def test_a_task_that_cannot_be_judged_is_a_task_error_that_names_it(judge, task, words):
    with pytest.raises(TaskError, match=words) as caught:
        judge.judge([(ABSOLUTE, "f = abs"), (task, "f = abs")])
    assert repr(task.task_id) in str(caught.value)


def test_a_sloppy_escape_in_a_test_is_no_error(judge):
    assert judge.judge([(asserts("assert f(r'\\d') == '\\d'"), "def f(x): return x")])[0].passed


def test_messages_are_one_bounded_printable_line(judge):
    program = "def f(x):\n    raise ValueError('\\x1b[31m\\n\\r\\u202e' + 'x' * 10**6)\n"
    message = judge.judge([(ABSOLUTE, program)])[0].message
    assert message.startswith("ValueError")
    assert message.isprintable()
    assert len(message) <= 300


def test_a_module_that_does_not_load_fails_every_kind_of_test_once(judge):
    tests = (
        AssertionTest(code="assert f(1) == 1"),
        StdioTest(stdin="", stdout="3\n"),
        CallTest(args=(1,), expected=1),
    )
    task = Task(task_id="mixed", prompt="", entry_point="f", tests=tests)
    broken, right = judge.judge([(task, "print(3)\n1 / 0\n"), (task, "print(3)\ndef f(x):\n    return x\n")])
    assert (broken.verdict, broken.results) == (Verdict.RUNTIME_ERROR, (False, False, False))
    assert (right.verdict, right.results) == (Verdict.PASSED, (True, True, True))
