# ruff: noqa: E501 - rows are easier to read on one line
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import AssertionTest, CallTest, StdioTest, Task, TaskError, TaskSourceError, load_tasks
from codegym.judge.outcome import same
from codegym.task import CALL_COMPARISONS, OUTPUT_COMPARISONS
from codegym.tasks import write_tasks
from codegym.tasks.rows import SPLITS

texts = st.text(max_size=20)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=5)
    | st.integers(10**4000, 10**4000 + 9) | st.complex_numbers()
)  # fmt: skip
keys = st.none() | st.integers() | texts | st.tuples(st.integers(), texts)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.sets(keys, max_size=3)
        | st.frozensets(keys, max_size=3)
    ),
    max_leaves=8,
)
tests = st.one_of(
    st.builds(
        CallTest,
        args=st.lists(values, max_size=3).map(tuple),
        expected=values,
        comparison=st.sampled_from(sorted(CALL_COMPARISONS)),
    ),
    st.builds(StdioTest, stdin=texts, stdout=texts, comparison=st.sampled_from(sorted(OUTPUT_COMPARISONS))),
    st.builds(
        AssertionTest, code=st.sampled_from(["assert candidate(1) == 2", "def check(f):\n    f('\\d')\n"])
    ),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
tasks = st.builds(
    Task,
    task_id=texts,
    prompt=texts,
    entry_point=st.sampled_from(["f", "Solution.f"]),
    tests=st.lists(tests, min_size=1, max_size=4).map(tuple),
    split=st.sampled_from(SPLITS),
    reference=st.none() | texts,
    prompt_is_code=st.booleans(),
    metadata=st.dictionaries(texts, json_values, max_size=3),
)


def plain(task):
    """A task as plain data, so that `same` compares it by value and type, and takes NaN for NaN."""
    return [
        task.task_id, task.prompt, task.entry_point, task.split, task.reference, task.prompt_is_code,
        dict(task.metadata),
        [[type(test).__name__, *(getattr(test, name) for name in test.__slots__)] for test in task.tests],
    ]  # fmt: skip


@settings(max_examples=80)
@given(st.lists(tasks, min_size=1, max_size=4, unique_by=lambda task: task.task_id))
def test_written_tasks_come_back_by_value_and_type(tmp_path_factory, written):
    path = tmp_path_factory.getbasetemp() / "round_trip.jsonl"
    write_tasks(path, written)
    read = load_tasks("jsonl", path=path)
    assert len(path.read_bytes().splitlines()) == len(written)
    for before, after in zip(written, read, strict=True):
        assert same(plain(after), plain(before))


def test_the_documented_forms_are_read(rows_of, write):
    order, echo = load_tasks("jsonl", path=write(rows_of("jsonl")))
    assert order.tests == (
        CallTest(args=([3, 1],), expected=[1, 3]),
        CallTest(args=((2, 1),), expected=(1, 2), comparison="equal"),
        AssertionTest(code="assert candidate([2, 1]) == [1, 2]"),
    )
    assert (order.split, order.prompt_is_code, order.metadata) == ("validation", True, {"difficulty": "easy"})
    assert echo.tests == (StdioTest(stdin="a\n", stdout="a"),)
    assert (echo.split, echo.entry_point, echo.prompt_is_code, echo.metadata) == ("train", None, False, {})


def test_references_pass(rows_of, write, judge):
    tasks = load_tasks("jsonl", path=write(rows_of("jsonl")))
    assert all(j.passed for j in judge.judge([(task, task.assemble(task.reference)) for task in tasks]))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1, 2.0, null, true]", [1, 2.0, None, True]),
        ('{"tuple": [1, {"set": [2]}]}', (1, {2})),
        ('{"dict": [[1, "a"], [{"tuple": [2]}, []]]}', {1: "a", (2,): []}),
        ('{"bytes": "00ff"}', b"\x00\xff"),
        ('{"complex": [1.0, -2.0]}', 1 - 2j),
        ('{"int": "ff"}', 255),
        ('{"range": [0, 3, 1]}', range(3)),
        ("Infinity", math.inf),
    ],
)
def test_tags_stand_for_what_json_lacks(text, value, write):
    row = f'{{"task_id": "a", "prompt": "p", "entry_point": "f", "tests": [{{"kind": "call", "args": [], "expected": {text}}}]}}'
    (task,) = load_tasks("jsonl", path=write([row]))
    assert same(task.tests[0].expected, value)


def test_an_object_without_a_tag_is_refused_with_its_key(write, rows_of):
    row = rows_of("jsonl")[0] | {"tests": [{"kind": "call", "args": [], "expected": {"key": 1}}]}
    with pytest.raises(TaskSourceError, match=r"row 1, field 'tests': unknown tag 'key'"):
        load_tasks("jsonl", path=write([row]))


def test_an_empty_reference_is_not_a_missing_one(write, rows_of):
    row = rows_of("jsonl")[1]
    for written, read in (("", ""), (None, None)):
        assert load_tasks("jsonl", path=write([row | {"reference": written}]))[0].reference == read


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tests": (CallTest(args=(object(),), expected=1),)}, "object is not plain data"),
        ({"metadata": {"a": {1}}}, "set is not JSON"),
    ],
)
def test_what_cannot_be_written_is_named_and_leaves_the_file(change, said, tmp_path):
    path = tmp_path / "tasks.jsonl"
    parts = {
        "task_id": "mine/1",
        "prompt": "p",
        "entry_point": "f",
        "tests": (StdioTest(stdin="", stdout=""),),
    }
    write_tasks(path, [Task(**parts)])
    before = path.read_bytes()
    with pytest.raises(TaskError, match=f"task 'mine/1' cannot be written: .*{said}"):
        write_tasks(path, [Task(**parts | change)])
    assert path.read_bytes() == before


def test_few_shot_examples_keep_their_split(rows_of, write, tmp_path):
    mbpp = load_tasks("mbpp", path=write(rows_of("mbpp")))
    write_tasks(tmp_path / "own.jsonl", mbpp)
    assert load_tasks("jsonl", path=tmp_path / "own.jsonl") == mbpp
    assert load_tasks("jsonl", path=tmp_path / "own.jsonl", split="prompt") == mbpp[:1]


def test_a_source_can_be_copied_to_a_file_of_ones_own(tmp_path, judge):
    tasks = load_tasks("stepwise", limit=6)
    write_tasks(tmp_path / "own.jsonl", tasks)
    own = load_tasks("jsonl", path=tmp_path / "own.jsonl")
    assert list(own) == list(tasks)
    assert all(j.passed for j in judge.judge([(task, task.assemble(task.reference)) for task in own]))


def test_a_row_is_readable_json(tmp_path):
    task = Task(
        task_id="a",
        prompt="def f(x):\n",
        entry_point="f",
        tests=(CallTest(args=(1, (2,)), expected={3}),),
    )
    write_tasks(tmp_path / "a.jsonl", [task])
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {
        "task_id": "a",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "tests": [
            {"kind": "call", "args": [1, {"tuple": [2]}], "expected": {"set": [3]}, "comparison": "exact"}
        ],
        "split": "train",
        "reference": None,
        "prompt_is_code": True,
        "metadata": {},
    }
