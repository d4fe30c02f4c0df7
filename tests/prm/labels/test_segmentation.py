"""Lines and statements as steps: brackets, strings, continuations, and text that is no Python at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegym import UnknownNameError
from codegym.episode import is_neutral
from prm.segmentation import STEPS, labels_of_lines, step_ends


def test_every_line_that_computes_is_a_step():
    assert step_ends(["    x = 1", "", "    # why", "    return x"], "line") == [0, 3]


STATEMENTS = {
    "plain lines": (["    x = 1", "    y = 2"], [0, 1]),
    "a bracket over lines": (["    x = [", "        1,", "        2,", "    ]", "    return x"], [3, 4]),
    "a comment within a bracket": (["    x = [", "        # one", "        1]", "    return x"], [2, 3]),
    "a string over lines": (['    x = """a', "b", '    c"""', "    return x"], [2, 3]),
    "a continuation": (["    x = 1 + \\", "        2", "    return x"], [1, 2]),
    "a block's head is its own": (["    for x in y:", "        z(x)", "    return x"], [0, 1, 2]),
    "two statements on a line": (["    x = 1; y = 2", "    return x"], [0, 1]),
    "comments and blanks between": (["    # a", "    x = (1,", "", "    2)", "", "    return x"], [3, 5]),
    "a decorator": (["    @f", "    def g():", "        pass"], [0, 1, 2]),
    "nothing": ([], []),
    "only a comment": (["# a"], []),
    "a bracket that never closes": (["    x = 1", "    y = [1,", "    z = 2", "    # w"], [0, 1, 2]),
    "a string that never closes": (["    x = 1", '    y = """a', "    z = 2"], [0, 1, 2]),
    "a quote that never closes": (["    x = 1", "    y = 'a", "    z = (", "    )"], [0, 1, 2, 3]),
    "wrong indentation": (["        x = 1", "    y = (", "    2)"], [0, 1, 2]),
    "no Python": (["?!", "x = (1,", "2)"], [0, 1, 2]),
    "a lone surrogate": (["    x = 1", "    y = '\ud800'", "    return x"], [0, 1, 2]),
    "a NUL": (["    x = 1", "    y = '\0'", "    return x"], [0, 1, 2]),
    "a carriage return is no line's end": (["    x = (1,\r", "    2)\r", "    return\r x"], [1, 2]),
    "a form feed": (["    x = 1\f", "    return x"], [0, 1]),
}


@pytest.mark.parametrize("case", STATEMENTS)
def test_statements(case):
    lines, ends = STATEMENTS[case]
    assert step_ends(lines, "statement") == ends


def test_a_label_goes_to_every_line_of_its_step_but_neutral_ones():
    lines = ["    x = [", "        # one", "        1]", "", "    return x"]
    assert labels_of_lines(lines, step_ends(lines, "statement"), [1.0, -0.5]) == (1.0, 0.0, 1.0, 0.0, -0.5)


def test_an_unknown_step_lists_the_choices():
    with pytest.raises(UnknownNameError, match=r"unknown kind of step 'lines' .*choose from line, statement"):
        step_ends([], "lines")


TEXT = st.one_of(
    st.text(alphabet="x =+()[]'\"\\#:\t\r\f\0\ud800é", max_size=12),
    st.sampled_from(["    x = (", "    )", '    """', "    # c", "", "    for x in y:", "        pass"]),
)


@given(st.lists(TEXT, max_size=12), st.sampled_from(list(STEPS)))
def test_steps_cover_every_line_in_order(lines, step):
    ends = step_ends(lines, step)
    assert ends == sorted(set(ends))
    assert all(0 <= end < len(lines) for end in ends)
    labels = labels_of_lines(lines, ends, [1.0] * len(ends))
    assert labels == tuple(0.0 if is_neutral(line) else 1.0 for line in lines)


@given(st.lists(TEXT, max_size=12))
def test_statements_are_never_more_than_lines(lines):
    several = sum(not is_neutral(line) for line in lines)
    neutral_ends = sum(is_neutral(lines[end]) for end in step_ends(lines, "statement"))
    assert len(step_ends(lines, "statement")) <= several + neutral_ends
