"""Mutants: one bug each, labelled from the mutated line on; held against labels by execution."""

import ast
import logging
from dataclasses import replace
from difflib import SequenceMatcher

import pytest

from codegym import Task, TaskError, UnknownNameError, Verdict, load_tasks, make_judge
from codegym.task import CallTest, StdioTest
from codegym.tasks.operations import OPERATIONS
from codegym.testing import DOUBLE, ScriptedJudge, judgement
from prm.mutation import MUTATORS, POLICY, MutationLabeler, mutate
from prm.mutators import changed_expressions, documented_bugs
from prm.reference import ReferenceLabeler

TASK = Task(
    task_id="t",
    prompt="def f(v):\n",
    entry_point="f",
    tests=(CallTest(args=([3, 1],), expected=8),),
    reference="    w = [x * 2 for x in v]\n    # add\n    return sum(w)\n",
)


class Characters:
    """One token per character; 0 ends a program."""

    eos_token_id = 0

    def encode(self, text, *, add_special_tokens=True):
        return [1] * add_special_tokens + [ord(letter) for letter in text]


class Endless(Characters):
    eos_token_id = None


@pytest.fixture(scope="module")
def judge():
    with make_judge("local", workers=1) as judge:
        yield judge


def fails(task, source):
    return judgement(task, len(task.tests) * (source == task.assemble(task.reference)))


# ---------------------------------------------------------------- ways to spoil a program


def changed(reference, **fields):
    return list(changed_expressions(replace(TASK, reference=reference, **fields)))


@pytest.mark.parametrize(
    ("line", "mutants"),
    [
        ("v + w", {"v - w"}),
        ("v  *  w", {"v  +  w", "v  //  w"}),
        ("v // w", {"v / w", "v % w"}),
        ("v ** w", {"v * w"}),
        ("v & w | x", {"v | w | x", "v & w & x"}),
        ("v << w", {"v >> w"}),
        ("v < w", {"v <= w", "v > w"}),
        ("v < w == x", {"v <= w == x", "v > w == x", "v < w != x"}),
        ("v in w", {"v not in w"}),
        ("v not in w", {"v in w"}),
        ("v is w", set()),
        ("v and w and x", {"v or w and x", "v and w or x"}),
        ("not v", {"v"}),
        ("-v", {"v"}),
        ("7", {"6", "8"}),
        ("0", {"1"}),
        ("True", {"False"}),
        ("1.5", set()),
        ("'text'", set()),
        ("f'{v + 1}'", set()),
        ("min(v)", {"max(v)"}),
        ("sorted(v)", {"list(v)", "reversed(v)"}),
        ("v.upper()", {"v.lower()"}),
        ("'é' + v", {"'é' - v"}),
        ("(v) + (w)", {"(v) - (w)"}),
    ],
)
def test_expressions_by_hand(line, mutants):
    assert set(changed(f"    return {line}\n")) == {f"    return {mutant}\n" for mutant in mutants}


def test_the_prompt_is_never_changed():
    task = replace(TASK, prompt="def f(v, w=1 + 2):\n    u = 3\n")
    assert all(task.assemble(text).startswith(task.prompt) for text in changed_expressions(task))
    assert len(list(changed_expressions(task))) == 2 + 2 + 2  # *, 2 and sum


def test_operators_over_two_lines_stay():
    assert changed("    return (v +\n        w)\n") == []


def test_whole_programs_can_be_spoiled_too():
    task = replace(
        TASK,
        prompt="Double it.",
        prompt_is_code=False,
        entry_point=None,
        tests=(StdioTest(stdin="2", stdout="4"),),
        reference="print(int(input()) * 2)\n",
    )
    assert set(changed_expressions(task)) == {
        "print(int(input()) + 2)\n",
        "print(int(input()) // 2)\n",
        "print(int(input()) * 1)\n",
        "print(int(input()) * 3)\n",
    }


@pytest.mark.parametrize("reference", [None, "    return (\n", "    return '\0'\n"])
def test_what_cannot_be_read_has_no_mutants(reference):
    assert list(changed_expressions(replace(TASK, reference=reference))) == []
    assert list(documented_bugs(replace(TASK, reference=reference))) == []


def test_each_change_touches_one_place_and_still_parses():
    for task in load_tasks("stepwise", limit=20):
        for text in changed_expressions(task):
            ast.parse(task.assemble(text))
            blocks = SequenceMatcher(None, task.reference, text, autojunk=False).get_opcodes()
            different = [lines for tag, *lines in blocks if tag != "equal"]
            ours, theirs = task.reference.split("\n"), text.split("\n")
            assert different
            assert sum(a != b for a, b in zip(ours, theirs, strict=True)) == 1


def test_every_documented_bug_of_every_step_is_there():
    for task in load_tasks("stepwise", limit=12):
        bugs = [len(OPERATIONS[name].wrong) for name in task.metadata["operations"]]
        mutants = list(documented_bugs(task))
        assert len(mutants) == sum(bugs)
        last = task.reference.splitlines()[-1]
        for text in mutants:
            ast.parse(task.assemble(text))
            assert text.splitlines()[-1] == last


def test_tasks_without_documented_bugs_have_none():
    assert list(documented_bugs(TASK)) == []


# ---------------------------------------------------------------- making programs of them


def test_mutants_are_programs_with_tokens_and_a_verdict():
    programs = mutate([TASK], ScriptedJudge(fails), Characters(), n=100)
    assert {p.completion for p in programs} == set(changed_expressions(TASK))
    for number, program in enumerate(programs):
        assert (program.program_id, program.policy) == (f"mutation/t/{number}", POLICY)
        assert program.prompt_ids == (1, *map(ord, TASK.prompt))
        assert program.token_ids == (*map(ord, program.completion), 0)
        assert (program.finished, program.verdict, program.results) == (True, Verdict.WRONG_ANSWER, (False,))


def test_at_most_so_many_are_drawn_and_the_seed_repeats_them():
    tasks = list(load_tasks("stepwise", limit=4))

    def draw(seed, chosen=tasks):
        return [p.completion for p in mutate(chosen, ScriptedJudge(fails), Characters(), n=3, seed=seed)]

    assert draw(0) == draw(0) != draw(1)
    assert len(draw(0)) == len(set(draw(0))) == 12
    assert draw(0, tasks[2:]) == draw(0)[6:]  # a task's mutants do not depend on the other tasks


def test_references_and_mutants_are_one_batch():
    scripted = ScriptedJudge(fails)
    mutate([TASK, replace(TASK, task_id="u")], scripted, Characters(), n=2)
    assert [len(batch) for batch in scripted.batches] == [6]


def test_mutants_that_pass_are_dropped_or_kept():
    def decide(task, source):
        return judgement(task, int("+ 2" not in source))

    some = mutate([TASK], ScriptedJudge(decide), Characters(), n=100)
    every = mutate([TASK], ScriptedJudge(decide), Characters(), n=100, keep_passing=True)
    assert [p.completion for p in some] == [TASK.reference.replace("x * 2", "x + 2")]
    assert len(every) == 6
    assert sum(p.passed for p in every) == 5
    assert {p.program_id for p in some} < {p.program_id for p in every}


def test_a_reference_that_fails_gives_no_mutants(caplog):
    with caplog.at_level(logging.WARNING):
        broken = ScriptedJudge(
            lambda task, source: judgement(task, int(task.task_id == "u" and fails(task, source).passed))
        )
        programs = mutate([TASK, replace(TASK, task_id="u")], broken, Characters(), n=100)
    assert {p.task_id for p in programs} == {"u"}
    assert "reference of task 't' fails its own tests" in caplog.text


def test_what_is_missing_is_named():
    scripted = ScriptedJudge(fails)
    with pytest.raises(TaskError, match="task 't' has no reference to mutate"):
        mutate([replace(TASK, reference=None)], scripted, Characters(), n=1)
    with pytest.raises(UnknownNameError, match=r"unknown mutator 'bug' .*choose from ast, bugs"):
        mutate([TASK], scripted, Characters(), n=1, mutators=["bug"])
    with pytest.raises(ValueError, match="names no end-of-text token"):
        mutate([TASK], scripted, Endless(), n=1)


# ---------------------------------------------------------------- labels


def mutant(text, *, passed=False, policy=POLICY):
    (program,) = mutate([DOUBLE], ScriptedJudge(fails), Characters(), n=1)
    verdict = Verdict.PASSED if passed else Verdict.WRONG_ANSWER
    return replace(program, completion=text, verdict=verdict, policy=policy, results=(passed,))


BY_HAND = {
    "the last line": ("    y = x + x\n    return x\n", False, (1, -1)),
    "the first line": ("    y = x - x\n    return y\n", False, (-1, -1)),
    "more lines than the reference": (
        "    y = x + x\n    # now\n    z = y\n    return -z\n",
        False,
        (1, 0, -1, -1),
    ),
    "fewer lines": ("    return x\n", False, (-1,)),
    "cut short": ("    y = x + x\n", False, (1,)),
    "passes": ("    y = 2 * x\n    return y\n", True, (1, 1)),
    "nothing": ("", False, ()),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_labels_by_hand(case):
    text, passed, labels = BY_HAND[case]
    (labeled,) = MutationLabeler().label([mutant(text, passed=passed)], {DOUBLE.task_id: DOUBLE})
    assert labeled.labels == labels
    assert (labeled.source, labeled.completer, labeled.probes) == ("mutation", "", {})
    assert labeled.cost == {"completions": 0, "tokens": 0, "verdicts": 1}


def test_a_wrong_line_makes_its_whole_statement_wrong():
    task = replace(DOUBLE, reference="    y = (\n        x +\n        x)\n    return y\n")
    text = "    y = (\n        x +\n        1)\n    return y\n"
    labels = [
        MutationLabeler(step=step).label([mutant(text)], {DOUBLE.task_id: task})[0].labels
        for step in ("line", "statement")
    ]
    assert labels == [(1, 1, -1, -1), (-1, -1, -1, -1)]


def test_programs_that_are_no_mutants_are_refused():
    with pytest.raises(ValueError, match="was written by 'sft': only mutants"):
        MutationLabeler().label([mutant("", policy="sft")], {DOUBLE.task_id: DOUBLE})
    with pytest.raises(TaskError, match="which is not given"):
        MutationLabeler().label([mutant("")], {})
    with pytest.raises(TaskError, match="no reference"):
        MutationLabeler().label([mutant("")], {DOUBLE.task_id: replace(DOUBLE, reference=None)})
    with pytest.raises(UnknownNameError, match="kind of step 'word'"):
        MutationLabeler(step="word")


@pytest.mark.parametrize("mutator", MUTATORS)
def test_execution_finds_the_same_line_up_to_the_step_it_is_in(judge, mutator):
    """The two agree everywhere but inside the mutated step, of which execution sees only the end."""
    tasks = {task.task_id: task for task in load_tasks("stepwise", limit=24, horizons=(2, 6), seed=5)}
    programs = mutate(list(tasks.values()), judge, Characters(), n=3, mutators=[mutator])
    assert len(programs) > 50
    mutated = MutationLabeler().label(programs, tasks)
    executed = ReferenceLabeler(judge).label(programs, tasks)
    same = 0
    for by_mutation, by_execution in zip(mutated, executed, strict=True):
        first, found = by_mutation.labels.index(-1), by_execution.labels.index(-1)
        lines = by_mutation.program.lines
        step_starts = [at for at, line in enumerate(lines) if line.startswith(("    v", "    return"))]
        step_end = next((at for at in step_starts if at > first and not is_continued(lines, at)), len(lines))
        assert first <= found < max(step_end, first + 1), by_mutation.program.completion
        same += first == found
    assert same > 0.7 * len(programs)


def is_continued(lines, at):
    """Whether a line goes on with the variable of the line before: `v3 += ...` after `v3 = []`."""
    return lines[at].split()[0].split(".")[0] == lines[at - 1].split()[0].split(".")[0]


def test_the_judge_confirms_every_documented_bug(judge):
    tasks = list(load_tasks("stepwise", limit=8, horizons=(1, 4), seed=1))
    programs = mutate(tasks, judge, Characters(), n=1000, mutators=["bugs"], keep_passing=True)
    assert len(programs) > 40
    assert not any(program.passed for program in programs)
