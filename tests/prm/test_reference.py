"""Exact labels by execution: hand-made programs with known labels, run by the real judge."""

import random
from dataclasses import replace

import pytest

from codegym import CallTest, Episode, Task, TaskError, Verdict, load_tasks, make_judge
from codegym.rewards import LineScorer
from codegym.rewards.process import ProcessReward
from codegym.testing import ScriptedJudge, judgement
from prm.program import SampledProgram
from prm.reference import ReferenceLabeler, ReferenceScorer

INPUTS = [[3, 1, 2], [5], [4, 4]]
SORTED = [sorted(numbers) for numbers in INPUTS]
DOUBLED = [[2 * x for x in numbers] for numbers in SORTED]
SHIFTED = [[x + 1 for x in numbers] for numbers in DOUBLED]
TOTALS = [sum(numbers) for numbers in SHIFTED]
TASK = Task(
    task_id="t",
    prompt='def f(v0):\n    """Sort, double, add one, sum."""\n',
    entry_point="f",
    tests=tuple(
        CallTest(args=(numbers,), expected=total) for numbers, total in zip(INPUTS, TOTALS, strict=True)
    ),
    reference="    v1 = sorted(v0)\n    v2 = [x * 2 for x in v1]\n"
    "    v3 = [x + 1 for x in v2]\n    return sum(v3)\n",
    metadata={
        "trace": {
            "args": [[numbers] for numbers in INPUTS],
            "values": {"v1": SORTED, "v2": DOUBLED, "v3": SHIFTED, "return": TOTALS},
        }
    },
)
V1, V2, V3, RETURN = TASK.reference.splitlines()


@pytest.fixture(scope="module")
def judge():
    with make_judge("local", workers=1) as judge:
        yield judge


def sampled(lines, *, passed=False, number=0, task=TASK):
    return SampledProgram(
        program_id=f"p/{task.task_id}/{number}",
        task_id=task.task_id,
        policy="p",
        prompt_ids=(1,),
        token_ids=(1, 0),
        completion="".join(f"{line}\n" for line in lines),
        finished=True,
        verdict=Verdict.PASSED if passed else Verdict.WRONG_ANSWER,
        results=(passed,) * len(task.tests),
    )


BY_HAND = {
    "wrong second step": ([V1, "    v2 = [x + x + 1 for x in v1]", V3, RETURN], [1, -1, -1, -1]),
    "wrong first step": (["    v1 = v0", V2, V3, RETURN], [-1, -1, -1, -1]),
    "wrong return": ([V1, V2, V3, "    return max(v3)"], [1, 1, 1, -1]),
    "no return": ([V1, V2, V3], [1, 1, 1]),
    "stopped early": ([V1, V2], [1, 1]),
    "returned early": ([V1, V2, "    return v2", V3], [1, 1, -1, -1]),
    "a wrong step of three lines": (
        [V1, "    v2 = []", "    for x in v1:", "        v2.append(x * 3)", V3, RETURN],
        [1, 1, 1, -1, -1, -1],
    ),
    "all steps in one statement, one of them wrong": (
        ["    if True:", f"    {V1}", "        v2 = v1", f"    {V3}", RETURN],
        [-1, -1, -1, -1, -1],
    ),
    "a right step, then a wrong one and the rest in one statement": (
        [V1, "    try:", "        v2 = v1", f"    {V3}", "    finally:", "        pass", RETURN],
        [1, -1, -1, -1, -1, -1, -1],
    ),
    "all steps in one statement, all right": (
        ["    if True:", f"    {V1}", f"    {V2}", f"    {V3}", "    return max(v3)"],
        [1, 1, 1, 1, -1],
    ),
    "a right step of three lines": (
        [V1, "    v2 = []", "    for x in v1:", "        v2.append(x * 2)", "    v3 = v2", RETURN],
        [1, 1, 1, 1, -1, -1],
    ),
    "comments and blanks": (
        ["    # sort", V1, "", "    v2 = v1  # forgot", "    # shift", "", V3, RETURN],
        [0, 1, 0, -1, 0, 0, -1, -1],
    ),
    "a comment inside a wrong step": (
        [V1, "    v2 = v1", "    # so", "    v2 = v2", RETURN],
        [1, 1, 0, -1, -1],
    ),
    "skipped step, wrong after": ([V1, "    v3 = [x + 1 for x in v1]", "    return sum(v3)"], [1, -1, -1]),
    "skipped step, right after": ([V1, "    v3 = [x * 2 + 1 for x in v1]", "    return max(v3)"], [1, 1, -1]),
    "repaired within its step": (
        [V1, "    v2 = v1", "    v2 = [x * 2 for x in v2]", "    v3 = v2"],
        [1, 1, 1, -1],
    ),
    "two names, one wrong": (["    v1 = v2 = sorted(v0)", V3], [-1, -1]),
    "syntax error starts a step": ([V1, V2, "    v3 = [x + 1 for x in v2", RETURN], [1, 1, -1, -1]),
    "syntax error inside a step": (
        [V1, "    v2 = []", "    for x in v1", "        pass", V3],
        [1, 1, -1, -1, -1],
    ),
    "syntax error after a wrong step": (["    v1 = v0", "    v2 = (", V3], [-1, -1, -1]),
    "syntax error at once": (["    v1 = sorted(v0", V2], [-1, -1]),
    "wrong indentation": ([V1, "      v2 = v1", RETURN], [1, -1, -1]),
    "raises in a step": ([V1, "    v2 = 1 // 0", V3, RETURN], [1, -1, -1, -1]),
    "raises for one input only": ([V1, "    v2 = [x * 2 for x in v1] if v1[1] else 0", V3], [1, -1, -1]),
    "undefined name": ([V1, V2, "    v3 = v9", RETURN], [1, 1, -1, -1]),
    "endless step": ([V1, V2, "    while True: v3 = 1", RETURN], [1, 1, -1, -1]),
    "spoils an earlier value later": (
        [V1, V2, "    v3 = v2; v1.clear(); v2.clear()", RETURN],
        [1, 1, -1, -1],
    ),
    "a tuple is not a list": (["    v1 = tuple(sorted(v0))", V2], [-1, -1]),
    "True is not 1": ([V1, "    v2 = [x * 2.0 for x in v1]"], [1, -1]),
    "leaves the process": ([V1, "    import os; v2 = os._exit(0)", V3], [1, -1, -1]),
    "lying object": (
        [V1, "    class L(list):", "        __eq__ = lambda s, o: True", "    v2 = L([7])", V3],
        [1, 1, 1, -1, -1],
    ),
    "outside the function": ([V1, "v2 = 3", V3, "x = 1"], [1, -1, -1, -1]),
    "junk after the function": ([V1, V2, "v3 = 3", "# end"], [1, 1, -1, 0]),
    "redefines the function": ([V1, V2, "def f(v0):", "    return 3"], [1, 1, -1, -1]),
    "empty": ([], []),
    "only a comment": (["    # todo"], [0]),
    "hostile text": (["    v1 = '\ud800'", "    v2 = '\0'"], [-1, -1]),
    "prints and exits": ([V1, "    print('PASSED'); raise SystemExit(0)", V2], [1, -1, -1]),
}


def test_labels_by_hand(judge):
    programs = [sampled(lines, number=number) for number, (lines, _) in enumerate(BY_HAND.values())]
    found = ReferenceLabeler(judge).label(programs, {"t": TASK})
    labels = dict(zip(BY_HAND, (list(labeled.labels) for labeled in found), strict=True))
    assert labels == {name: expected for name, (_, expected) in BY_HAND.items()}


def test_scores_are_the_labels(judge):
    episodes = [sampled(lines).episode(TASK) for lines, _ in BY_HAND.values()]
    scorer = ReferenceScorer(judge)
    assert isinstance(scorer, LineScorer)
    for (name, (_, expected)), scores in zip(BY_HAND.items(), scorer.score(episodes), strict=True):
        assert scores.tolist() == expected, name


def test_scores_of_unfinished_programs(judge):
    prefixes = [
        Episode(task=TASK, lines=(V1, "    v2 = []", "    for x in v1:", "        v2.append(2 * x)")[:n])
        for n in range(5)
    ]
    scores = [row.tolist() for row in ReferenceScorer(judge).score(prefixes)]
    # a step that needs more lines is wrong while it is not complete
    assert scores == [[], [1], [1, -1], [1, 1, -1], [1, 1, 1, 1]]


def test_a_program_that_passes_is_right_however_it_got_there():
    unused = ScriptedJudge(lambda task, source: judgement(task, 0))
    lines = ["    # at once", "    return sum(2 * x + 1 for x in v0)"]
    (labeled,) = ReferenceLabeler(unused).label([sampled(lines, passed=True)], {"t": TASK})
    assert labeled.labels == (0, 1)
    assert labeled.cost["verdicts"] == 0
    assert [
        row.tolist() for row in ReferenceScorer(unused).score([sampled(lines, passed=True).episode(TASK)])
    ] == [[0, 1]]
    assert unused.batches == [[], []]


def test_all_programs_are_one_batch_of_one_job_each():
    scripted = ScriptedJudge(lambda task, source: judgement(task, 4))
    programs = [sampled([V1, V2, RETURN]), sampled(["(", V1]), sampled([V1], passed=True), sampled([V1, V2])]
    found = ReferenceLabeler(scripted).label(programs, {"t": TASK})
    # 4 of the first tests pass: v1 for all three calls, v2 for one of them
    assert [labeled.labels for labeled in found] == [(1, -1, -1), (-1, -1), (1,), (1, -1)]
    assert [len(batch) for batch in scripted.batches] == [2]
    assert [labeled.cost["verdicts"] for labeled in found] == [1, 0, 0, 1]
    assert {labeled.source for labeled in found} == {"reference"}


def test_tasks_without_a_trace_are_refused(judge):
    bare = replace(TASK, metadata={})
    with pytest.raises(TaskError, match="'t' has no trace"):
        ReferenceLabeler(judge).label([sampled([V1])], {"t": bare})
    with pytest.raises(TaskError, match="'t' has no trace"):
        ReferenceScorer(judge).score([Episode(task=bare, lines=(V1,))])
    with pytest.raises(TaskError, match="which is not given"):
        ReferenceLabeler(judge).label([sampled([V1])], {})


def test_stepwise_references_are_right_and_any_wrong_step_is_found(judge):
    """Replace one step of a reference by nonsense: the lines before it stay right, the rest turns wrong."""
    rng = random.Random(0)
    tasks = load_tasks("stepwise", limit=30, seed=3)
    right = [sampled(task.reference.splitlines(), number=n, task=task) for n, task in enumerate(tasks)]
    spoiled, flips = [], []
    for number, task in enumerate(tasks):
        lines = task.reference.splitlines()
        starts = [
            at
            for at, line in enumerate(lines)
            if line.startswith("    v") and " = " in line and "[]" not in line
        ]
        starts = [
            at for at in starts if at + 1 < len(lines) and lines[at + 1].startswith(("    v", "    return"))
        ] or [0]
        flips.append(rng.choice(starts))
        name = lines[flips[-1]].split()[0]
        lines[flips[-1]] = f"    {name} = 'nonsense'"
        spoiled.append(sampled(lines, number=number, task=task))
    by_id = {task.task_id: task for task in tasks}
    labeler = ReferenceLabeler(judge)
    assert all(min(labeled.labels) == 1 for labeled in labeler.label(right, by_id))
    for labeled, flip in zip(labeler.label(spoiled, by_id), flips, strict=True):
        n_lines = len(labeled.labels)
        assert labeled.labels in {
            (1.0,) * flip + (-1.0,) * (n_lines - flip),
            (1.0,) * (flip + 1) + (-1.0,) * (n_lines - flip - 1),  # a second line of the same step follows
        }


def test_the_oracle_pays_progress(judge):
    scheme = ProcessReward.from_scorer(ReferenceScorer(judge))
    failing = sampled([V1, V2, "    v3 = v2", RETURN]).episode(TASK)
    assert scheme.credit([failing])[0] == pytest.approx([0.25, 0.25, 0, 0, 0])
