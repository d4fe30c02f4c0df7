import ast

import pytest

from codegym import TaskError, UnknownNameError, load_tasks
from codegym.tasks.mbpp import SPLITS


@pytest.fixture
def path(rows_of, write):
    return write(rows_of("mbpp"))


def test_both_schemas_load_and_the_id_decides_the_split(path):
    tasks = load_tasks("mbpp", path=path)
    assert [(task.task_id, task.split) for task in tasks] == [
        ("mbpp/3", "prompt"),
        ("mbpp/11", "test"),
        ("mbpp/511", "validation"),
        ("mbpp/974", "train"),
    ]
    assert [task.entry_point for task in tasks] == ["add", "shared", "area", "negate"]


def test_the_splits_are_disjoint_and_cover_every_id():
    numbers = [number for split in SPLITS.values() for number in split]
    assert sorted(numbers) == list(range(1, 975))
    assert {name: len(split) for name, split in SPLITS.items()} == {
        "prompt": 10,
        "test": 500,
        "validation": 90,
        "train": 374,
    }


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_can_be_asked_for(path, split):
    (task,) = load_tasks("mbpp", path=path, split=split)
    assert task.split == split


@pytest.mark.parametrize(("shown", "asserts"), [(0, 0), (1, 1), (3, 3), (9, 3)])
def test_the_prompt_is_a_docstring_with_so_many_asserts(path, shown, asserts):
    task = load_tasks("mbpp", path=path, shown_tests=shown)[0]
    text = ast.get_docstring(ast.parse(task.prompt), clean=False)
    assert text.startswith("\nWrite a function to add two numbers.\n")
    assert text.count("assert add(") == asserts


def test_backslashes_and_quotes_in_a_prompt_stay_readable(path):
    task = load_tasks("mbpp", path=path)[1]
    text = ast.get_docstring(ast.parse(task.prompt))
    assert "match \\d and '''quotes'''." in text


def test_a_reference_has_plain_lines(path):
    reference = load_tasks("mbpp", path=path)[0].reference
    assert "\r" not in reference
    assert reference.endswith("  return helper(a + b)\n")


def test_challenge_tests_are_an_option(path):
    assert [len(task.tests) for task in load_tasks("mbpp", path=path)] == [3, 1, 2, 1]
    assert [len(task.tests) for task in load_tasks("mbpp", path=path, challenge_tests=True)] == [4, 1, 2, 1]


def test_each_assertion_is_a_test_with_its_setup(path, judge):
    tasks = load_tasks("mbpp", path=path)
    references = judge.judge([(task, task.assemble(task.reference)) for task in tasks])
    assert all(judgement.passed for judgement in references)
    half = tasks[0].assemble("def add(a, b):\n    return 3 if a == 1 else 4\n")
    assert judge.judge([(tasks[0], half)])[0].results == (True, True, False)


def test_without_a_path_the_error_says_where_to_get_it(monkeypatch, path):
    monkeypatch.delenv("CODEGYM_MBPP", raising=False)
    with pytest.raises(TaskError, match=r"CODEGYM_MBPP.*github\.com/google-research"):
        load_tasks("mbpp")
    monkeypatch.setenv("CODEGYM_MBPP", str(path))
    assert len(load_tasks("mbpp")) == 4


def test_bad_options_are_named(path):
    with pytest.raises(ValueError, match="shown_tests must not be negative, got -1"):
        load_tasks("mbpp", path=path, shown_tests=-1)
    with pytest.raises(UnknownNameError, match="choose from prompt, test, train, validation"):
        load_tasks("mbpp", path=path, split="sanitized")


def test_the_published_files_load_in_full(shared_data):
    full = load_tasks("mbpp", path=shared_data / "mbpp.jsonl")
    sanitized = load_tasks("mbpp", path=shared_data / "sanitized-mbpp.json")
    assert (len(full), len(sanitized)) == (974, 427)
    assert {task.task_id for task in sanitized} < {task.task_id for task in full}
    counts = {split: sum(task.split == split for task in full) for split in SPLITS}
    assert counts == {split: len(numbers) for split, numbers in SPLITS.items()}
    assert all(len(task.tests) >= 3 and task.reference for task in full)
    challenged = load_tasks("mbpp", path=shared_data / "mbpp.jsonl", challenge_tests=True)
    assert sum(len(a.tests) > len(b.tests) for a, b in zip(challenged, full, strict=True)) == 11
