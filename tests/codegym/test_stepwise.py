"""The stepwise source: deterministic, lazy, disjoint splits, and tests that kill every single-step bug."""

import ast
import json
import re
import time
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import UnknownNameError, load_tasks
from codegym.task import Task
from codegym.tasks.operations import OPERATIONS
from codegym.tasks.stepwise import StepwiseTasks, load
from codegym.tasks.stepwise_generator import LARGEST_NUMBER, LONGEST_LIST
from codegym.tasks.stepwise_programs import (
    ENDINGS,
    ENTRY_POINT,
    SPLITS,
    Step,
    draw_step,
    split_of,
    write_program,
)


def run(task: Task, completion: str) -> list[Any]:
    """What our own (trusted) code returns for each test's arguments; an exception is its own answer."""
    namespace: dict[str, Any] = {}
    exec(task.assemble(completion), namespace)
    answers = []
    for test in task.tests:
        try:
            answers.append(namespace[task.entry_point]([*test.args[0]]))
        except (TypeError, IndexError, ValueError, AttributeError) as error:
            answers.append(error)
    return answers


def passes(task: Task, completion: str) -> bool:
    expected = [test.expected for test in task.tests]
    return [repr(answer) for answer in run(task, completion)] == [repr(answer) for answer in expected]


def steps_of(task: Task) -> list[Step]:
    return [
        Step(OPERATIONS[name], k)
        for name, k in zip(task.metadata["operations"], task.metadata["parameters"], strict=True)
    ]


def ending_of(task: Task) -> Any:
    (ending,) = [each for each in ENDINGS if f"    {each.phrase}\n" in task.prompt]
    return ending


SAMPLE = [*load(limit=22, seed=4), *load(split="test", limit=11, seed=4)]
samples = pytest.mark.parametrize("task", SAMPLE, ids=lambda task: task.task_id)


@samples
def test_the_reference_passes(task: Task):
    assert passes(task, task.reference)


@samples
def test_every_bug_of_every_step_fails_a_test(task: Task):
    steps, ending = steps_of(task), ending_of(task)
    right = [step.operation.right[0] for step in steps]
    for number, step in enumerate(steps):
        for wrong in step.operation.wrong:
            mutant = write_program([*right[:number], wrong, *right[number + 1 :]], steps, ending)
            assert not passes(task, mutant), mutant


@samples
def test_every_right_implementation_of_every_step_passes(task: Task):
    steps, ending = steps_of(task), ending_of(task)
    for choice in range(3):
        templates = [step.operation.right[choice % len(step.operation.right)] for step in steps]
        assert passes(task, write_program(templates, steps, ending))


@samples
def test_the_trace_is_what_the_reference_computes(task: Task):
    trace = task.metadata["trace"]
    assert trace["args"] == [list(test.args) for test in task.tests]
    assert trace["values"]["return"] == [test.expected for test in task.tests]
    head = task.reference[: task.reference.rindex("    return ")]
    for number in range(1, task.metadata["horizon"] + 1):
        assert run(task, f"{head}    return v{number}\n") == trace["values"][f"v{number}"]
    assert len(trace["values"]) == task.metadata["horizon"] + 1


@samples
def test_the_outputs_are_diverse_and_the_values_tame(task: Task):
    assert len({repr(test.expected) for test in task.tests}) >= 6
    for name, lists in task.metadata["trace"]["values"].items():
        if name != "return":
            assert all(len(numbers) <= LONGEST_LIST for numbers in lists)
            assert all(type(n) is int and abs(n) <= LARGEST_NUMBER for numbers in lists for n in numbers)


@samples
def test_the_prompt_asks_for_the_steps_by_number_in_words(task: Task):
    asked = re.findall(r"^    v(\d+): (.+)$", task.prompt, flags=re.MULTILINE)
    assert [int(number) for number, _ in asked] == list(range(1, task.metadata["horizon"] + 1))
    for (_, phrase), step in zip(asked, steps_of(task), strict=True):
        assert phrase in [each.format(k=step.k) for each in step.operation.phrases]
    assert task.prompt.startswith(f"def {ENTRY_POINT}(v0):\n")
    assert task.prompt.endswith(f'    {ending_of(task).phrase}\n    """\n')
    ast.parse(task.prompt)


@samples
def test_a_task_is_complete_and_its_metadata_plain_json(task: Task):
    assert task.entry_point == ENTRY_POINT
    assert task.prompt_is_code
    assert len(task.tests) == 8
    assert task.metadata["horizon"] == len(task.metadata["operations"])
    assert json.loads(json.dumps(task.metadata)) == task.metadata
    assert len(json.dumps(task.metadata)) < 16_000


@samples
def test_step_k_first_binds_variable_k_and_the_last_line_returns(task: Task):
    lines = task.reference.splitlines()
    firsts = [re.match(r"    (v\d+) = ", line) for line in lines]
    bound = list(dict.fromkeys(match[1] for match in firsts if match))
    assert bound == [f"v{number}" for number in range(1, task.metadata["horizon"] + 1)]
    assert lines[-1].startswith("    return ")
    assert sum(line.startswith("    return ") for line in lines) == 1


def test_an_empty_or_constant_program_fails():
    for task in SAMPLE[:8]:
        assert not passes(task, "    return v0\n")
        assert not passes(task, f"    return {task.tests[0].expected!r}\n")
        assert not passes(task, "    pass\n")


def test_the_same_arguments_make_the_same_tasks_in_any_order():
    forwards = load(limit=6, seed=9)
    backwards = load(limit=30, seed=9)
    assert [backwards[index] for index in reversed(range(6))] == [*forwards][::-1]


def test_other_seeds_splits_and_horizons_make_other_tasks():
    base = load(limit=4, horizons=(5, 8))
    prompts = {task.prompt for task in base}
    for other in (
        load(limit=4, horizons=(5, 8), seed=1),
        load(limit=4, horizons=(5, 8), split="test"),
        load(limit=4, horizons=(5, 9)),
    ):
        assert not prompts & {task.prompt for task in other}
        assert not {task.task_id for task in base} & {task.task_id for task in other}


def test_task_ids_are_unique():
    tasks = load(limit=64, horizons=(2, 3))
    assert len({task.task_id for task in tasks}) == 64


@pytest.mark.parametrize("split", SPLITS)
def test_every_task_belongs_to_its_split_and_to_no_other(split: str):
    for task in load(split=split, limit=40, horizons=(1, 5), seed=2):
        assert task.split == split
        assert split_of(steps_of(task)) == split


def test_splits_share_no_steps_under_any_seed():
    asked = {
        split: {
            (tuple(task.metadata["operations"]), tuple(task.metadata["parameters"]))
            for seed in range(4)
            for task in load(split=split, limit=60, horizons=(1, 2), seed=seed)
        }
        for split in SPLITS
    }
    assert not asked["train"] & asked["test"]
    assert not asked["train"] & asked["validation"]
    assert not asked["validation"] & asked["test"]


@given(seed=st.integers(0, 10**6), horizon=st.integers(1, 12))
@settings(max_examples=50)
def test_the_split_depends_on_the_steps_alone(seed: int, horizon: int):
    steps = [draw_step(Random(seed + number)) for number in range(horizon)]
    assert split_of(steps) == split_of(tuple(steps))
    assert split_of(steps) in SPLITS


def test_the_splits_have_their_shares():
    rng = Random(0)
    drawn = [split_of([draw_step(rng), draw_step(rng)]) for _ in range(4000)]
    for split, share in SPLITS.items():
        assert drawn.count(split) / 4000 == pytest.approx(share, abs=0.02)


def test_the_horizon_is_a_dial_that_covers_its_range_evenly():
    tasks = load(limit=22, horizons=(2, 12))
    assert [task.metadata["horizon"] for task in tasks] == [*range(2, 13)] * 2
    (long,) = load(limit=1, horizons=(20, 20))
    assert long.metadata["horizon"] == 20
    assert passes(long, long.reference)


def test_tasks_are_made_lazily_and_once(monkeypatch: pytest.MonkeyPatch):
    made = []
    make = StepwiseTasks._make
    monkeypatch.setattr(StepwiseTasks, "_make", lambda self, n: made.append(n) or make(self, n))
    tasks = load(limit=1_000_000)
    assert len(tasks) == 1_000_000
    assert made == []
    assert tasks[7] is tasks[7]
    assert tasks[-1] is tasks[999_999]
    assert made == [7, 999_999]


def test_it_is_a_sequence():
    tasks = load(limit=5)
    assert [task.task_id for task in tasks[1:3]] == [tasks[1].task_id, tasks[2].task_id]
    assert tasks[::-1][0] is tasks[4]
    assert tasks[2] in tasks
    assert tasks.index(tasks[3]) == 3
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"task {index} of 5"):
            tasks[index]


def test_the_default_is_128_training_tasks():
    tasks = load_tasks("stepwise")
    assert len(tasks) == 128
    assert tasks[0].split == "train"


def test_other_numbers_of_tests():
    (task,) = load(limit=1, n_tests=12)
    assert len(task.tests) == 12
    assert passes(task, task.reference)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "unknown split 'dev'; choose from test, train, validation"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"limit": -3}, "limit must be at least 1, got -3"),
        ({"n_tests": 3}, "n_tests must be at least 4, got 3"),
        ({"horizons": (0, 3)}, r"1 <= shortest <= longest, got \(0, 3\)"),
        ({"horizons": (5, 3)}, r"1 <= shortest <= longest, got \(5, 3\)"),
        ({"horizons": (1, 2, 3)}, r"horizons must be two integers.*\(1, 2, 3\)"),
        ({"horizons": 4}, "horizons must be two integers.*got 4"),
        ({"horizons": ("2", "12")}, "horizons must be two integers"),
        ({"horizons": (2.0, 4.0)}, "horizons must be two integers"),
    ],
)
def test_a_bad_option_is_an_error_that_names_it(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        load_tasks("stepwise", **options)


def test_a_misspelt_option_is_named_with_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"unknown option .*'stepwise' 'horizon' \(did you mean 'horizons'"
    ):
        load_tasks("stepwise", horizon=(2, 4))


def test_bad_rows_may_be_skipped_though_there_are_none():
    assert list(load_tasks("stepwise", limit=2, on_bad_row="skip")) == list(load_tasks("stepwise", limit=2))
    with pytest.raises(UnknownNameError, match="unknown on_bad_row 'ignore'; choose from raise, skip"):
        load_tasks("stepwise", on_bad_row="ignore")


def test_horizons_may_come_from_json():
    assert load(limit=1, horizons=[3, 3])[0].metadata["horizon"] == 3


def test_generation_is_fast():
    start = time.process_time()
    list(load(limit=44, seed=123))
    assert (time.process_time() - start) / 44 < 0.02
