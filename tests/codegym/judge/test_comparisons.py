# ruff: noqa: E501 - programs are easier to read on few lines
"""Comparisons laxer than "equal in value and type", and methods as entry points."""

import pytest

from codegym import CallTest, StdioTest, Task, UnknownNameError, Verdict
from codegym.judge.codec import encode
from codegym.judge.outcome import equal, expectation, grade_answer, same_output
from codegym.judge.pool import LocalJudge
from codegym.task import CALL_COMPARISONS, OUTPUT_COMPARISONS


@pytest.fixture(scope="module")
def judge():
    with LocalJudge(workers=1, time_limit_s=0.5, memory_limit_mb=256) as judge:
        yield judge


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((1, 2), [1, 2]),
        ([(1, 2), (3,)], [[1, 2], [3]]),
        ({"a": (1,)}, {"a": [1]}),
        (1, 1.0),
        (True, 1),
        ([0, 1.0], [False, True]),
        (2**70, 2**70),
        ("x", "x"),
        (None, None),
    ],
)
def test_equal_takes_tuples_for_lists_and_numbers_by_value(answer, expected):
    assert equal(answer, expected)
    line = b"V" + encode(answer)
    assert grade_answer(line, expectation(expected, "equal")).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("1", 1),
        ([1, 2], [2, 1]),
        ({1, 2}, [1, 2]),
        (0.1 + 0.2, 0.3),
        (None, 0),
        ([], None),
        ([1], 1),
        (range(2), [0, 1]),
        (float("nan"), 0.0),
        ("[1]", [1]),
    ],
)
def test_equal_still_tells_different_values_apart(answer, expected):
    assert not equal(answer, expected)
    line = b"V" + encode(answer)
    assert grade_answer(line, expectation(expected, "equal")).verdict is Verdict.WRONG_ANSWER


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ([3], [3], True),
        (3, [3], True),
        ((3.0,), [3], True),
        ((1, 2), [[1, 2]], True),
        ([[3]], [3], False),
        (3, [[3]], False),
        (1, [1, 2], False),
        ([], [], True),
        (None, [], False),
        (None, [None], True),
        ("a", "a", True),
        ("a", ["a"], True),
        (3, 3, True),
        ([3], 3, False),
    ],
)
def test_boxed_takes_the_only_item_for_its_list(answer, expected, right):
    verdict = grade_answer(b"V" + encode(answer), expectation(expected, "boxed")).verdict
    assert verdict is (Verdict.PASSED if right else Verdict.WRONG_ANSWER)


def test_an_exact_expectation_is_the_canonical_text_and_an_equal_one_is_marked():
    assert expectation([1], "exact") == encode([1])
    assert expectation([1], "equal") != encode([1])
    assert grade_answer(b"V" + encode((1,)), expectation([1], "exact")).verdict is Verdict.WRONG_ANSWER


def test_an_answer_cannot_bring_its_own_leniency():
    assert grade_answer(b"V~[1]", expectation([1], "equal")).verdict is Verdict.TAMPERED
    assert grade_answer(b"~[1]", expectation([1], "equal")).verdict is Verdict.TAMPERED


# Which of the four comparisons accept an output for an expected one.
LINES, DECIMALS, NUMBERS, TOKENS = "lines", "decimals", "numbers", "tokens"
EVERY = {LINES, DECIMALS, NUMBERS, TOKENS}
OUTPUTS = [
    ("1 2\n3", "1 2\n3\n", EVERY),
    ("1 2 \n3\n\n\n", "1 2\n3", EVERY),
    ("", "\n", EVERY),
    ("  1\n", "1\n", {DECIMALS, NUMBERS, TOKENS}),
    ("\n\n1\n", "1\n", {DECIMALS, NUMBERS, TOKENS}),
    ("1\n\n2", "1\n2", {NUMBERS, TOKENS}),
    ("1  2", "1 2", {DECIMALS, NUMBERS, TOKENS}),
    ("a  b", "a b", {NUMBERS, TOKENS}),
    ("1 2\n3", "1\n2 3", {TOKENS}),
    ("1.0", "1", {DECIMALS, NUMBERS, TOKENS}),
    ("1.50 2", "1.5 2.000", {DECIMALS, NUMBERS, TOKENS}),
    ("1e3", "1000", {DECIMALS, NUMBERS, TOKENS}),
    ("+7 007", "7 7", {DECIMALS, NUMBERS, TOKENS}),
    ("0.333333", "0.3333333333", {NUMBERS, TOKENS}),
    ("100000.5", "100001", {NUMBERS}),
    ("0.00002", "0.000012", {TOKENS}),
    ("0.5 1e400", "0.5 1e401", set()),
    ("0.3334", "0.3333333333", set()),
    ("YES", "Yes", {TOKENS}),
    ("100000000000000001", "100000000000000000", set()),
    ("100000000000000001.0", "100000000000000000", {NUMBERS, TOKENS}),
    ("2 1", "1 2", set()),
    ("1\n2", "2\n1", set()),
    ("1", "1 1", set()),
    ("1 1", "1", set()),
    ("", "0", set()),
    ("nan", "0", set()),
    ("inf", "1e999999", set()),
    ("1_0", "10", set()),
    ("0x10", "16", set()),
    ("\u0661", "1", set()),
    ("1e9999999", "1e9999998", set()),
]


@pytest.mark.parametrize("comparison", OUTPUT_COMPARISONS)
@pytest.mark.parametrize(("output", "expected", "accepting"), OUTPUTS)
def test_outputs_by_each_comparison(output, expected, accepting, comparison):
    assert same_output(output.encode(), expected.encode(), comparison) == (comparison in accepting)


def test_the_default_comparison_is_by_lines():
    assert StdioTest(stdin="", stdout="").comparison == "lines"
    assert CallTest(args=(), expected=1).comparison == "exact"


@pytest.mark.parametrize("make", [lambda: CallTest(args=(), expected=1, comparison="eqal"),
                                  lambda: StdioTest(stdin="", stdout="", comparison="token")])  # fmt: skip
def test_an_unknown_comparison_lists_the_choices(make):
    with pytest.raises(UnknownNameError, match="did you mean"):
        make()


@pytest.mark.parametrize("comparison", CALL_COMPARISONS)
def test_the_judge_compares_calls_as_the_test_says(judge, comparison):
    tests = tuple(CallTest(args=(n,), expected=[n, [n]], comparison=comparison) for n in (1, 2))
    task = Task(task_id="pair", prompt="", entry_point="f", tests=tests)
    judgement = judge.judge([(task, "def f(n):\n    return (n, (n,)) if n == 1 else [n, [n]]\n")])[0]
    assert judgement.results == (comparison != "exact", True)


def test_tests_of_different_comparisons_mix_in_one_task(judge):
    tests = (
        StdioTest(stdin="2", stdout="0.5"),
        CallTest(args=(2,), expected=[2], comparison="equal"),
        StdioTest(stdin="2", stdout="0.500001", comparison="numbers"),
        CallTest(args=(2,), expected=[2]),
    )
    program = "def f(n):\n    return (n,)\nif __name__ == '__main__':\n    print(1 / int(input()))\n"
    task = Task(task_id="mixed", prompt="", entry_point="f", tests=tests)
    assert judge.judge([(task, program)])[0].results == (True, True, True, False)


def test_equal_programs_with_other_comparisons_are_other_jobs(judge):
    program = "def f():\n    return 1, 2\n"
    tasks = [
        Task(
            task_id="same",
            prompt="",
            entry_point="f",
            tests=(CallTest(args=(), expected=[1, 2], comparison=comparison),),
        )
        for comparison in CALL_COMPARISONS
    ]
    assert [j.passed for j in judge.judge([(task, program) for task in tasks])] == [False, True, True]


SOLUTION = Task(
    task_id="method",
    prompt="",
    entry_point="Solution.add",
    tests=tuple(CallTest(args=(n, 1), expected=n + 1) for n in range(3)),
)


def method(body, head=""):
    return f"class Solution:\n{head}    def add(self, a, b):\n        {body}\n"


@pytest.mark.parametrize(
    ("program", "verdict", "results"),
    [
        (method("return a + b"), Verdict.PASSED, (True, True, True)),
        (method("return 1"), Verdict.WRONG_ANSWER, (True, False, False)),
        (method("return a + c"), Verdict.RUNTIME_ERROR, (False,) * 3),
        ("class Solution:\n    @staticmethod\n    def add(a, b):\n        return a + b\n", Verdict.PASSED, (True,) * 3),
        ("class Solution:\n    pass\n", Verdict.RUNTIME_ERROR, (False,) * 3),
        ("class Other:\n    pass\n", Verdict.RUNTIME_ERROR, (False,) * 3),
        ("def add(a, b):\n    return a + b\n", Verdict.RUNTIME_ERROR, (False,) * 3),
        ("Solution = 3\n", Verdict.RUNTIME_ERROR, (False,) * 3),
        (method("return a + b", "    def __init__(self, x):\n        pass\n"), Verdict.RUNTIME_ERROR, (False,) * 3),
        ("class Solution:\n    def add(self, a, b)\n", Verdict.SYNTAX_ERROR, (False,) * 3),
        ("", Verdict.RUNTIME_ERROR, (False,) * 3),
    ],
)  # fmt: skip
def test_a_dotted_entry_point_is_a_method(judge, program, verdict, results):
    judgement = judge.judge([(SOLUTION, program)])[0]
    assert (judgement.verdict, judgement.results) == (verdict, results), judgement


def test_each_call_gets_a_fresh_instance(judge):
    head = "    def __init__(self):\n        self.calls = 0\n"
    counting = method("self.calls += 1\n        return a + b if self.calls == 1 else 0", head)
    assert judge.judge([(SOLUTION, counting)])[0].passed


def test_an_error_in_a_method_names_its_line(judge):
    judgement = judge.judge([(SOLUTION, method("return a + b.c"))])[0]
    assert (judgement.error_line, judgement.message.split(":")[0]) == (3, "AttributeError")
