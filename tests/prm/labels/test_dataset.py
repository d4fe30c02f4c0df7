"""Parquet and stepwise-supervision rows: labels survive both ways, and what is wrong with a row is named."""

import json
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import MissingExtraError, Verdict
from codegym.episode import is_neutral
from codegym.storage import append_rows, read_rows
from prm.dataset import (
    SOURCE,
    from_stepwise,
    read_parquet,
    read_stepwise,
    to_stepwise,
    write_parquet,
    write_stepwise,
)
from prm.labeling import read_labels
from prm.program import LabeledProgram, SampledProgram


class Words:
    """Any text survives: one token per character; 0 ends a program, 1 begins a prompt."""

    eos_token_id = 0

    def __len__(self):
        return 0x110002

    def encode(self, text, *, add_special_tokens=True):
        return [1] * add_special_tokens + [ord(letter) + 2 for letter in text]

    def decode(self, token_ids, *, skip_special_tokens=False, clean_up_tokenization_spaces=True):
        return "".join(chr(token - 2) for token in token_ids if token > 1)


WORDS = Words()


def labeled(lines=("    x = 1", "    # why", "    return x"), labels=(1.0, 0.0, -0.25), **changes):
    completion = "".join(f"{line}\n" for line in lines)
    program = SampledProgram(
        program_id="sft/t/0",
        task_id="t",
        policy="sft",
        prompt_ids=tuple(WORDS.encode("def f():\n")),
        token_ids=(*WORDS.encode(completion, add_special_tokens=False), 0),
        completion=completion,
        finished=True,
        verdict=Verdict.WRONG_ANSWER,
        results=(True, False),
    )
    return LabeledProgram(
        program=program,
        labels=labels,
        **{
            "source": "full_scan_soft",
            "completer": "m-1",
            "probes": {1: (8, 8), 3: (3, 8)},
            "cost": {"completions": 16.0, "tokens": 99.0},
            "seconds": 0.75,
            **changes,
        },
    )


def same(a, b):
    return a == b and a.seconds == b.seconds


# ---------------------------------------------------------------- Parquet


def test_parquet_gives_back_everything(tmp_path):
    labels = [labeled(), labeled((), (), probes={}, cost={}, completer="")]
    write_parquet(tmp_path / "deep" / "l.parquet", labels)
    found = read_parquet(tmp_path / "deep" / "l.parquet")
    assert all(same(a, b) for a, b in zip(found, labels, strict=True))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["l.parquet"]


def test_parquet_columns_are_plain(tmp_path):
    import pyarrow.parquet

    write_parquet(tmp_path / "l.parquet", [labeled()])
    row = pyarrow.parquet.read_table(tmp_path / "l.parquet").to_pylist()[0]
    assert row["labels"] == [1.0, 0.0, -0.25]
    assert row["completion"] == "    x = 1\n    # why\n    return x\n"
    assert row["verdict"] == "wrong_answer"
    assert row["probes"] == [
        {"lines": 1, "passed": 8, "tried": 8},
        {"lines": 3, "passed": 3, "tried": 8},
    ]
    assert row["cost"] == [{"what": "completions", "amount": 16.0}, {"what": "tokens", "amount": 99.0}]


LINE = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n"), max_size=6)
ROWS = st.lists(st.tuples(LINE, st.floats(-1, 1)), max_size=6)


@settings(max_examples=60)
@given(st.lists(ROWS, max_size=4), st.dictionaries(st.integers(0, 30), st.integers(0, 9)), st.booleans())
def test_any_labels_survive_parquet_and_json(tmp_path_factory, programs, passes, finished):
    folder = tmp_path_factory.mktemp("labels")
    labels = []
    for number, rows in enumerate(programs):
        item = labeled([line for line, _ in rows], tuple(label for _, label in rows))
        program = replace(item.program, program_id=str(number), finished=finished)
        labels.append(replace(item, program=program, probes={m: (k, 9) for m, k in passes.items()}))
    write_parquet(folder / "l.parquet", labels)
    append_rows(folder / "l.jsonl", (item.to_row() for item in labels))
    for found in (read_parquet(folder / "l.parquet"), read_labels(folder / "l.jsonl")):
        assert len(found) == len(labels)
        assert all(same(a, b) for a, b in zip(found, labels, strict=True))


def test_an_empty_table_is_a_table(tmp_path):
    write_parquet(tmp_path / "l.parquet", [])
    assert read_parquet(tmp_path / "l.parquet") == []


def test_what_parquet_cannot_spell_is_named_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"row 2: field 'completion' holds a lone surrogate"):
        write_parquet(tmp_path / "l.parquet", [labeled(), labeled(["    '\ud800'"], (1.0,))])
    assert list(tmp_path.iterdir()) == []


def test_a_bad_parquet_row_is_named(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "l.parquet"
    write_parquet(path, [labeled(), labeled()])
    table = pyarrow.parquet.read_table(path)
    for name, bad, message in (
        ("labels", [[1.0, 0.0, -0.25], [1.0]], r"l\.parquet, row 2: .*has 3 lines but 1 labels"),
        ("labels", [[1.0, 0.0, 7.0], [1.0, 0.0, 0.0]], r"row 1: .*labels must be in \[-1, 1\]"),
        ("verdict", ["wrong_answer", "fine"], r"row 2: .*verdict must be one of"),
        ("policy", [None, "sft"], r"row 1: .*field 'policy' must be str, got None"),
        ("probes", [None, None], r"row 1: .*field 'probes' must be a list"),
    ):
        place = table.column_names.index(name)
        kind = table.schema.field(name).type
        pyarrow.parquet.write_table(table.set_column(place, name, pyarrow.array(bad, type=kind)), path)
        with pytest.raises(ValueError, match=message):
            read_parquet(path)
    pyarrow.parquet.write_table(table.drop_columns(["policy"]), path)
    with pytest.raises(ValueError, match=r"row 1: .*field 'policy' is missing"):
        read_parquet(path)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_parquet(tmp_path / "none.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'codegym\[parquet\]'"):
        write_parquet(tmp_path / "l.parquet", [labeled()])


# ---------------------------------------------------------------- stepwise supervision


def test_stepwise_rows_have_the_three_columns(tmp_path):
    write_stepwise(tmp_path / "s.jsonl", [labeled()], WORDS)
    assert list(read_rows(tmp_path / "s.jsonl")) == [
        {
            "prompt": "def f():\n",
            "completions": ["    x = 1", "    # why", "    return x"],
            "labels": [1.0, 0.0, -0.25],
        }
    ]


def test_stepwise_rows_become_programs():
    row = {"prompt": "def f():\n", "completions": ["    x = 1", "    return x"], "labels": [True, False]}
    (found,) = from_stepwise([row], WORDS)
    program = found.program
    assert (found.labels, found.source) == ((1.0, -1.0), SOURCE)
    assert program.completion == "    x = 1\n    return x\n"
    assert program.prompt_ids == tuple(WORDS.encode("def f():\n"))
    assert program.token_ids == (*WORDS.encode(program.completion, add_special_tokens=False), 0)
    assert (program.finished, program.verdict, program.policy) == (True, Verdict.WRONG_ANSWER, SOURCE)


def test_a_program_without_a_negative_label_counts_as_passed():
    rows = [{"prompt": "p", "completions": ["x"], "labels": [label]} for label in (1, 0, -1)]
    assert [found.program.passed for found in from_stepwise(rows, WORDS)] == [True, True, False]


def test_rows_of_one_prompt_are_one_task_and_different_programs():
    row = {"prompt": "p", "completions": ["x"], "labels": [1]}
    found = [item.program for item in from_stepwise([row, row, {**row, "prompt": "q"}], WORDS)]
    assert found[0].task_id == found[1].task_id != found[2].task_id
    assert len({program.program_id for program in found}) == 3


def test_a_completion_of_several_lines_gives_each_its_label():
    row = {"prompt": "p", "completions": ["a\n# b\nc\n", "d"], "labels": [0.5, -1]}
    (found,) = from_stepwise([row], WORDS)
    assert found.program.lines == ["a", "# b", "c", "d"]
    assert found.labels == (0.5, 0.0, 0.5, -1.0)


@settings(max_examples=80)
@given(st.text(max_size=8), ROWS)
def test_rows_written_read_and_written_again_are_the_same(prompt, rows):
    given_row = {
        "prompt": prompt,
        "completions": [line for line, _ in rows],
        "labels": [0.0 if is_neutral(line) else label for line, label in rows],
    }
    (found,) = from_stepwise([given_row], WORDS)
    (again,) = to_stepwise([found], WORDS)
    assert json.loads(json.dumps(again)) == given_row


def test_a_file_there_and_back_keeps_lines_labels_and_tokens(tmp_path):
    items = [labeled(), labeled(["    '\ud800'", "    return 2"], (0.125, -1.0))]
    write_stepwise(tmp_path / "s.jsonl", items, WORDS)
    found = read_stepwise(tmp_path / "s.jsonl", WORDS)
    assert [item.labels for item in found] == [item.labels for item in items]
    assert [item.program.lines for item in found] == [item.program.lines for item in items]
    assert [item.program.token_ids for item in found] == [item.program.token_ids for item in items]


GOOD = {"prompt": "p", "completions": ["x"], "labels": [1.0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "row 2: field 'prompt' must be str, got None"),
        ({"completions": "x"}, "row 2: field 'completions' must be list or tuple, got 'x'"),
        ({"completions": [7]}, "row 2: field 'completions' must be str, got 7"),
        ({"labels": ["good"]}, "row 2: field 'labels' must be float or int or bool, got 'good'"),
        ({"labels": [2]}, r"row 2: field 'labels' must be in \[-1, 1\], got 2.0"),
        ({"labels": [float("nan")]}, r"row 2: field 'labels' must be in \[-1, 1\], got nan"),
        ({"labels": []}, "row 2: 1 completions but 0 labels"),
    ],
)
def test_a_bad_stepwise_row_is_named_by_row_and_field(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        list(from_stepwise([GOOD, {**GOOD, **change}], WORDS))
    append_rows(tmp_path / "s.jsonl", [GOOD, {**GOOD, **change}])
    with pytest.raises(ValueError, match=rf"s\.jsonl, {message}"):
        read_stepwise(tmp_path / "s.jsonl", WORDS)


@pytest.mark.parametrize("name", list(GOOD))
def test_a_missing_column_is_named(name):
    row = {column: value for column, value in GOOD.items() if column != name}
    with pytest.raises(ValueError, match=f"row 1: field '{name}' is missing"):
        list(from_stepwise([row], WORDS))


def test_a_bad_row_of_labels_names_file_row_and_field(tmp_path):
    path = tmp_path / "l.jsonl"
    append_rows(path, [labeled().to_row(), {**labeled().to_row(), "labels": ["?"] * 3}])
    with pytest.raises(ValueError, match=r"l\.jsonl, row 2: field 'labels' must be float or int"):
        read_labels(path)
