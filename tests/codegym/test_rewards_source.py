"""What is read off a program's text: statements, broken prefixes, line numbers."""

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import Task
from codegym.rewards.source import (
    broken_line,
    completeness,
    line_index,
    n_statements,
    parse,
    statement_ends,
)

TASK = Task(task_id="t", prompt="def f(x):\n", entry_point="f", tests=())
TEXT = Task(task_id="t", prompt="Write f.", entry_point="f", tests=(), prompt_is_code=False)


def ends(*lines, task=TASK):
    return [int(end) for end in statement_ends(task, lines)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", "complete"),
        ("x = 1\n", "complete"),
        ("def f(x):\n", "incomplete"),
        ("def f(x):\n    # only a comment\n", "incomplete"),
        ("x = (1,\n", "incomplete"),
        ("x = '''abc\n", "incomplete"),
        ("x = 1 + \\\n", "incomplete"),
        ("try:\n    x\n", "incomplete"),
        ("@cache\n", "incomplete"),
        ("if x:\n    y\nelse:\n", "incomplete"),
        ("x = 'abc\n", "broken"),
        ("x = )\n", "broken"),
        ("if x\n", "broken"),
        ("try:\n    x\ny = 1\n", "broken"),
        ("    x = 1\n", "broken"),
        ("def f():\n    a\n  b\n", "broken"),
        ("x = [1,\ny = 2\n", "broken"),
        ("\ud800", "broken"),
        ("x = \0", "broken"),
        ("(" * 500, "broken"),
        ("-" * 20_000 + "1", "broken"),
        ("a" + "+a" * 9_000, "broken"),
        (r"x = '\d'", "complete"),
    ],
)
def test_text_is_whole_unfinished_or_beyond_repair(source, expected):
    assert completeness(source) == expected


def test_a_broken_line_is_the_one_after_which_nothing_parses():
    assert broken_line(TASK, ["    a = 1", "    b = )", "    c = 2"]) == 1
    assert broken_line(TASK, ["    a = (", "    b = 2", "    c = 3"]) == 1
    assert broken_line(TASK, ["a = 1"]) == 0
    assert broken_line(TASK, ["    a = (", "    1"]) is None
    assert broken_line(TASK, ["    return x"]) is None
    assert broken_line(TASK, []) is None
    assert broken_line(Task(task_id="b", prompt="def f(:\n", entry_point="f", tests=()), ["    a"]) is None


def test_each_simple_statement_ends_on_its_line():
    assert ends("    a = 1", "", "    # why", "    return a") == [1, 0, 0, 1]


def test_only_the_last_line_of_a_bracket_ends_a_statement():
    assert ends("    a = [", "        1,", "    ]", "    return a") == [0, 0, 1, 1]
    assert ends("    a = (x", "        + 1)", "    return a") == [0, 1, 1]
    assert ends("    a = 1 + \\", "        2") == [0, 1]


def test_a_compound_statement_is_one_with_all_it_holds():
    assert ends("    for i in x:", "        a = i", "        b = i", "    return a") == [0, 0, 1, 1]
    assert ends("    if x:", "        a = 1", "    else:", "        a = 2") == [0, 0, 0, 1]
    assert ends("    try:", "        a = 1", "    except E:", "        raise", "    return a") == [
        0,
        0,
        0,
        1,
        1,
    ]


def test_a_definition_is_the_statements_in_it():
    assert ends("def f(x):", "    a = 1", "    return a", "y = f(1)", task=TEXT) == [0, 1, 1, 1]
    assert ends("class A:", "    b = 1", "    def c(self):", "        return 1", task=TEXT) == [0, 1, 0, 1]
    assert ends("def f(x): return x", task=TEXT) == [1]


def test_two_statements_on_a_line_end_once():
    assert ends("    a = 1; b = 2", "    return a") == [1, 1]


def test_what_computes_nothing_ends_nothing():
    assert ends('    """Doc."""', "    pass", "    ...", "    1", "    return x") == [0, 0, 0, 0, 1]


def test_comments_and_blanks_inside_a_string_belong_to_its_statement():
    assert ends('    a = """', "# no comment", "", '# none"""', "    return a") == [0, 0, 0, 1, 1]


def test_an_unfinished_statement_has_not_ended():
    assert ends("    a = 1", "    b = (") == [1, 0]
    assert ends("    a = 1", "    for i in x:") == [1, 0]
    assert ends("    a = 1", "    for i in x:", "        b = i") == [1, 0, 1]
    assert ends("    a = 1", "    for i in x:", "        b = i", "        c = i") == [1, 0, 0, 1]
    assert ends("    a = 1", "    try:", "        b = 1") == [1, 0, 0]


def test_nothing_ends_after_text_that_does_not_parse():
    assert ends("    a = 1", "    b = )", "    c = 2", "    return c") == [1, 0, 0, 0]
    assert ends("    a = 1", "    b = '\ud800'", "    c = 2") == [1, 0, 0]
    assert ends("a = 1") == [0]


def test_where_the_prompt_does_not_parse_lines_are_statements():
    task = Task(task_id="b", prompt="print 'two'\n", entry_point=None, tests=())
    assert ends("x = (", "1", "", "# c", task=task) == [1, 1, 0, 0]


def test_a_statement_of_the_prompt_is_not_the_programs():
    task = Task(
        task_id="t", prompt="import math\nK = 3\ndef f(x):\n    '''Doc.'''\n", entry_point="f", tests=()
    )
    assert ends("    a = K", "    return a", task=task) == [1, 1]
    assert ends(task=task) == []


def test_a_statement_begun_in_the_prompt_may_end_in_the_program():
    task = Task(task_id="t", prompt="x = (\n", entry_point=None, tests=())
    assert ends("1", ")", "y = 2", task=task) == [0, 1, 1]


def test_statements_of_a_reference_are_counted():
    assert n_statements("def f(x):\n", "    a = [\n        1,\n    ]\n    return a\n") == 2
    assert n_statements("", "def f(x):\n    return x\n") == 1
    assert n_statements("def f(x):\n", "") == 0


def test_line_numbers_of_the_module_are_found_in_the_program():
    task = Task(task_id="t", prompt="a = 1\r\nb = 2\rdef f(x):\n", entry_point="f", tests=())
    lines = ["    c = 1", "    d = 2\r    e = 3", "    return c"]
    assert [line_index(task, lines, number) for number in range(1, 9)] == [
        None, None, None, 0, 1, 1, 2, None,
    ]  # fmt: skip


LINE = st.sampled_from(
    [
        "    a = 1",
        "    b = (",
        "    )",
        "    for i in x:",
        "        c = i",
        "    return a",
        "",
        "  # c",
        '    """',
    ]
)


@settings(max_examples=100)
@given(st.lists(LINE, max_size=8))
def test_marks_agree_with_a_parse_of_every_prefix(lines):
    marks = ends(*lines)
    whole = next((n for n in range(len(lines), -1, -1) if parses(lines[:n])), 0)
    assert marks[whole:] == [0] * (len(lines) - whole)
    if whole:
        tree = parse(TASK.assemble("\n".join(lines[:whole]) + "\n"))
        found = {
            node.end_lineno - 2
            for node in tree.body[0].body
            if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        }
        assert {index for index, mark in enumerate(marks) if mark} == found


@settings(max_examples=100)
@given(st.lists(LINE, max_size=8))
def test_a_broken_prefix_never_recovers(lines):
    broken = broken_line(TASK, lines)
    states = [
        completeness(TASK.assemble("".join(f"{x}\n" for x in lines[:n]))) for n in range(len(lines) + 1)
    ]
    expected = next((n - 1 for n, state in enumerate(states) if state == "broken"), None)
    assert broken == expected
    if expected is not None:
        assert set(states[expected + 1 :]) == {"broken"}


def parses(lines):
    try:
        parse(TASK.assemble("".join(f"{line}\n" for line in lines)))
    except SyntaxError:
        return False
    return True
