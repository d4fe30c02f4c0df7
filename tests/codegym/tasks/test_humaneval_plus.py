import pytest

from codegym import TaskError, load_tasks


@pytest.fixture
def tasks(rows_of, write):
    return load_tasks("humaneval_plus", path=write(rows_of("humaneval_plus"), "HumanEvalPlus.jsonl.gz"))


def test_a_task_has_a_base_and_a_plus_test(tasks):
    assert [task.task_id for task in tasks] == [f"humaneval_plus/{number}" for number in (0, 32, 2)]
    assert all(len(task.tests) == 2 for task in tasks)
    assert tasks[0].metadata["original_id"] == "HumanEval/0"
    assert tasks[0].metadata["parts"] == ["base", "plus"]


def test_a_task_without_plus_inputs_has_the_base_test_only(rows_of, write):
    row = rows_of("humaneval_plus")[0] | {"plus_input": []}
    (task,) = load_tasks("humaneval_plus", path=write([row]))
    assert (len(task.tests), task.metadata["parts"]) == (1, ["base"])


def test_references_pass(tasks, verdicts):
    for task in tasks:
        assert verdicts(task, task.assemble(task.reference)) == ["passed"]


@pytest.mark.parametrize(
    ("body", "results"),
    [
        ("    return [x / 2 for x in xs]\n", (True, True)),
        ("    return [x * 0.5 for x in xs if x < 10]\n", (True, False)),
        # 1e-7 of the value is allowed, and 1e-6 beside it
        ("    return [x / 2 * (1 + 9e-8) for x in xs]\n", (True, True)),
        ("    return [x / 2 + 1.2e-6 for x in xs]\n", (False, False)),
        # another type, another length, no numbers
        ("    return tuple(x / 2 + 1e-9 for x in xs)\n", (False, False)),
        ("    return [x / 2 for x in xs] + [0.0]\n", (False, False)),
        ("    return [str(x / 2) for x in xs]\n", (False, False)),
        ("    return None\n", (False, False)),
    ],
)
def test_values_agree_within_the_tolerance_only(tasks, judge, body, results):
    assert judge.judge([(tasks[0], tasks[0].assemble(body))])[0].results == results


@pytest.mark.parametrize(
    ("body", "passes"),
    [
        ("    return -xs[0] / xs[1] + 1e-6\n", True),
        ("    return -xs[0] / xs[1] + 1e-3\n", False),
        ("    return 'zero'\n", False),
    ],
)
def test_find_zero_is_judged_by_the_polynomial(tasks, judge, body, passes):
    assert judge.judge([(tasks[1], tasks[1].assemble(body))])[0].passed == passes


def test_texts_must_be_equal_and_need_no_escaping(tasks, verdicts):
    task = tasks[2]
    exact, close = (
        task.assemble("    return sorted(text.split())\n"),
        task.assemble("    return text.split()\n"),
    )
    assert verdicts(task, exact, close) == ["passed", "wrong_answer"]


def test_a_program_that_changes_its_arguments_changes_nothing_else(tasks, verdicts):
    cheat = tasks[0].assemble("    xs.clear()\n    return []\n")
    assert verdicts(tasks[0], cheat) == ["wrong_answer"]


def test_the_newest_file_in_the_cache_is_the_default(rows_of, write, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(TaskError, match=r"path= to HumanEvalPlus\.jsonl .*evalplus"):
        load_tasks("humaneval_plus")
    (tmp_path / "evalplus").mkdir()
    rows = rows_of("humaneval_plus")
    for version, n_rows in (("v0.1.9", 1), ("v0.1.10", 2)):
        write(rows[:n_rows], f"evalplus/HumanEvalPlus-{version}.jsonl")
    assert len(load_tasks("humaneval_plus")) == 2
