"""Files that survive kill -9."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym.storage import append_rows, read_rows, write_json, write_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.lists(st.dictionaries(st.text(st.characters(codec=None)), JSON, max_size=4), max_size=6))
def test_rows_come_back_as_they_went(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    append_rows(path, rows[:2])
    append_rows(path, rows[2:])
    assert list(read_rows(path)) == rows


@pytest.mark.parametrize("text", ["\ud800", "\u2028 \x85 \r\n", "\0", "😀", '"\\'])
def test_hostile_text_survives(tmp_path, text):
    append_rows(tmp_path / "rows.jsonl", [{"completion": text}, {text: 1}])
    assert list(read_rows(tmp_path / "rows.jsonl")) == [{"completion": text}, {text: 1}]
    write_json(tmp_path / "value.json", {"x": text})
    assert json.loads((tmp_path / "value.json").read_bytes()) == {"x": text}


def test_a_missing_file_has_no_rows_and_no_rows_make_no_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert list(read_rows(path)) == []
    append_rows(path, [])
    assert not path.exists()


@pytest.mark.parametrize(
    "torn", ['{"a": 3', "{", '{"a": 3}', "x" * 10_000, '{"a": "é'.encode()[:-1].decode("latin1")]
)
def test_a_torn_last_line_is_skipped_then_cut_off(tmp_path, torn):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [{"a": 1}, {"a": 2}])
    with path.open("a", encoding="latin1") as file:
        file.write(torn)
    assert list(read_rows(path)) == [{"a": 1}, {"a": 2}]
    append_rows(path, [{"a": 4}])
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n{"a": 4}\n'


def test_a_file_that_is_one_torn_line_starts_anew(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": ' + "1" * 9000)
    append_rows(path, [{"a": 2}])
    assert list(read_rows(path)) == [{"a": 2}]


@settings(max_examples=40)
@given(st.integers(0, 400))
def test_cut_anywhere_nothing_is_repeated_and_only_the_tail_is_missing(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "rows.jsonl"
    rows = [{"id": index, "text": "é" * index} for index in range(12)]
    append_rows(path, rows)
    path.write_bytes(path.read_bytes()[:cut])
    kept = list(read_rows(path))
    assert kept == rows[: len(kept)]
    append_rows(path, rows[len(kept) :])
    assert list(read_rows(path)) == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\nnot json\n', "line 2: not JSON"),
        (b'{"a": 1}\n\n{"a": 2}\n', "line 2: not JSON"),
        (b"[1]\n", "line 1: expected a JSON object, got list"),
        (b'{"a": "\xff"}\n', "line 1: not JSON"),
    ],
)
def test_a_corrupt_row_is_named(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        list(read_rows(path))
    assert str(path) in str(caught.value)


def test_whole_files_are_replaced_not_rewritten(tmp_path):
    path = tmp_path / "deep" / "config.json"
    write_json(path, {"b": 1, "a": [1.5, None]})
    assert path.read_text() == '{\n  "a": [\n    1.5,\n    null\n  ],\n  "b": 1\n}\n'
    before = path.stat().st_ino
    write_text(path, "new\n")
    assert path.read_text() == "new\n"
    assert path.stat().st_ino != before
    assert os.listdir(path.parent) == ["config.json"]


def test_a_value_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "x.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert (tmp_path / "x.json").read_text() == "1\n"


def test_kill_nine_while_appending_loses_at_most_the_last_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    program = (
        "import pathlib, sys\nfrom codegym.storage import append_rows\npath = pathlib.Path(sys.argv[1])\n"
        "for n in range(10**9): append_rows(path, [{'id': 2 * n}, {'id': 2 * n + 1, 'text': 'x' * 5000}])\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(path)])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (path.exists() and path.stat().st_size > 50_000):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    ids = [row["id"] for row in read_rows(path)]
    assert len(ids) >= 18
    assert ids == list(range(len(ids)))
