# ruff: noqa: E501 - programs are easier to read on few lines
"""Programs that aim at the judge's own clock, channel and tests; and honest ones that look odd."""

import os
import sys

import pytest

from codegym import AssertionTest, CallTest, StdioTest, Task, Verdict
from codegym.judge.pool import LocalJudge
from codegym.judge.scratch import remove_folder

LIMIT_S = 0.5
TIERS = [1, 2] if sys.platform == "linux" else [0]


@pytest.fixture(scope="module", params=TIERS)
def judge(request):
    with LocalJudge(workers=1, time_limit_s=LIMIT_S, max_tier=request.param, cache=False) as judge:
        yield judge


def calls(*pairs, comparison="exact"):
    tests = tuple(CallTest(args=args, expected=expected, comparison=comparison) for args, expected in pairs)
    return Task(task_id="calls", prompt="", entry_point="f", tests=tests)


def asserts(*codes):
    return Task(
        task_id="asserts", prompt="", entry_point="f", tests=tuple(AssertionTest(code=code) for code in codes)
    )


def stdio(*pairs, comparison="lines"):
    tests = tuple(StdioTest(stdin=given, stdout=expected, comparison=comparison) for given, expected in pairs)
    return Task(task_id="stdio", prompt="", entry_point=None, tests=tests)


SORTED = calls(((2, 1), [1, 2]), ((1, 2), [1, 2]))
RIGHT = "def f(a, b):\n    return sorted([a, b])\n"

# Finds its own nonce, says that all is answered, and never reads again.
DEAF = """
import os, struct, sys, time
frame = sys._getframe()
while "job" not in frame.f_locals: frame = frame.f_back
nonce = frame.f_locals["job"]["nonce"].encode()
body = struct.pack("!II", 1, len(nonce)) + nonce
os.write(3, struct.pack("!I", len(body)) + body)
time.sleep(100)
"""

STALLING = {
    "half a frame": (SORTED, "import os, time\nos.write(3, b'\\0\\0')\ntime.sleep(100)"),
    "a frame in drops": (SORTED, "import os, time\nfor byte in b'\\0\\0\\1\\0' + bytes(256):\n    os.write(3, bytes([byte])); time.sleep(0.05)"),
    "a call that is never read": (asserts("assert f(list(range(10**6)), 1) == 1"), DEAF),
    "sleep and work in turns": (SORTED, "import time\nwhile True:\n    time.sleep(0.003)\n    s = time.process_time()\n    while time.process_time() - s < 0.002: pass"),
    "expedited barriers": (SORTED, "import ctypes\nlibc = ctypes.CDLL(None)\nwhile True: libc.syscall(324, 1, 0)"),
}  # fmt: skip


@pytest.mark.parametrize("name", STALLING)
def test_nobody_waits_for_a_program_that_stalls(judge, name):
    task, program = STALLING[name]
    for _ in range(3):
        stalled, right = judge.judge([(task, program), (SORTED, RIGHT)])
        assert stalled.verdict in (Verdict.TIME_LIMIT, Verdict.TAMPERED), stalled
        assert right.passed
        if stalled.wall_s < LIMIT_S + 0.5:
            break
    else:
        pytest.fail(f"three times later than the limit and half a second: {stalled}")
    assert judge.statistics.restarts == 0


def test_a_test_that_no_python_code_can_interrupt_costs_a_worker_but_not_the_batch():
    # Equal hashes make a set's insertions quadratic, in one call.
    program = "def f():\n    return [i * (2**61 - 1) for i in range(60_000)]\n"
    task = asserts("assert set(f()) == {1}")
    with LocalJudge(workers=1, time_limit_s=LIMIT_S) as judge:
        stuck, right = judge.judge([(task, program), (SORTED, RIGHT)])
        assert stuck.verdict is Verdict.TIME_LIMIT
        assert "did not finish on the program's values" in stuck.message
        assert right.passed
        assert judge.statistics.restarts == 1


@pytest.mark.parametrize(
    "body", ["import os; os._exit(0)", "import os; os.write(3, b'x' * 100)", "while True: pass"]
)
def test_a_bare_except_in_a_test_does_not_hide_the_end_of_the_program(judge, body):
    task = asserts("try:\n    f(1)\nexcept:\n    pass", "assert True")
    assert not judge.judge([(task, f"def f(x):\n    {body}\n")])[0].passed


def test_an_endless_test_that_catches_everything_ends(judge):
    task = asserts(
        "while True:\n    try:\n        f(1)\n        while True: pass\n    except:\n        break"
    )
    assert judge.judge([(task, "def f(x):\n    return x\n")])[0].verdict is Verdict.TIME_LIMIT


@pytest.mark.parametrize(
    ("comparison", "expected", "printed"),
    [
        ("numbers", "1" * 400, "0.5"),
        ("numbers", "1e309", "0"),
        ("numbers", "0.5", "1e309"),
        ("tokens", "1" * 400, "0.5"),
    ],
)
def test_no_number_is_close_to_one_that_no_float_holds(judge, comparison, expected, printed):
    task = stdio(("", expected), comparison=comparison)
    wrong, right = judge.judge([(task, f"print('{printed}')"), (task, f"print('{expected}')")])
    assert wrong.verdict is Verdict.WRONG_ANSWER
    assert right.passed


def test_a_number_of_a_million_digits_with_a_letter_is_read_in_time(judge):
    task = stdio(("", "1.5"), comparison="numbers")
    assert judge.judge([(task, "print('1' * 10**6 + 'x')")])[0].verdict is Verdict.WRONG_ANSWER


def test_many_short_runs_share_one_limit(judge):
    task = stdio(*[("", "1")] * 60)
    start = (
        "import time\nbegan = time.process_time()\nwhile time.process_time() - began < 0.012: pass\nprint(1)"
    )
    judgement = judge.judge([(task, start)])[0]
    assert judgement.verdict is Verdict.TIME_LIMIT, judgement
    assert judgement.tests_passed > 10


def test_large_answers_of_a_right_program_have_the_time_to_be_compared():
    pairs = [((k,), [[k, k]] * 5000) for k in range(30)]
    task = calls(*pairs, comparison="equal")
    with LocalJudge(workers=1, time_limit_s=2.0) as judge:
        assert judge.judge([(task, "def f(k):\n    return [(k, k)] * 5000\n")])[0].passed


def test_looking_at_the_scratch_folder_leaves_no_mark(judge):
    look = "import os\ndef f(a, b):\n    os.listdir('.')\n    return sorted([a, b])\n"
    ask = "import os\ns = os.stat('.')\ndef f(a, b):\n    return sorted([a, b]) if s.st_atime_ns == s.st_mtime_ns else None\n"
    fresh = judge.judge([(SORTED, ask)])[0].passed
    for _ in range(3):
        assert judge.judge([(SORTED, look)])[0].passed
        assert judge.judge([(SORTED, ask + "\n")])[0].passed == fresh


def test_a_folder_of_many_folders_is_removed_in_one_pass(tmp_path):
    for number in range(3000):
        os.makedirs(tmp_path / "many" / str(number) / "inner")
        (tmp_path / "many" / str(number) / "file").touch()
    remove_folder(str(tmp_path / "many"))
    assert list(tmp_path.iterdir()) == []


ODD_BUT_HONEST = {
    "asks for the streams' modes": "import sys\nassert 'r' in sys.stdin.mode and 'w' in sys.stdout.mode\nprint(input())",
    "leaves by exit": "print(input())\nexit()",
    "leaves by quit with zero": "print(input())\nquit(0)",
    "looks for arguments": "import sys\nif len(sys.argv) > 1:\n    sys.stdin = open(sys.argv[1])\nprint(input())",
    "closes its output": "import sys\nprint(input())\nsys.stdout.close()",
    "builds an output of its own": "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.detach(), 'utf-8')\nprint(input())",
    "writes to the original output": "import sys\nsys.__stdout__.write(input() + '\\n')",
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_BUT_HONEST)
def test_an_odd_but_honest_program_passes(judge, name):
    assert judge.judge([(stdio(("7\n", "7\n")), ODD_BUT_HONEST[name])])[0].passed


def test_threads_that_nobody_joins_are_waited_for():
    program = "import threading, time\ndef main():\n    time.sleep(0.05); print(input())\nthreading.Thread(target=main).start()"
    with LocalJudge(workers=1, time_limit_s=LIMIT_S, threads=True) as judge:
        assert judge.judge([(stdio(("7\n", "7\n")), program)])[0].passed


def test_programs_see_a_script_without_arguments(judge):
    task = calls(((), ["solution.py"]))
    assert judge.judge([(task, "import sys\ndef f():\n    return sys.argv\n")])[0].passed
