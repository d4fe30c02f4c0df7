"""CodeRL's levels and RLTF's blame: hand-computed."""

import pytest

from codegym import CallTest, Episode, Task, Verdict, make_scheme
from codegym.rewards.graded import RLTF, CodeRL
from codegym.rewards.outcome import BELOW_ONE
from codegym.verdict import Judgement

TASK = Task(
    task_id="t",
    prompt="import math\n\ndef f(x):\n",
    entry_point="f",
    tests=tuple(CallTest(args=(x,), expected=x) for x in range(5)),
)
LINES = ("    # plan", "    a = 1", "", "    b = a / 0", "    return b")


def judged(verdict, n_passed=0, error_line=None, *, lines=LINES, task=TASK, terminated=True):
    result = Judgement(
        verdict=Verdict(verdict), results=tuple(i < n_passed for i in range(5)), error_line=error_line
    )
    return Episode(task=task, lines=lines, terminated=terminated, truncated=not terminated, judgement=result)


# ---------------------------------------------------------------- CodeRL, arXiv:2207.01780, eq. 4


@pytest.mark.parametrize(
    ("verdict", "level"),
    [
        ("syntax_error", -1.0),
        ("runtime_error", -0.6),
        ("time_limit", -0.6),
        ("memory_limit", -0.6),
        ("output_limit", -0.6),
        ("wrong_answer", -0.3),
        ("passed", 1.0),
        ("tampered", -1.0),
    ],
)
def test_coderl_pays_the_level_of_the_verdict_on_the_last_action(verdict, level):
    credit = CodeRL().credit([judged(verdict, n_passed=5 if verdict == "passed" else 2)])[0]
    assert credit.tolist() == [0, 0, 0, 0, 0, level]
    cut = CodeRL().credit([judged(verdict, terminated=False)])[0]
    assert cut.tolist() == [0, 0, 0, 0, level]


def test_every_verdict_has_a_level():
    for verdict in Verdict:
        assert CodeRL().reward(judged(verdict)) in (-1.0, -0.6, -0.3, 1.0)


def test_coderls_levels_are_options():
    scheme = make_scheme("coderl", compile_error=0.0, runtime_error=0.1, failed_test=0.2, passed=2.0)
    paid = [scheme.credit([judged(v)])[0].sum() for v in ("syntax_error", "runtime_error", "wrong_answer")]
    assert paid == [0.0, 0.1, 0.2]
    assert scheme.bounds(passed=True) == (2.0, 2.0)
    assert scheme.bounds(passed=False) == (0.0, 0.2)


@pytest.mark.parametrize("options", [{"failed_test": 1.0}, {"passed": float("inf")}, {"compile_error": 2}])
def test_coderl_refuses_levels_that_pay_failure(options):
    with pytest.raises(ValueError, match="passed the largest"):
        CodeRL(**options)


# ---------------------------------------------------------------- RLTF, arXiv:2307.04349


def test_rltf_raises_a_wrong_answer_by_the_share_of_tests_passed():
    # -0.3 + 1.3 * 2/5; and no line is to blame
    credit = RLTF().credit([judged("wrong_answer", n_passed=2, error_line=5)])[0]
    assert credit == pytest.approx([0, 0, 0, 0, 0, 0.22])
    plain = RLTF(adaptive=False).credit([judged("wrong_answer", n_passed=2)])[0]
    assert plain == pytest.approx([0, 0, 0, 0, 0, -0.3])


def test_rltf_blames_the_line_that_raised():
    # three lines of prompt: module line 7 is the fourth line
    credit = RLTF().credit([judged("runtime_error", error_line=7)])[0]
    assert credit == pytest.approx([0, 0, 0, -0.3, 0, -0.6])


def test_rltf_blames_the_line_that_does_not_parse():
    credit = RLTF(fine_penalty=0.5).credit([judged("syntax_error", error_line=4)])[0]
    assert credit == pytest.approx([-0.5, 0, 0, 0, 0, -1.0])


@pytest.mark.parametrize("error_line", [None, 1, 3, 9, 100])
def test_rltf_blames_no_line_where_the_judge_knows_none_of_the_programs(error_line):
    credit = RLTF().credit([judged("runtime_error", error_line=error_line)])[0]
    assert credit == pytest.approx([0, 0, 0, 0, 0, -0.6])


@pytest.mark.parametrize("verdict", ["time_limit", "memory_limit", "output_limit"])
def test_rltf_blames_the_whole_program_for_a_limit(verdict):
    # three lines are neither blank nor comment
    credit = RLTF().credit([judged(verdict, error_line=7)])[0]
    assert credit == pytest.approx([0, -0.1, 0, -0.1, -0.1, -0.6])


def test_rltf_counts_a_carriage_return_as_python_does():
    lines = ("    a = 1\r    b = 2", "    c = 1 / 0")
    credit = RLTF().credit([judged("runtime_error", error_line=6, lines=lines)])[0]
    assert credit == pytest.approx([0, -0.3, -0.6])
    credit = RLTF().credit([judged("runtime_error", error_line=5, lines=lines)])[0]
    assert credit == pytest.approx([-0.3, 0, -0.6])


def test_rltf_of_a_prompt_that_is_no_code_counts_from_the_programs_first_line():
    task = Task(task_id="s", prompt="Add.\nNow.\n", entry_point="f", tests=TASK.tests, prompt_is_code=False)
    credit = RLTF().credit([judged("runtime_error", error_line=2, task=task)])[0]
    assert credit == pytest.approx([0, -0.3, 0, 0, 0, -0.6])


def test_rltf_tells_its_parts():
    (parts,) = RLTF().parts([judged("runtime_error", error_line=7)])
    assert parts["coarse"].tolist() == [0, 0, 0, 0, 0, -0.6]
    assert parts["fine"].tolist() == [0, 0, 0, -0.3, 0, 0]


def test_rltf_of_a_passing_program_is_one():
    assert RLTF().credit([judged("passed", n_passed=5)])[0].tolist() == [0, 0, 0, 0, 0, 1.0]
    assert RLTF().bounds(passed=True) == (1.0, 1.0)
    assert RLTF().bounds(passed=False) == (-1.3, BELOW_ONE)
    assert RLTF(adaptive=False).bounds(passed=False) == (-1.3, -0.3)


def test_an_empty_program_has_no_line_to_blame():
    assert RLTF().credit([judged("syntax_error", error_line=4, lines=())])[0].tolist() == [-1.0]
    assert RLTF().credit([judged("time_limit", lines=())])[0].tolist() == [-0.6]


@pytest.mark.parametrize("fine_penalty", [-0.1, float("nan"), float("inf")])
def test_rltf_refuses_a_bad_penalty(fine_penalty):
    with pytest.raises(ValueError, match="fine_penalty must be finite and >= 0"):
        RLTF(fine_penalty=fine_penalty)


def test_graded_rewards_stream_nothing():
    prefix = Episode(task=TASK, lines=LINES[:2])
    assert RLTF().step([prefix] * 3).tolist() == CodeRL().step([prefix] * 3).tolist() == [0, 0, 0]
