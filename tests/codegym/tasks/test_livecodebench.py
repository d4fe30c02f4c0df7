import base64
import json
import os
import pickle
import zlib
from datetime import date

import pytest

from codegym import CallTest, StdioTest, TaskError, TaskSourceError, load_tasks
from codegym.tasks import livecodebench
from codegym.tasks.livecodebench import read_pickled_text


@pytest.fixture
def path(rows_of, write):
    return write(rows_of("livecodebench"), "test.jsonl")


@pytest.fixture
def tasks(path):
    return load_tasks("livecodebench", path=path)


def test_public_and_private_tests_are_read_in_order(tasks):
    stdin, method, function = tasks
    assert stdin.tests == (
        StdioTest(stdin="1 2\n", stdout="3 0.5\n", comparison="decimals"),
        StdioTest(stdin="3 4\n", stdout="7 0.75", comparison="decimals"),
    )
    assert method.tests == (
        CallTest(args=([1, 2, 3], 5), expected=[2, 3], comparison="equal"),
        CallTest(args=([4, 4], 8), expected=[4, 4], comparison="equal"),
    )
    assert function.tests == (CallTest(args=("ab",), expected="abab", comparison="equal"),)


def test_ids_entry_points_and_metadata(tasks):
    assert [task.task_id for task in tasks] == [
        f"livecodebench/{name}" for name in ("abc301_a", "3000", "3001")
    ]
    assert [task.entry_point for task in tasks] == [None, "Solution.pair", "twice"]
    assert all(task.split == "test" and task.reference is None for task in tasks)
    about = tasks[1].metadata
    assert (about["difficulty"], about["platform"]) == ("medium", "leetcode")
    assert (about["contest_date"], about["contest_id"], about["title"]) == (
        "2024-01-14",
        "weekly-380",
        "Pair",
    )


def test_the_prompt_shows_the_starter_code_and_gives_its_imports(tasks):
    stdin, method, _ = tasks
    assert "Starter code" not in stdin.prompt
    assert "import" not in stdin.prompt
    assert "$\\frac{a}{b}$" in stdin.prompt
    assert "    def pair(self, nums: List[int], total: int) -> List[int]:" in method.prompt
    assert "from typing import *" in method.prompt
    for task in tasks:
        compile(task.prompt, "prompt", "exec")


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        ("a, b = map(int, input().split())\nprint(a + b, a / b)\n", "passed"),
        ("a, b = map(int, input().split())\nprint(f'  {a + b}.0  {a / b:.4f} ')\n", "passed"),
        ("a, b = map(int, input().split())\nprint(a + b, a / b + 1e-9)\n", "wrong_answer"),
        ("a, b = map(int, input().split())\nprint(a + b)\nprint(a / b)\n", "wrong_answer"),
        ("", "wrong_answer"),
    ],
)
def test_printed_numbers_are_compared_exactly_line_by_line(tasks, verdicts, program, verdict):
    assert verdicts(tasks[0], tasks[0].assemble(program)) == [verdict]


PAIR = "class Solution:\n    def pair(self, nums: List[int], total: int) -> List[int]:\n        return {}\n"


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        (PAIR.format("nums[-2:]"), "passed"),
        (PAIR.format("tuple(nums[-2:])"), "passed"),
        (PAIR.format("next(pair for pair in combinations(nums, 2) if sum(pair) == total)"), "passed"),
        (PAIR.format("[float(n) for n in nums[-2:]]"), "passed"),
        (PAIR.format("nums[:2]"), "wrong_answer"),
        (PAIR.format("str(nums[-2:])"), "wrong_answer"),
        (PAIR.format("iter(nums[-2:])"), "wrong_answer"),
        ("def pair(nums, total):\n    return nums[-2:]\n", "runtime_error"),
        ("    return nums[-2:]\n", "syntax_error"),
    ],
)
def test_methods_are_called_and_tuples_taken_for_lists(tasks, verdicts, program, verdict):
    assert verdicts(tasks[1], tasks[1].assemble(program)) == [verdict]


def test_a_method_gets_a_fresh_instance_for_each_test(tasks, verdicts):
    head = "class Solution:\n    def __init__(self):\n        self.found = []\n\n"
    body = "    def pair(self, nums, total):\n        self.found += nums[-2:]\n        return self.found\n"
    assert verdicts(tasks[1], tasks[1].assemble(head + body)) == ["passed"]


def test_functions_without_a_class_are_called_by_name(tasks, verdicts):
    right, wrong = "def twice(text):\n    return text * 2\n", "def twice(text):\n    return text\n"
    assert verdicts(tasks[2], *map(tasks[2].assemble, (right, wrong))) == ["passed", "wrong_answer"]


@pytest.mark.parametrize(
    ("start", "end", "names"),
    [
        (None, None, ["abc301_a", "3000", "3001"]),
        ("2023-05-13", None, ["abc301_a", "3000", "3001"]),
        ("2023-05-14", None, ["3000", "3001"]),
        (None, "2024-01-14", ["abc301_a", "3000"]),
        (None, "2024-01-13", ["abc301_a"]),
        ("2024-01-14", "2024-01-14", ["3000"]),
        (date(2024, 1, 15), date(2024, 12, 31), ["3001"]),
    ],
)
def test_a_date_window_includes_both_ends(path, start, end, names):
    tasks = load_tasks("livecodebench", path=path, start_date=start, end_date=end)
    assert [task.task_id for task in tasks] == [f"livecodebench/{name}" for name in names]


def test_an_empty_window_and_a_bad_date_are_errors(path):
    with pytest.raises(TaskError, match="no tasks in 3 rows, 0 of them bad"):
        load_tasks("livecodebench", path=path, start_date="2030-01-01")
    with pytest.raises(ValueError, match="isoformat"):
        load_tasks("livecodebench", path=path, end_date="January")


@pytest.fixture
def folder(rows_of, write, tmp_path):
    for number, row in enumerate(rows_of("livecodebench"), start=1):
        write([row], f"test{number if number > 1 else ''}.jsonl")
    return tmp_path


@pytest.mark.parametrize(
    ("version", "names"),
    [
        (None, ["abc301_a", "3000", "3001"]),
        ("release_v1", ["abc301_a"]),
        ("release_v2", ["abc301_a", "3000"]),
        ("release_v3", ["abc301_a", "3000", "3001"]),
        ("v1", ["abc301_a"]),
        ("v3", ["3001"]),
        ("v2_v3", ["3000", "3001"]),
    ],
)
def test_a_version_names_files(folder, version, names):
    tasks = load_tasks("livecodebench", path=folder, version=version)
    assert [task.task_id.rpartition("/")[2] for task in tasks] == names


def test_a_version_that_is_not_there_or_none_at_all_is_an_error(folder):
    with pytest.raises(TaskError, match=r"version 'release_v4' is .*test4\.jsonl.*, found"):
        load_tasks("livecodebench", path=folder, version="release_v4")
    with pytest.raises(ValueError, match="version must be like 'release_v3', 'v3' or 'v2_v4', got 'latest'"):
        load_tasks("livecodebench", path=folder, version="latest")


def test_max_tests_keeps_the_longest(path):
    for task in load_tasks("livecodebench", path=path, max_tests=1):
        assert len(task.tests) == 1
    method = load_tasks("livecodebench", path=path, max_tests=1)[1]
    assert method.tests[0].args == ([1, 2, 3], 5)
    with pytest.raises(ValueError, match="max_tests must be at least 1, got 0"):
        load_tasks("livecodebench", path=path, max_tests=0)


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def pickled(value, protocol=4):
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


HOSTILE = {
    "system": lambda path: Touch(path),
    "system in a list": lambda path: ["[]", Touch(path)],
    "a class": lambda path: json.JSONDecoder,
    "bytes": lambda path: b"[]",
    "number": lambda path: 3,
    "two texts": lambda path: ("[]", "[]"),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_of_anything_but_a_text_is_refused_and_does_nothing(
    name, protocol, rows_of, write, tmp_path
):
    canary = tmp_path / "canary"
    row = rows_of("livecodebench")[0] | {"private_test_cases": pickled(HOSTILE[name](canary), protocol)}
    with pytest.raises(
        TaskSourceError, match="row 1, field 'private_test_cases': neither JSON nor packed JSON"
    ):
        load_tasks("livecodebench", path=write([row]))
    assert not canary.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("text", ["", "[]", "é\n'\"\\ \U0001f600", "x" * 100_000])
def test_a_pickled_text_of_any_protocol_is_read(text, protocol):
    assert read_pickled_text(pickle.dumps(text, protocol)) == text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"]",
        b"\x80\x04.",
        b"\x80\x04X\x01\x00\x00\x00a",
        b"\x80\x04X\xff\xff\xff\x7fa.",
        # a memo of 2**31 entries, which an unpickler would allocate, is only an instruction here
        b"cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
        b"\x80\x04\x82\x01.",
        b"X\x01\x00\x00\x00aQ.",
    ],
)
def test_damaged_and_hostile_pickles_are_value_errors(data):
    with pytest.raises(ValueError, match=r"."):
        read_pickled_text(data)


def test_a_memo_of_two_billion_entries_costs_nothing():
    assert read_pickled_text(b"\x80\x04X\x01\x00\x00\x00ar\xff\xff\xff\x7f.") == "a"


def test_private_tests_that_unpack_to_too_much_are_refused(rows_of, write, monkeypatch):
    monkeypatch.setattr(livecodebench, "MAX_UNPACKED_BYTES", 1000)
    row = rows_of("livecodebench")[0] | {"private_test_cases": pickled(" " * 10_000)}
    with pytest.raises(TaskSourceError, match="unpacks to more than 1000 bytes"):
        load_tasks("livecodebench", path=write([row]))


def test_call_tests_need_the_name_of_a_function(rows_of, write):
    row = rows_of("livecodebench")[1]
    for metadata in ("{}", None, "[]", '{"func_name": "a.b"}', '{"func_name": 3}', '{"func_name": "class"}'):
        with pytest.raises(TaskSourceError, match="field 'metadata'"):
            load_tasks("livecodebench", path=write([row | {"metadata": metadata}]))


def test_a_row_without_any_test_is_bad(rows_of, write):
    row = rows_of("livecodebench")[0] | {"public_test_cases": "[]", "private_test_cases": "[]"}
    with pytest.raises(TaskSourceError, match="there are no tests"):
        load_tasks("livecodebench", path=write([row]))
