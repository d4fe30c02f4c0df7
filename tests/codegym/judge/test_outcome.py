import pytest

from codegym import Verdict
from codegym.judge.codec import encode
from codegym.judge.outcome import grade_answer, same, same_output

NAN = float("nan")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1),
        (0.0, -0.0),
        (NAN, NAN),
        ([NAN, 1], [NAN, 1]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1, 2}, {2, 1}),
        (complex(NAN, 1), complex(NAN, 1)),
        ((), ()),
    ],
)
def test_equal_values(left, right):
    assert same(left, right)
    assert grade_answer(b"V" + encode(left), encode(right)).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (True, 1),
        (1, 1.0),
        (0, False),
        ([1], (1,)),
        ([True], [1]),
        ({"a": 1}, {"a": True}),
        ({1: "a"}, {True: "a"}),
        ({1}, {True}),
        ({1}, {1.0}),
        ({1}, frozenset({1})),
        ("1", b"1"),
        (0.1 + 0.2, 0.3),
        ([1, 2], [1]),
        ({"a": 1}, {}),
        ({1, 2}, {1}),
        ({1, 2}, {1, 3}),
        (range(3), [0, 1, 2]),
        (None, False),
        ("\ud83d\ude00", "\U0001f600"),
    ],
)
def test_different_values_or_types(left, right):
    assert not same(left, right)
    assert not same(right, left)
    assert grade_answer(b"V" + encode(left), encode(right)).verdict is Verdict.WRONG_ANSWER


@pytest.mark.parametrize(
    "line", [b"", b"V", b"X1", b"E", b"E1", b"E[]", b'E["a","b","c"]', b'E["a","b",1,2]', b"V{}"]
)
def test_a_line_that_is_no_answer_is_tampering(line):
    assert grade_answer(line, b"1").verdict is Verdict.TAMPERED


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        (["raised", "ValueError", "text", 3], Verdict.RUNTIME_ERROR),
        (["raised", "MemoryError", "text", None], Verdict.MEMORY_LIMIT),
        (["large", "ValueError", "text", None], Verdict.OUTPUT_LIMIT),
        (["unplain", "TypeError", "text", None], Verdict.WRONG_ANSWER),
        (["syntax", "SyntaxError", "text", 1], Verdict.SYNTAX_ERROR),
        (["passed", "passed", "passed", 1], Verdict.RUNTIME_ERROR),
    ],
)
def test_failures_have_categories_and_none_of_them_passes(fields, verdict):
    outcome = grade_answer(b"E" + encode(fields), b"1")
    assert outcome.verdict is verdict
    assert outcome.line == fields[3]


@pytest.mark.parametrize("number", [0, -1, True, 2**40, "3", 1.5])
def test_a_line_number_that_is_none_is_dropped(number):
    assert grade_answer(b"E" + encode(["raised", "ValueError", "", number]), b"1").line is None


@pytest.mark.parametrize(
    ("actual", "expected", "equal"),
    [
        (b"1 2\n", b"1 2", True),
        (b"1 2  \n\n\n", b"1 2\n", True),
        (b"a\r\nb\r\n", b"a\nb\n", True),
        (b"1\n2", b"1 2", False),
        (b" 1", b"1", False),
        (b"1\n\n2", b"1\n2", False),
        (b"", b"\n\n", True),
        (b"", b"0", False),
        (b"1\n2\n3", b"1\n2", False),
        (b"\xff", b"?", False),
    ],
)
def test_output_is_compared_whole_but_for_space_at_ends(actual, expected, equal):
    assert same_output(actual, expected) is equal
