import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from codegym.storage import append_rows
from prm.dataset import write_parquet, write_stepwise
from prm.label_files import check_tokens, read_label_files
from prm.program import LabeledProgram

Digits = Callable[[range], list[LabeledProgram]]


@pytest.fixture
def rows(digits: Digits, tmp_path: Path) -> Path:
    path = tmp_path / "labels.jsonl"
    append_rows(path, (item.to_row() for item in digits(range(4))))
    return path


def test_files_of_all_formats_are_read_one_after_the_other(
    rows: Path, digits: Digits, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    write_parquet(tmp_path / "more.parquet", digits(range(4, 7)))
    write_stepwise(tmp_path / "stepwise.jsonl", digits(range(7, 9)), tokenizer)
    names = ("labels.jsonl", "more.parquet", "stepwise.jsonl")
    labeled = read_label_files([tmp_path / name for name in names], tokenizer)
    assert labeled[:7] == digits(range(7))
    assert [item.source for item in labeled[7:]] == ["stepwise_supervision"] * 2
    assert [item.labels for item in labeled] == [item.labels for item in digits(range(9))]
    check_tokens([item.program for item in labeled], tokenizer)


def test_a_missing_file_and_an_empty_one_are_named(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file of labels at .*nowhere\.jsonl"):
        read_label_files([rows, tmp_path / "nowhere.jsonl"], None)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match=r"empty\.jsonl holds no labelled program"):
        read_label_files([rows, tmp_path / "empty.jsonl"], None)


def test_a_bad_row_names_file_row_and_field(rows: Path) -> None:
    row = json.loads(rows.read_text().splitlines()[0])
    append_rows(rows, [{**row, "labels": ["right"] * 3}])
    with pytest.raises(ValueError, match=r"labels\.jsonl, row 5: .*field 'labels' must be float or int"):
        read_label_files([rows], None)


def test_a_bad_stepwise_row_names_file_row_and_field(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = tmp_path / "steps.jsonl"
    append_rows(path, [{"prompt": "1\n", "completions": ["1"], "labels": [True]}, {"prompt": "1\n"}])
    with pytest.raises(ValueError, match=r"steps\.jsonl, row 2: field 'completions' is missing"):
        read_label_files([path], tokenizer)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"bad\.parquet"):
        read_label_files([tmp_path / "bad.parquet"], None)


def test_tokens_beyond_the_vocabulary_are_refused(digits: Digits, tokenizer: PreTrainedTokenizerFast) -> None:
    good, bad = (item.program for item in digits(range(2)))
    bad = replace(bad, prompt_ids=(400,))
    with pytest.raises(ValueError, match=r"'scripted/digits/1' has token 400, but .* 257 tokens"):
        check_tokens([good, bad], tokenizer)


def test_tokens_that_spell_other_programs_are_refused(
    digits: Digits, tokenizer: PreTrainedTokenizerFast
) -> None:
    programs = [item.program for item in digits(range(3))]
    foreign = [replace(p, token_ids=tuple((number + 1) % 257 for number in p.token_ids)) for p in programs]
    with pytest.raises(ValueError, match=r"its tokens spell .* written with another tokenizer"):
        check_tokens(foreign, tokenizer)
    check_tokens([*foreign, programs[0]], tokenizer)  # a tokenizer may fail to repeat some texts
    check_tokens([], tokenizer)


def test_an_end_token_may_have_a_text_of_its_own(digits: Digits, tokenizer: PreTrainedTokenizerFast) -> None:
    """A newline without indentation ends a function's body, and is no part of the program."""
    (newline,) = tokenizer.encode("\n", add_special_tokens=False)
    programs = []
    for item in digits(range(3)):
        cut = item.program.completion.removesuffix("\n")
        ids = (*tokenizer.encode(cut, add_special_tokens=False), newline)
        programs.append(replace(item.program, completion=cut, token_ids=ids, finished=True))
        assert tokenizer.decode(programs[-1].written_ids) == cut
    check_tokens(programs, tokenizer)
