"""The benchmarks of labels: their tables by hand, and both sides of the speed comparison on real tasks."""

import json
from dataclasses import replace

import pytest

from benchmarks.label_quality import ARMS, EXACT, SCAN, SEARCH, Options, measure, report, stepwise
from benchmarks.labeling_speed import Row, run_alone, table
from codegym import Task, Verdict, load_tasks
from codegym.task import CallTest
from codegym.testing import DOUBLE
from prm.program import LabeledProgram, SampledProgram


def task(number, horizon):
    test = CallTest(args=(), expected=0)
    return Task(
        task_id=f"t{number}", prompt="", entry_point="f", tests=(test,), metadata={"horizon": horizon}
    )


def labeled(number, labels, *, source, completions, probes=None):
    program = SampledProgram(
        program_id=f"p{number}",
        task_id=f"t{number}",
        policy="p",
        prompt_ids=(1,),
        token_ids=(2, 0),
        completion="x = 1\n" * len(labels),
        finished=True,
        verdict=Verdict.WRONG_ANSWER,
        results=(False,),
    )
    return LabeledProgram(
        program=program,
        labels=tuple(map(float, labels)),
        source=source,
        probes=probes or {},
        cost={"completions": completions},
        seconds=0.5,
    )


TASKS = {f"t{number}": task(number, horizon) for number, horizon in enumerate((2, 2, 4))}
SCANNED = [
    labeled(0, (1, -1), source="full_scan", completions=8, probes={1: (2, 4), 2: (0, 4)}),
    labeled(1, (-1, 1), source="full_scan", completions=8, probes={1: (0, 4), 2: (1, 4)}),
    labeled(2, (1, 1, -1), source="full_scan", completions=12, probes={1: (4, 4), 2: (2, 4), 3: (0, 4)}),
]
SEARCHED = [
    labeled(0, (1, -1), source="binary_search", completions=8),
    labeled(1, (-1, -1), source="binary_search", completions=4),
    labeled(2, (1, 1, -1), source="binary_search", completions=6),
]
TRUE = [
    labeled(0, (1, 1), source="reference", completions=0),
    labeled(1, (-1, -1), source="reference", completions=0),
    labeled(2, (1, 1, -1), source="reference", completions=0),
]


@pytest.fixture(scope="module")
def rows():
    return measure({SCAN: SCANNED, SEARCH: SEARCHED, EXACT: TRUE}, TASKS, k=4)


def test_a_row_per_arm_and_horizon(rows):
    assert [(row["arm"], row["horizon"]) for row in rows] == [
        (arm, horizon) for arm in (SCAN, SEARCH) for horizon in (2, 4, None)
    ]
    json.dumps(rows)


def test_numbers_by_hand(rows):
    short, long, everything = rows[3:]
    assert (short["programs"], short["prefixes"]) == (2, 4)
    assert short["line_agreement"].value == 0.75
    assert short["violations"].value == 0.5
    assert short["completions_vs_full_scan"] == pytest.approx(12 / 16)
    assert long["line_agreement"].value == long["exact"]["line_agreement"] == 1
    assert everything["completions_per_program"] == 6
    assert everything["exact"]["line_agreement"] == pytest.approx(6 / 7)
    assert everything["exact"]["right_called_wrong"] == pytest.approx(1 / 7)
    assert everything["seconds"] == 1.5
    assert rows[2]["line_agreement"].value == rows[2]["completions_vs_full_scan"] == 1  # the scan with itself


def test_the_report_shows_every_horizon_and_arm(rows):
    text = report(rows)
    assert "| 2 | 2 | 4 | 0.500 | 0.750 [" in text
    assert "| all | 3 | 7 |" in text
    assert "| scan | 9.3 | 1.000 |" in text
    assert "| search | 6.0 | 0.643 |" in text


def test_the_tasks_are_held_out_and_of_the_asked_horizons():
    tasks = stepwise(Options(scale="smoke"))
    assert [task.metadata["horizon"] for task in tasks] == [2] * 12 + [4] * 12
    assert {task.split for task in tasks} == {"test"}
    assert SEARCH in ARMS


# ---------------------------------------------------------------- speed


@pytest.mark.parametrize(
    ("completion", "passes"),
    [
        ("    return 2 * x\n", True),
        ("    return x * x\n", False),
        ("    raise SystemExit(1)\n", False),
        ("    return (\n", False),
        ("    return '\0'\n", False),
    ],
)
def test_the_naive_verdict_is_that_of_the_tests(completion, passes):
    assert run_alone(DOUBLE, completion) is passes


def test_the_naive_verdict_agrees_on_stepwise_references():
    (task,) = load_tasks("stepwise", limit=1)
    assert run_alone(task, task.reference)
    assert not run_alone(replace(task, tests=(replace(task.tests[0], expected=object),)), task.reference)


def test_the_speed_table_has_a_line_per_size():
    row = Row(
        programs=2, prefixes=20, completions=160, ours=123.4, naive=4.5, naive_sampling_share=0.25,
        ratio=27.4, lowest_ratio=20.0,
    )  # fmt: skip
    assert table([row]).splitlines()[2] == "| 2 | 20 | 160 | 123.4 | 4.5 | 0.25 | 27.4 | 20.0 |"
