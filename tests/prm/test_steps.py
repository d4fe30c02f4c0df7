"""Which lines compute which value, read from hostile text that is never executed here."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import CallTest, Task, TaskError
from prm.steps import Step, read_steps

TASK = Task(
    task_id="t",
    prompt='import math\n\ndef f(v0):\n    """Do it.\n\n    1. ...\n    """\n',
    entry_point="f",
    tests=(CallTest(args=([1, 2],), expected=9),),
    metadata={
        "trace": {
            "args": [[[1, 2]], [[3]]],
            "values": {"v1": [[2, 3], [4]], "v2": [[4, 6], [8]], "v3": [[5, 7], [9]], "return": [12, 9]},
        }
    },
)
V1, V2, V3, RETURN = (
    "    v1 = [x + 1 for x in v0]",
    "    v2 = [x * 2 for x in v1]",
    "    v3 = [x + 1 for x in v2]",
    "    return sum(v3)",
)


def steps(lines):
    program = read_steps(TASK, lines)
    return [(step.names, step.last_line) for step in program.steps], program.n_sound


def test_one_line_per_step():
    assert steps([V1, V2, V3, RETURN]) == ([(("v1",), 1), (("v2",), 2), (("v3",), 3), (("return",), 4)], 4)


def test_a_step_lasts_until_the_next_name_is_bound():
    lines = [
        "    total = 0",
        V1,
        "    v2 = []",
        "    for x in v1:",
        "        v2.append(x * 2)",
        "    # next",
        V3,
    ]
    assert steps(lines) == ([(("v1",), 2), (("v2",), 5), (("v3",), 7)], 7)


def test_binding_again_is_not_a_new_step():
    assert steps([V1, "    v1 = v1[:]", V2, "    v1 = 3"]) == ([(("v1",), 2), (("v2",), 4)], 4)


def test_skipped_and_swapped_names_are_steps_in_the_order_written():
    assert steps([V1, V3, V2]) == ([(("v1",), 1), (("v3",), 2), (("v2",), 3)], 3)
    assert steps([V1, V3]) == ([(("v1",), 1), (("v3",), 2)], 2)


def test_several_names_on_one_line():
    assert steps(["    v1 = v2 = v0", V3]) == ([(("v1", "v2"), 1), (("v3",), 2)], 2)
    assert steps(["    v1, v2 = v0, v0; v3 = v0"]) == ([(("v1", "v2"), 1), (("v3",), 1)], 1)


@pytest.mark.parametrize(
    "line",
    [
        "    for v1 in v0: pass",
        "    with open(v0) as v1: pass",
        "    if v0: v1 = 2",
        "    (v1 := v0)",
        "    v1: list = v0",
        "    v1 += v0",
        "    *v1, w = v0",
    ],
)
def test_every_kind_of_binding_counts(line):
    assert steps([line, V2]) == ([(("v1",), 1), (("v2",), 2)], 2)


@pytest.mark.parametrize(
    "line",
    [
        "    w = [v1 for v1 in v0]",
        "    w = lambda v1: v1",
        "    w = {v1: 1 for v1 in v0}",
        "    w = v1 == 3",
        "    def g(v1): v1 = 2",
        "    v0.v1 = 3",
        "    v0['v1'] = 3",
        "    class C: v1 = 3",
    ],
)
def test_names_of_other_scopes_do_not_count(line):
    assert steps([line, V2]) == ([(("v2",), 2)], 2)


def test_what_follows_a_return_is_no_step():
    assert steps([V1, "    return v1", V2]) == ([(("v1",), 1), (("return",), 2)], 3)


def test_a_return_inside_a_block_belongs_to_its_step():
    assert steps([V1, "    if not v1:", "        return 0", V2]) == ([(("v1",), 3), (("v2",), 4)], 4)


def test_a_bracket_or_string_over_several_lines_is_one_step():
    assert steps([V1, "    v2 = [", "        x * 2", "        for x in v1", "    ]", V3])[0][1] == (
        ("v2",),
        5,
    )
    assert steps([V1, "    w = '''", "    v2 = 3", "    '''", V2])[0] == [(("v1",), 4), (("v2",), 5)]


@pytest.mark.parametrize(
    "broken", ["    v2 = [x * 2 for x in v1", "    v2 = = 3", "    return (v1", "    v2 = 'a"]
)
def test_a_broken_line_that_starts_a_step_ends_the_one_before(broken):
    assert steps([V1, broken, V3, RETURN]) == ([(("v1",), 1)], 1)


@pytest.mark.parametrize(
    "broken", ["    for x in v0", "    if x == :", "        v1.append(2)", "    v1 = (", "    ?"]
)
def test_a_broken_line_within_a_step_leaves_it_unended(broken):
    assert steps(["    v1 = []", broken, V2]) == ([], 1)


def test_a_broken_line_after_a_comment_is_found_too():
    assert steps(["    v1 = []", "    # now", "    for x in v0", V2]) == ([], 2)


def test_an_unfinished_block_at_the_end_is_not_sound():
    assert steps([V1, "    for x in v1:"]) == ([], 1)
    assert steps([V1, V2, "    v3 = ["]) == ([(("v1",), 1), (("v2",), 2)], 2)


def test_misplaced_statements_break_the_program_too():
    assert steps([V1, "    break", V2]) == ([], 1)
    assert steps([V1, "return v1"]) == ([(("v1",), 1)], 1)
    assert steps([V1, "    nonlocal w", V2]) == ([], 1)


def test_lines_outside_the_function_are_not_sound():
    assert steps([V1, "print(1)", V2]) == ([(("v1",), 1)], 1)
    assert steps([V1, "x = 1", "def f(v0):", V2]) == ([(("v1",), 1)], 1)
    assert steps(["# nothing", "", "x = 1"]) == ([], 2)


def test_an_empty_program_has_no_steps():
    assert steps([]) == ([], 0)
    assert read_steps(TASK, []).job is None


def test_carriage_returns_count_as_python_counts_them():
    assert steps([V1 + "\r", "    w = 1\r    u = 2", V2, V3]) == (
        [(("v1",), 2), (("v2",), 3), (("v3",), 4)],
        4,
    )


def test_the_derived_task_asks_for_each_value_of_each_call():
    program = read_steps(TASK, [V1, V2, RETURN, "x = 1"])
    task, module = program.job
    assert program.steps == (
        Step(names=("v1",), last_line=1),
        Step(names=("v2",), last_line=2),
        Step(names=("return",), last_line=3),
    )
    assert [(test.args, test.expected) for test in task.tests] == [
        ((0, [1, 2]), [2, 3]),
        ((0, [3]), [4]),
        ((1, [1, 2]), [4, 6]),
        ((1, [3]), [8]),
        ((3, [1, 2]), 12),
        ((3, [3]), 9),
    ]
    assert task.assemble(module) == module
    assert module.split("\n") == [
        *TASK.prompt.rstrip("\n").split("\n"),
        V1,
        "    if __codegym_stop__ == 0: return v1",
        V2,
        "    if __codegym_stop__ == 1: return v2",
        RETURN,
        "def __codegym_probe__(stop, *args):",
        "    global __codegym_stop__",
        "    __codegym_stop__ = stop",
        "    return f(*args)",
        "",
    ]


def test_tabs_and_deep_indentation_are_kept():
    lines = ["\tv1 = v0", "\tif v1:", "\t\tv2 = v1"]
    task = Task(task_id="t", prompt="def f(v0):\n", entry_point="f", tests=TASK.tests, metadata=TASK.metadata)
    _, module = read_steps(task, lines).job
    compile(module, "module", "exec")
    assert "\n\tif __codegym_stop__ == 0: return v1\n\tif v1:" in module


@pytest.mark.parametrize("lines", [[V1 + "\\", "", V2], [V1, V2 + " \\", ""], [V1 + "  # \\", V2]])
def test_a_backslash_at_the_end_of_a_step_does_not_swallow_the_stop(lines):
    _, module = read_steps(TASK, lines).job
    namespace = {}
    exec(module, namespace)
    assert namespace["__codegym_probe__"](0, [1, 2]) == [2, 3]
    assert namespace["__codegym_probe__"](1, [1, 2]) == [4, 6]


HOSTILE = [
    "-" * 20_000 + "1",
    "    v1 = " + "(" * 5_000,
    "    v1 = a" + ".b" * 20_000,
    "    v1 = " + "not " * 20_000 + "1",
    "    v1 = 9**9**9**9",
    "    v1 = " + "1" * 10_000,
    "    v1 = '\ud800'",
    "    v1 = 'a\0b'",
    "    v1 = '\\d' is 3",
    "    v1 = f'{f'{1}'}'",
    "    import os; os._exit(3)",
    "    while True: pass",
]


@pytest.mark.parametrize("line", HOSTILE, ids=lambda line: line.strip()[:12])
def test_hostile_lines_are_read_not_run(line):
    found, n_sound = steps([line, V2])
    assert n_sound in (0, 2)
    assert all(last <= n_sound for _, last in found)


PIECES = [
    "    v1 = v0",
    "    v2 = [",
    "    ]",
    "    for v3 in v0:",
    "        v1 = 2",
    "x",
    "    return v1",
    "  #",
    "",
    "\r",
]


@settings(max_examples=150)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=8).filter(lambda t: "\n" not in t), max_size=8))
def test_any_text_reads_as_ordered_steps_within_the_sound_lines(lines):
    program = read_steps(TASK, lines)
    last = [step.last_line for step in program.steps]
    assert last == sorted(last)
    assert 0 <= program.n_sound <= len(lines)
    assert not last or 1 <= last[0] <= last[-1] <= program.n_sound
    if program.job is not None:
        compile(program.job[1], "module", "exec")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "task 't' has no trace"),
        (
            {"trace": {"args": [], "values": {"v1": []}}},
            "each traced value needs one entry for each of 0 calls",
        ),
        (
            {"trace": {"args": [[1]], "values": {"v1": []}}},
            "each traced value needs one entry for each of 1 calls",
        ),
    ],
)
def test_a_task_without_a_sound_trace_is_refused(metadata, message):
    task = Task(task_id="t", prompt="def f():\n", entry_point="f", tests=TASK.tests, metadata=metadata)
    with pytest.raises(TaskError, match=message):
        read_steps(task, [V1])


def test_a_function_on_one_line_has_no_steps():
    task = Task(
        task_id="t",
        prompt="",
        entry_point="f",
        tests=TASK.tests,
        metadata=TASK.metadata,
        prompt_is_code=False,
    )
    assert read_steps(task, ["def f(v0): v1 = v0"]).steps == ()
    assert read_steps(task, ["def f(v0):", "    v1 = v0"]).steps == (Step(names=("v1",), last_line=2),)
