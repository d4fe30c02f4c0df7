"""What all sources that read files have in common: errors by row and field, splits, draws, skipping."""

import gzip
import json
import logging
import pickle
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import StdioTest, Task, TaskError, TaskSourceError, UnknownNameError, load_tasks
from codegym.tasks.rows import Row, files_of, parse_json, read_files, split_of
from codegym.tasks.selection import select_tasks

SOURCES = ("humaneval", "humaneval_plus", "mbpp", "livecodebench", "apps", "taco", "codecontests", "jsonl")

BAD_FIELDS = [
    ("humaneval", "task_id", 3),
    ("humaneval", "prompt", None),
    ("humaneval", "prompt", ["x"]),
    ("humaneval", "canonical_solution", "    return (\n"),
    ("humaneval", "entry_point", "other"),
    ("humaneval", "test", "def check(candidate)\n"),
    ("humaneval", "test", "assert True\n"),
    ("humaneval_plus", "task_id", None),
    ("humaneval_plus", "entry_point", "other"),
    ("humaneval_plus", "canonical_solution", "  return (\n"),
    ("humaneval_plus", "atol", -1),
    ("humaneval_plus", "atol", "0"),
    ("humaneval_plus", "base_input", None),
    ("humaneval_plus", "base_input", [1]),
    ("humaneval_plus", "plus_input", {}),
    ("mbpp", "task_id", 0),
    ("mbpp", "task_id", 975),
    ("mbpp", "task_id", "11"),
    ("mbpp", "task_id", True),
    ("mbpp", "text", None),
    ("mbpp", "code", "def (:\n"),
    ("mbpp", "code", "def other():\n    pass\n"),
    ("mbpp", "test_list", []),
    ("mbpp", "test_list", "assert add(1, 2) == 3"),
    ("mbpp", "test_list", ["assert add(1, 2) ="]),
    ("mbpp", "test_list", [3]),
    ("mbpp", "test_setup_code", 3),
    ("livecodebench", "question_id", None),
    ("livecodebench", "question_content", 3),
    ("livecodebench", "difficulty", None),
    ("livecodebench", "platform", None),
    ("livecodebench", "contest_date", None),
    ("livecodebench", "contest_date", "yesterday"),
    ("livecodebench", "contest_date", 20230513),
    ("livecodebench", "starter_code", []),
    ("livecodebench", "public_test_cases", "[3]"),
    ("livecodebench", "public_test_cases", '{"input": "1"}'),
    ("livecodebench", "public_test_cases", '[{"input": "1", "output": "1", "testtype": "file"}]'),
    ("livecodebench", "public_test_cases", '[{"input": 1, "output": "1", "testtype": "stdin"}]'),
    ("livecodebench", "public_test_cases", '[{"input": "x", "output": "1", "testtype": "functional"}]'),
    ("livecodebench", "private_test_cases", "!!!"),
    ("livecodebench", "private_test_cases", "AAAA"),
    ("apps", "problem_id", None),
    ("apps", "problem_id", "0"),
    ("apps", "question", None),
    ("apps", "input_output", None),
    ("apps", "input_output", ""),
    ("apps", "input_output", "{"),
    ("apps", "input_output", "[]"),
    ("apps", "input_output", '{"inputs": [], "outputs": []}'),
    ("apps", "input_output", '{"inputs": ["1"], "outputs": []}'),
    ("apps", "input_output", '{"inputs": [1], "outputs": ["1"]}'),
    ("apps", "input_output", '{"inputs": ["1"], "outputs": ["1"], "fn_name": "f"}'),
    ("apps", "input_output", '{"inputs": [[1]], "outputs": [1], "fn_name": "f()"}'),
    ("apps", "solutions", "[1"),
    ("apps", "starter_code", 3),
    ("taco", "question", None),
    ("taco", "input_output", '{"inputs": ["1"]}'),
    ("taco", "solutions", 3),
    ("taco", "tags", "[1]"),
    ("taco", "tags", "__import__('os')"),
    ("taco", "skill_types", 3),
    ("codecontests", "name", None),
    ("codecontests", "description", None),
    ("codecontests", "public_tests", 3),
    ("codecontests", "public_tests", {"input": ["1"], "output": []}),
    ("codecontests", "public_tests", {"input": [1], "output": ["1"]}),
    ("codecontests", "source", 5),
    ("codecontests", "difficulty", 18),
    ("codecontests", "difficulty", []),
    ("codecontests", "solutions", 3),
    ("codecontests", "cf_tags", "sortings"),
    ("codecontests", "input_file", "input.txt"),
    ("jsonl", "task_id", None),
    ("jsonl", "prompt", 3),
    ("jsonl", "entry_point", None),
    ("jsonl", "split", "training"),
    ("jsonl", "reference", 3),
    ("jsonl", "prompt_is_code", "yes"),
    ("jsonl", "metadata", []),
    ("jsonl", "promt", "x"),
    ("jsonl", "tests", None),
    ("jsonl", "tests", [3]),
    ("jsonl", "tests", [{"kind": "calls"}]),
    ("jsonl", "tests", [{"kind": "call", "args": []}]),
    ("jsonl", "tests", [{"kind": "call", "args": [], "expected": 1, "tolerance": 0}]),
    ("jsonl", "tests", [{"kind": "call", "args": {}, "expected": 1}]),
    ("jsonl", "tests", [{"kind": "call", "args": [{"a": 1}], "expected": 1}]),
    ("jsonl", "tests", [{"kind": "call", "args": [], "expected": 1, "comparison": "same"}]),
    ("jsonl", "tests", [{"kind": "stdio", "stdin": 1, "stdout": ""}]),
    ("jsonl", "tests", [{"kind": "assertion", "code": "assert ("}]),
]


@pytest.mark.parametrize(("source", "field", "value"), BAD_FIELDS)
def test_a_bad_field_is_an_error_that_names_file_row_and_field(source, field, value, rows_of, write):
    first, second, *rest = rows_of(source)
    path = write([second, "", first | {field: value}, *rest])
    with pytest.raises(TaskSourceError) as error:
        load_tasks(source, path=path)
    assert f"{path}, row 3, field {field!r}: " in str(error.value)


@pytest.mark.parametrize(("source", "field", "value"), BAD_FIELDS[::4])
def test_a_bad_row_can_be_skipped_and_is_counted(source, field, value, rows_of, write, caplog):
    rows = rows_of(source)
    with caplog.at_level(logging.WARNING, logger="codegym"):
        tasks = load_tasks(source, path=write([rows[0] | {field: value}, *rows[1:]]), on_bad_row="skip")
    assert len(tasks) == len(rows) - 1
    (record,) = caplog.records
    assert f"skipped 1 of {len(rows)} rows: " in record.message
    assert f"row 1, field {field!r}" in record.message


@pytest.mark.parametrize("line", ["{", "[1]", "3", '"text"', "nul", '{"a": 1} x', "[" * 10_000])
@pytest.mark.parametrize("source", ["humaneval", "jsonl"])
def test_a_line_that_is_no_object_is_a_bad_row(source, line, rows_of, write):
    rows = rows_of(source)
    with pytest.raises(TaskSourceError, match="row 2: "):
        load_tasks(source, path=write([rows[0], line, *rows[1:]]))
    assert len(load_tasks(source, path=write([rows[0], line, *rows[1:]]), on_bad_row="skip")) == len(rows)


def test_many_bad_rows_show_the_first_reasons_only(rows_of, write, caplog):
    bad = [{"task_id": number} for number in range(5)]
    with caplog.at_level(logging.WARNING, logger="codegym"):
        load_tasks("jsonl", path=write([*bad, *rows_of("jsonl")]), on_bad_row="skip")
    assert "skipped 5 of 7 rows" in caplog.text
    assert caplog.text.count("row ") == 3


def test_when_every_row_is_bad_there_is_nothing_to_return(write):
    with pytest.raises(TaskError, match="no tasks in 2 rows, 2 of them bad"):
        load_tasks("jsonl", path=write([{}, {}]), on_bad_row="skip")


@pytest.mark.parametrize("source", SOURCES)
def test_a_task_id_that_occurs_twice_is_a_bad_row(source, rows_of, write):
    rows = rows_of(source)
    if source == "taco":
        pytest.skip("TACO's tasks are named by their rows")
    with pytest.raises(TaskSourceError, match=f"row {len(rows) + 1}: the task id '.*' occurs a second time"):
        load_tasks(source, path=write([*rows, rows[0]]))
    assert len(load_tasks(source, path=write([*rows, rows[0]]), on_bad_row="skip")) == len(rows)


@pytest.mark.parametrize("source", SOURCES)
def test_gzip_a_list_and_a_folder_read_the_same(source, rows_of, write, tmp_path):
    rows = rows_of(source)
    plain = load_tasks(source, path=write(rows))

    def texts(tasks):
        return [(task.task_id, task.prompt, task.tests, task.split) for task in tasks]

    assert texts(load_tasks(source, path=write(rows, "rows.jsonl.gz"))) == texts(plain)
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "folder").mkdir()
    write(rows, "folder/rows.jsonl.gz")
    write(["not a task file"], "folder/README.md")
    assert texts(load_tasks(source, path=str(tmp_path / "folder"))) == texts(plain)
    if source != "taco":
        assert texts(load_tasks(source, path=tmp_path / "list.json")) == texts(plain)


@pytest.mark.parametrize("source", SOURCES)
def test_options_that_no_source_knows_are_refused(source, rows_of, write):
    path = write(rows_of(source))
    with pytest.raises(UnknownNameError, match="unknown split 'tests'"):
        load_tasks(source, path=path, split="tests")
    with pytest.raises(UnknownNameError, match="unknown on_bad_row 'ignore'; choose from raise, skip"):
        load_tasks(source, path=path, on_bad_row="ignore")
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        load_tasks(source, path=path, limit=0)
    with pytest.raises(
        UnknownNameError, match=r"'lmit' \(did you mean 'limit'\?\); choose from .*limit, .*path"
    ):
        load_tasks(source, path=path, lmit=3)


@pytest.mark.parametrize("source", SOURCES)
def test_a_missing_file_and_an_empty_folder_are_named(source, tmp_path):
    with pytest.raises(TaskError, match=r"there is no file or folder .*nowhere\.jsonl"):
        load_tasks(source, path=tmp_path / "nowhere.jsonl")
    with pytest.raises(TaskError, match=r"no file \*\.jsonl, .* in "):
        load_tasks(source, path=tmp_path)


@pytest.mark.parametrize("source", ["apps", "taco", "livecodebench", "codecontests", "jsonl", "hub"])
def test_an_option_that_a_source_needs_is_named(source):
    with pytest.raises(TaskError, match=f"task source '{source}' needs (path|dataset)="):
        load_tasks(source)


def test_damaged_files_are_errors_of_the_file(tmp_path):
    cut, other = tmp_path / "cut.jsonl.gz", tmp_path / "list.json"
    cut.write_bytes(gzip.compress(b'{"task_id": "x"}\n' * 1000)[:60])
    other.write_text("[{]")
    for path, said in ((cut, "damaged gzip file"), (other, "not JSON")):
        with pytest.raises(TaskSourceError, match=said):
            load_tasks("jsonl", path=path, on_bad_row="skip")


def test_every_task_says_where_it_comes_from(rows_of, write):
    for source in SOURCES[:-1]:
        path = write(rows_of(source))
        for number, task in enumerate(load_tasks(source, path=path), start=1):
            assert "difficulty" in task.metadata
            provenance = task.metadata["provenance"]
            assert (provenance["source"], provenance["file"], provenance["row"]) == (
                source,
                str(path),
                number,
            )
            assert provenance["licence"] or source == "livecodebench"


def make_rows(ids):
    return [
        Row(source="s", file="f", number=number, content={"task_id": str(name)})
        for number, name in enumerate(ids, start=1)
    ]


def make_task(row):
    task_id = row.get("task_id", str)
    split = ("train", "validation", "test")[len(task_id) % 3]
    return Task(
        task_id=task_id,
        prompt="",
        entry_point=None,
        tests=(StdioTest(stdin="", stdout=""),),
        split=split,
    )


def draw(ids, **options):
    return [task.task_id for task in select_tasks(make_rows(ids), make_task, **options)]


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 10**4), min_size=2, max_size=30, unique=True),
    st.integers(0, 99),
    st.integers(1, 30),
    st.randoms(),
)
def test_a_draw_is_ordered_repeatable_nested_and_blind_to_the_order_of_rows(ids, seed, limit, random):
    names = [str(name) for name in ids]
    drawn = draw(ids, limit=limit, seed=seed)
    assert drawn == [name for name in names if name in drawn]
    assert len(drawn) == min(limit, len(ids))
    assert drawn == draw(ids, limit=limit, seed=seed)
    assert set(drawn) <= set(draw(ids, limit=limit + 1, seed=seed))
    random.shuffle(ids)
    assert set(draw(ids, limit=limit, seed=seed)) == set(drawn)


def test_seeds_draw_differently_and_every_task_has_a_chance():
    draws = [tuple(draw(range(20), limit=2, seed=seed)) for seed in range(200)]
    assert len(set(draws)) > 100
    assert {name for pair in draws for name in pair} == {str(n) for n in range(20)}


@settings(max_examples=40)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40, unique=True), st.integers(1, 50))
def test_splits_are_disjoint_and_the_limit_counts_within_a_split(ids, limit):
    parts = {}
    for split in ("train", "validation", "test"):
        wanted = {str(n) for n in ids if ("train", "validation", "test")[len(str(n)) % 3] == split}
        if not wanted:
            with pytest.raises(TaskError, match=f"no tasks in split '{split}'"):
                draw(ids, split=split)
            continue
        assert set(draw(ids, split=split)) == wanted
        parts[split] = draw(ids, split=split, limit=limit)
        assert len(parts[split]) == min(limit, len(wanted))
    assert sum(map(len, parts.values())) == len(set().union(*parts.values()))


@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError, IndexError, TaskError])
def test_what_a_reader_raises_becomes_an_error_of_the_row(error, caplog):
    def to_task(row):
        if row.number == 2:
            raise error("what went wrong")
        return make_task(row)

    rows = list(make_rows(range(3)))
    with pytest.raises(TaskSourceError, match=rf"row 2: {error.__name__}: '?what went wrong") as caught:
        select_tasks(rows, to_task)
    assert rows[1].file in str(caught.value)
    assert isinstance(caught.value.__cause__, error)
    assert len(select_tasks(rows, to_task, on_bad_row="skip")) == 2
    assert "skipped 1 of 3 rows" in caplog.text


def test_rows_that_were_not_asked_for_are_neither_tasks_nor_bad(caplog):
    tasks = select_tasks(make_rows(range(6)), lambda row: make_task(row) if row.number % 2 else None)
    assert [task.task_id for task in tasks] == ["0", "2", "4"]
    assert caplog.records == []


def test_with_a_limit_only_the_drawn_tasks_are_kept_in_memory():
    alive, most = weakref.WeakSet(), 0

    def watched(row):
        nonlocal most
        task = make_task(row)
        alive.add(Kept(task))
        most = max(most, len(alive))
        return task

    class Kept:
        def __init__(self, task):
            # Lives as long as the task does.
            object.__setattr__(task, "kept", self)

    select_tasks(make_rows(range(200)), watched, limit=3)
    assert most <= 5


def test_integers_of_any_length_are_read():
    digits = "9" * 5000
    assert parse_json(f'{{"a": [{digits}, -{digits}, 1]}}') == {"a": [10**5000 - 1, 1 - 10**5000, 1]}
    with pytest.raises(ValueError, match="Expecting"):
        parse_json("{")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"),
        ("apps_TRAIN.jsonl.gz", "train"),
        ("valid.jsonl", "validation"),
        ("validation", "validation"),
        ("dev.json", "validation"),
        ("test2.jsonl", "test"),
        ("rows.jsonl", None),
    ],
)
def test_the_split_is_told_by_the_name(name, split):
    assert split_of(name) == split


def test_field_readers_tell_missing_null_and_wrong_types_apart():
    row = Row(source="s", file="f.jsonl", number=7, content={"a": None, "b": True, "c": "[1]", "d": "x" * 99})
    assert row.get("a", str, "default") == row.get("z", str, "default") == "default"
    assert row.json("c", list) == [1]
    assert row.json("z", list, []) == []
    for read, said in (
        (lambda: row.get("a", str), "s: f.jsonl, row 7, field 'a': missing; expected str"),
        (lambda: row.get("b", int), "field 'b': expected int, got bool True"),
        (lambda: row.get("d", int), "field 'd': expected int, got str 'xxxxx"),
        (lambda: row.json("d", list), "field 'd': not JSON"),
        (lambda: row.json("c", dict), "field 'c': expected dict, got list [1]"),
        (lambda: row.texts("c"), "field 'c': expected list, got str"),
    ):
        with pytest.raises(TaskSourceError) as error:
            read()
        assert said in str(error.value)
        assert len(str(error.value)) < 200


def test_files_are_read_in_the_order_of_their_names(write, tmp_path):
    for name in ("b.jsonl", "a.jsonl.gz", "c.json"):
        write([{"task_id": name}], name)
    files = files_of("s", tmp_path)
    assert [row.fields["task_id"] for row in read_files("s", files)] == ["a.jsonl.gz", "b.jsonl", "c.json"]


@pytest.mark.parametrize("source", SOURCES)
def test_tasks_travel_between_processes(source, rows_of, write):
    tasks = load_tasks(source, path=write(rows_of(source)))
    assert pickle.loads(pickle.dumps(tasks)) == tasks
