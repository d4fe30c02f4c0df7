"""APPS, TACO and CodeContests: three collections, two schemas."""

import json

import pytest

from codegym import CallTest, StdioTest, TaskSourceError, load_tasks
from codegym.tasks.contests import first_python, longest, with_numbers_as_keys


@pytest.fixture
def apps(rows_of, write):
    return load_tasks("apps", path=write(rows_of("apps"), "test.jsonl"))


def test_apps_tests_by_standard_input_and_by_call(apps):
    stdin, method, function = apps
    assert stdin.tests == (
        StdioTest(stdin="3\n", stdout="1.0\n", comparison="numbers"),
        StdioTest(stdin="9\n", stdout="3.0", comparison="numbers"),
    )
    assert method.tests == (
        CallTest(args=([3, 1],), expected=[1, 3], comparison="equal"),
        CallTest(args=([2],), expected=[2], comparison="equal"),
    )
    assert function.tests == (
        CallTest(args=({1: "a", -2: "bc"},), expected=[{1: 1, -2: 2}], comparison="boxed"),
    )
    assert [task.entry_point for task in apps] == [None, "Solution.ordered", "count"]


def test_apps_ids_splits_and_metadata(apps, rows_of, write):
    assert [task.task_id for task in apps] == ["apps/test/0", "apps/test/1", "apps/test/2"]
    assert [task.metadata["difficulty"] for task in apps] == ["introductory", "interview", "competition"]
    assert apps[0].metadata["n_solutions"] == 2
    train = load_tasks("apps", path=write(rows_of("apps"), "train.jsonl.gz"))
    assert {task.split for task in train} == {"train"}
    assert train[0].task_id == "apps/train/0"


def test_apps_folder_has_two_disjoint_splits(rows_of, write, tmp_path):
    write(rows_of("apps"), "train.jsonl")
    write(rows_of("apps")[:2], "test.jsonl")
    both = load_tasks("apps", path=tmp_path)
    assert len({task.task_id for task in both}) == 5
    assert len(load_tasks("apps", path=tmp_path, split="test")) == 2
    assert len(load_tasks("apps", path=tmp_path, split="train")) == 3


def test_references_are_the_first_solution_that_parses_and_pass(apps, judge):
    assert apps[0].reference == "n = int(input())\nprint(n / 3)\n"
    judgements = judge.judge([(task, task.assemble(task.reference)) for task in apps])
    assert [str(judgement.verdict) for judgement in judgements] == ["passed"] * 3, judgements


def test_solutions_may_be_missing(rows_of, write):
    for nothing in ("", "[]", None):
        row = rows_of("apps")[0] | {"solutions": nothing}
        (task,) = load_tasks("apps", path=write([row]))
        assert (task.reference, task.metadata["n_solutions"]) == (None, 0)


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        ("print(int(input()) / 3)\n", "passed"),
        ("print(int(input()) // 3)\n", "passed"),
        ("print(int(input()) / 3 + 1e-6)\n", "passed"),
        ("print()\nprint('  ', int(input()) / 3)\n", "passed"),
        ("print(int(input()) / 3 + 1e-3)\n", "wrong_answer"),
        ("print(int(input()) / 3, 0)\n", "wrong_answer"),
        ("print(1.0)\n", "wrong_answer"),
        ("", "wrong_answer"),
        ("from __future__ import division\nprint(int(input()) / 3)\n", "passed"),
    ],
)
def test_printed_numbers_are_compared_with_tolerance(apps, verdicts, program, verdict):
    assert verdicts(apps[0], apps[0].assemble(program)) == [verdict]


@pytest.mark.parametrize(
    ("value", "passes"),
    [
        ("{k: len(v) for k, v in d.items()}", True),
        ("[{k: len(v) for k, v in d.items()}]", True),
        ("[[{k: len(v) for k, v in d.items()}]]", False),
        ("{str(k): len(v) for k, v in d.items()}", False),
        ("[]", False),
    ],
)
def test_an_output_in_a_box_may_come_without_it(apps, judge, value, passes):
    program = apps[2].assemble(f"def count(d):\n    return {value}\n")
    assert judge.judge([(apps[2], program)])[0].passed == passes


def test_outputs_without_boxes_are_taken_as_they_are(apps, verdicts):
    unboxed = "class Solution:\n    def ordered(self, a):\n        return sorted(a) if len(a) > 1 else a[0]\n"
    assert verdicts(apps[1], apps[1].assemble(unboxed)) == ["wrong_answer"]


def test_without_starter_code_the_first_solution_tells_whether_there_is_a_class(rows_of, write):
    row = rows_of("apps")[1] | {"starter_code": ""}
    assert load_tasks("apps", path=write([row]))[0].entry_point == "Solution.ordered"
    row["solutions"] = json.dumps(["def ordered(a):\n    return sorted(a)\n"])
    assert load_tasks("apps", path=write([row]))[0].entry_point == "ordered"


def test_huge_integers_in_inputs_are_read_and_judged(rows_of, write, verdicts):
    huge = "7" * 5000
    row = rows_of("apps")[2] | {
        "input_output": f'{{"fn_name": "count", "inputs": [[{huge}]], "outputs": [{huge}]}}',
        "solutions": "[]",
    }
    (task,) = load_tasks("apps", path=write([row]))
    assert verdicts(task, task.assemble("def count(n):\n    return n\n")) == ["passed"]
    assert load_tasks("apps", path=write([row]), max_tests=1)[0].tests == task.tests
    wrong = row | {"input_output": f'{{"fn_name": "count", "inputs": [{huge}], "outputs": [1]}}'}
    with pytest.raises(TaskSourceError, match="got int with a very long integer"):
        load_tasks("apps", path=write([wrong]))


@pytest.fixture
def taco(rows_of, write):
    return load_tasks("taco", path=write(rows_of("taco"), "train.jsonl"))


def test_taco_tasks_are_named_by_split_and_row(taco):
    assert [task.task_id for task in taco] == ["taco/train/1", "taco/train/2"]
    assert [task.entry_point for task in taco] == [None, "Solution.size"]


def test_taco_metadata(taco):
    about = taco[0].metadata
    assert (about["difficulty"], about["platform"]) == ("EASY", "codechef")
    assert (about["tags"], about["skill_types"]) == (["Mathematics"], ["Greedy algorithms"])
    assert about["time_limit"] == "2.0 seconds"
    assert taco[1].metadata["skill_types"] == []


def test_taco_references_pass_and_wrong_programs_do_not(taco, judge):
    assert all(j.passed for j in judge.judge([(task, task.assemble(task.reference)) for task in taco]))
    wrong = taco[1].assemble("class Solution:\n    def size(self, s):\n        return 3\n")
    assert judge.judge([(taco[1], wrong)])[0].results == (True, False)


@pytest.fixture
def contests(rows_of, write):
    return load_tasks("codecontests", path=write(rows_of("codecontests"), "valid.jsonl"))


def test_codecontests_reads_both_shapes_of_its_schema(contests):
    first, second = contests
    assert first.task_id == "codecontests/codeforces/1575_A. Another Sorting Problem"
    assert second.task_id == "codecontests/aizu/p00001"
    assert [len(task.tests) for task in contests] == [4, 1]
    assert first.tests[1] == StdioTest(stdin="-3\n", stdout="NO -1.5\n", comparison="tokens")
    assert {task.split for task in contests} == {"validation"}
    assert (first.metadata["difficulty"], first.metadata["rating"]) == ("A", 1100)
    assert (second.metadata["difficulty"], second.metadata["platform"]) == ("easy", "aizu")


def test_codecontests_references_are_python_3(contests, judge):
    assert contests[0].reference.startswith("n = int(input())")
    assert all(j.passed for j in judge.judge([(task, task.assemble(task.reference)) for task in contests]))


def test_generated_tests_are_an_option(rows_of, write):
    path = write(rows_of("codecontests"))
    assert len(load_tasks("codecontests", path=path, generated_tests=False)[0].tests) == 2


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        ("n = int(input())\nprint('Yes' if n > 0 else 'No')\nprint(n / 2)\n", "passed"),
        ("n = int(input())\nprint('Yes' if n > 0 else 'No', n / 2 + 1e-6)\n", "passed"),
        ("n = int(input())\nprint('Yes' if n > 0 else 'No', n // 2)\n", "wrong_answer"),
        ("n = int(input())\nprint('Yes', n / 2)\n", "wrong_answer"),
    ],
)
def test_codecontests_compares_words_whatever_the_case_and_the_lines(contests, verdicts, program, verdict):
    assert verdicts(contests[0], contests[0].assemble(program)) == [verdict]


def test_problems_that_use_files_are_refused_by_name(rows_of, write):
    row = rows_of("codecontests")[0] | {"output_file": "output.txt"}
    with pytest.raises(
        TaskSourceError, match=r"field 'output_file': the problem uses the file 'output\.txt'"
    ):
        load_tasks("codecontests", path=write([row]))


def test_max_tests_keeps_the_longest_inputs_in_their_order(rows_of, write):
    path = write(rows_of("codecontests"))
    task = load_tasks("codecontests", path=path, max_tests=3)[0]
    assert [test.stdin for test in task.tests] == ["-3\n", "10\n", "12345\n"]
    tests = [StdioTest(stdin="x" * n, stdout="") for n in (3, 1, 3, 2)]
    assert longest(tests, None) == tuple(tests)
    assert longest(tests, 9) == tuple(tests)
    assert longest(tests, 2) == (tests[0], tests[2])
    for source in ("apps", "taco"):
        assert all(len(t.tests) == 1 for t in load_tasks(source, path=write(rows_of(source)), max_tests=1))


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({"1": "a", "-2": "b"}, {1: "a", -2: "b"}),
        ({"1": "a", "b": "c"}, {"1": "a", "b": "c"}),
        ({"1.5": 0}, {"1.5": 0}),
        ({}, {}),
        ([{"1": 2}], [{"1": 2}]),
        ("1", "1"),
    ],
)
def test_keys_that_are_all_numbers_become_numbers(value, read):
    assert with_numbers_as_keys(value) == read


def test_the_first_solution_in_this_python_is_taken():
    assert (
        first_python(["print 1", "  ", "x = (", "print(1)\r\nprint(2)", "print(3)"]) == "print(1)\nprint(2)\n"
    )
    assert first_python(["print 1", ""]) is None
    assert first_python([]) is None
