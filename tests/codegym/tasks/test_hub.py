# ruff: noqa: E501 - rows are easier to read on one line
import json

import pytest

from codegym import AssertionTest, MissingExtraError, StdioTest, TaskSourceError, UnknownNameError, load_tasks
from codegym.table import resolve
from codegym.tasks import TASK_SOURCES
from codegym.tasks.hub import FORMATS

COLUMNS = {"prompt": "q", "tests": "asserts", "entry_point": "fn"}


@pytest.fixture
def datasets(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


MINE = [
    {"q": "Add.", "asserts": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"], "fn": "add", "level": 1, "sol": "def add(a, b):\n    return a + b"},
    {"q": "Negate.", "asserts": ["assert neg(1) == -1"], "fn": "neg", "level": 2, "sol": ""},
]  # fmt: skip


@pytest.fixture
def saved(datasets, tmp_path):
    """Saves rows by split as a data set on disk."""

    def save(**splits):
        parts = {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
        datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
        return tmp_path / "saved"

    return save


def test_columns_are_mapped_to_fields(saved, judge):
    columns = {**COLUMNS, "difficulty": "level", "reference": "sol"}
    add, negate = load_tasks("hub", dataset=saved(train=MINE), columns=columns)
    assert [task.task_id for task in (add, negate)] == ["hub/train/1", "hub/train/2"]
    assert add.tests == tuple(AssertionTest(code=code) for code in MINE[0]["asserts"])
    assert (add.entry_point, add.split, add.metadata["difficulty"]) == ("add", "train", 1)
    assert (add.reference, negate.reference) == ("def add(a, b):\n    return a + b\n", None)
    assert judge.judge([(add, add.assemble(add.reference))])[0].passed
    assert add.metadata["provenance"]["file"].endswith("saved:train")


def test_standard_input_and_ids_are_mapped_too(saved):
    rows = [{"id": 7, "q": "Echo.", "given": ["a\n", "b\n"], "wanted": ["a", "b"], "part": "test"}]
    columns = {"task_id": "id", "prompt": "q", "stdin": "given", "stdout": "wanted", "split": "part"}
    (task,) = load_tasks("hub", dataset=saved(all=rows), columns=columns)
    assert (task.task_id, task.split, task.entry_point) == ("hub/7", "test", None)
    assert task.tests[1] == StdioTest(stdin="b\n", stdout="b", comparison="numbers")


def test_splits_limits_and_draws_are_those_of_every_source(saved):
    path = saved(train=MINE, validation=MINE[:1], test=MINE[1:])
    every = load_tasks("hub", dataset=path, columns=COLUMNS)
    assert [task.split for task in every] == ["train", "train", "validation", "test"]
    assert len({task.task_id for task in every}) == 4
    (test,) = load_tasks("hub", dataset=path, columns=COLUMNS, split="test")
    assert test.task_id == "hub/test/1"
    drawn = load_tasks("hub", dataset=path, columns=COLUMNS, limit=2, seed=1)
    assert list(drawn) == [task for task in every if task in drawn]


def test_one_part_alone_can_be_read(saved, tmp_path):
    path = saved(train=MINE, test=MINE[1:])
    (task,) = load_tasks("hub", dataset=path, columns=COLUMNS, part="test")
    assert task.task_id == "hub/test/1"
    with pytest.raises(UnknownNameError, match="unknown part 'dev'; choose from test, train"):
        load_tasks("hub", dataset=path, columns=COLUMNS, part="dev")
    (tmp_path / "data").mkdir()
    for name, rows in (("train", MINE), ("test", MINE[1:])):
        (tmp_path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (task,) = load_tasks("hub", dataset=tmp_path / "data", columns=COLUMNS, part="test")
    assert (task.task_id, task.split) == ("hub/test/1", "test")


@pytest.mark.parametrize("source", ["apps", "livecodebench", "humaneval"])
def test_a_known_format_gives_the_tasks_of_its_source(source, rows_of, write, saved):
    rows = rows_of(source)
    direct = load_tasks(source, path=write(rows, "test.jsonl"))
    hub = load_tasks("hub", dataset=saved(test=rows), format=source)
    assert [(t.task_id, t.prompt, t.tests, t.split) for t in hub] == [
        (t.task_id, t.prompt, t.tests, t.split) for t in direct
    ]


def test_options_of_a_format_are_passed_on(saved, rows_of):
    path = saved(train=rows_of("apps"))
    assert [len(task.tests) for task in load_tasks("hub", dataset=path, format="apps", max_tests=1)] == [
        1,
        1,
        1,
    ]


def test_the_nested_columns_of_codecontests_are_read(saved, rows_of):
    (task,) = load_tasks("hub", dataset=saved(valid=rows_of("codecontests")[:1]), format="codecontests")
    assert (len(task.tests), task.split) == (4, "validation")


def test_a_folder_of_data_files_is_a_data_set(datasets, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in MINE))
    assert len(load_tasks("hub", dataset=tmp_path / "data", columns=COLUMNS)) == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"q": None}, "q"),
        ({"asserts": ["assert ("]}, "asserts"),
        ({"fn": None}, "fn"),
    ],
)
def test_bad_rows_name_the_data_set_the_row_and_the_column(saved, change, field):
    path = saved(train=[MINE[0], MINE[1] | change])
    with pytest.raises(TaskSourceError, match=f"hub: .*saved:train, row 2, field '{field}'"):
        load_tasks("hub", dataset=path, columns=COLUMNS)
    assert len(load_tasks("hub", dataset=path, columns=COLUMNS, on_bad_row="skip")) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give either format or columns"),
        ({"format": "apps", "columns": COLUMNS}, "give either format or columns"),
        ({"columns": {"prompt": "q"}}, "must map prompt, and tests or stdin and stdout"),
        ({"columns": {"prompt": "q", "stdin": "i"}}, "must map prompt, and tests or stdin and stdout"),
    ],
)
def test_what_is_to_be_read_must_be_said_once(options, said):
    with pytest.raises(ValueError, match=said):
        load_tasks("hub", dataset="x", **options)


def test_unknown_formats_and_fields_list_the_choices():
    with pytest.raises(UnknownNameError, match="unknown format 'app'"):
        load_tasks("hub", dataset="x", format="app")
    with pytest.raises(UnknownNameError, match="unknown field 'promt'"):
        load_tasks("hub", dataset="x", columns={"promt": "q"})


def test_options_that_a_format_does_not_have_are_refused():
    with pytest.raises(UnknownNameError, match=r"option of format 'apps' 'max_test' .*choose from max_tests"):
        load_tasks("hub", dataset="me/mine", format="apps", max_test=3)
    with pytest.raises(UnknownNameError, match=r"option of format 'humaneval' 'speed'; choose from \(none\)"):
        load_tasks("hub", dataset="me/mine", format="humaneval", speed=3)


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr("codegym.tasks.hub.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'codegym\[datasets\]'"):
        load_tasks("hub", dataset="x", columns=COLUMNS)


def test_every_source_that_reads_rows_is_a_format():
    # Arrow's columns have one type each, EvalPlus' inputs have not.
    assert set(FORMATS) == set(TASK_SOURCES) - {"stepwise", "hub", "humaneval_plus"}
    assert all(callable(resolve(FORMATS, name, "format")) for name in FORMATS)
