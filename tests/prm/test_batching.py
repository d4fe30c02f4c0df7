from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from prm.alignment import newlines_per_token, split_lines
from prm.batching import collate, encode, encode_labeled, encode_sampled, plan_batches
from prm.program import LabeledProgram

NEWLINES = np.array([0, 1, 2, 0], dtype=np.int64)  # tokens: 0 and 3 hold none, 1 holds one, 2 holds two


def test_lines_are_found_in_the_tokens_after_the_prompt() -> None:
    program = encode([0, 1, 0], [0, 0, 1, 3, 1], ["ab", "c"], NEWLINES, [1.0, -1.0])
    assert program.token_ids.tolist() == [0, 1, 0, 0, 0, 1, 3, 1]
    assert program.line_of_token.tolist() == [-1, -1, -1, 0, 0, 0, 1, 1]
    assert program.line_ends.tolist() == [5, 7]
    assert program.labels.tolist() == [1.0, -1.0]


def test_blank_and_comment_lines_are_not_scored() -> None:
    program = encode([], [0, 1, 0, 1, 1, 0, 1], ["x = 1  # why", "  # so", "", "y"], NEWLINES)
    assert program.scored.tolist() == [True, False, False, True]
    assert program.labels.tolist() == [0.0, 0.0, 0.0, 0.0]


def test_a_token_with_two_newlines_ends_two_lines() -> None:
    program = encode([3], [0, 2, 0, 1], ["a", "", "b"], NEWLINES)
    assert program.line_ends.tolist() == [2, 2, 4]
    assert program.line_of_token.tolist() == [-1, 0, 0, 2, 2]


def test_a_cut_off_last_line_ends_at_the_last_token() -> None:
    program = encode([3], [0, 1, 0, 3], ["a", "bc"], NEWLINES)
    assert program.line_ends.tolist() == [2, 4]


def test_labels_must_match_the_lines() -> None:
    with pytest.raises(ValueError, match="2 lines but 1 labels"):
        encode([], [0, 1, 0, 1], ["a", "b"], NEWLINES, [1.0])


def test_tokens_must_match_the_lines() -> None:
    with pytest.raises(ValueError, match="cannot be 3 lines"):
        encode([], [0, 1], ["a", "b", "c"], NEWLINES)


def test_the_end_of_text_token_is_no_part_of_the_program(
    tokenizer: PreTrainedTokenizerFast, digits: Callable[[range], list[LabeledProgram]]
) -> None:
    labeled = digits(range(1))[0]
    newlines = newlines_per_token(tokenizer)
    program = encode_labeled(labeled, newlines)
    assert program.token_ids.tolist() == [*labeled.program.prompt_ids, *labeled.program.token_ids[:-1]]
    assert program.labels.tolist() == list(labeled.labels)
    assert encode_sampled(labeled.program, newlines).token_ids.tolist() == program.token_ids.tolist()


def test_a_program_is_cut_after_its_first_error() -> None:
    program = encode(
        [3], [0, 1, 0, 1, 0, 1], ["a", "b", "c"], NEWLINES, [1.0, -1.0, -1.0]
    ).until_first_error()
    assert program.token_ids.tolist() == [3, 0, 1, 0, 1]
    assert (program.n_lines, program.labels.tolist(), program.line_ends.tolist()) == (2, [1.0, -1.0], [2, 4])


def test_a_right_program_is_not_cut() -> None:
    program = encode([3], [0, 1, 0, 1], ["a", "b"], NEWLINES, [1.0, 1.0])
    assert program.until_first_error() is program


def test_no_lines_leave_the_prompt() -> None:
    program = encode([3, 3], [0, 1, 0, 1], ["a", "b"], NEWLINES).first_lines(0)
    assert (program.token_ids.tolist(), program.n_lines) == ([3, 3], 0)


@given(st.text(alphabet="a #\n\té", max_size=40), st.text(alphabet="b\n", max_size=10))
def test_every_token_belongs_to_the_line_that_its_newline_ends(completion: str, prompt: str) -> None:
    vocabulary = sorted(set("a #\n\téb"))
    ids, prompt_ids = ([vocabulary.index(letter) for letter in text] for text in (completion, prompt))
    newlines = np.array([letter.count("\n") for letter in vocabulary], dtype=np.int64)
    lines = split_lines(completion)
    program = encode(prompt_ids, ids, lines, newlines)
    text = prompt + completion
    for number, line in enumerate(lines):
        written = "".join(text[t] for t in np.flatnonzero(program.line_of_token == number))
        assert written.removesuffix("\n") == line
        assert program.line_ends[number] == np.flatnonzero(program.line_of_token == number)[-1]


def test_padding_is_marked_everywhere() -> None:
    long = encode([3], [0, 1, 0, 1], ["a", "# b"], NEWLINES, [1.0, 0.0])
    short = encode([3], [0, 1], ["a"], NEWLINES, [-0.5])
    batch = collate([long, short], pad_id=2)
    assert batch.input_ids.tolist() == [[3, 0, 1, 0, 1], [3, 0, 1, 2, 2]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch.line_of_token.tolist() == [[-1, 0, 0, 1, 1], [-1, 0, 0, -1, -1]]
    assert batch.line_ends.tolist() == [[2, 4], [2, 0]]
    assert batch.present.tolist() == [[True, True], [True, False]]
    assert batch.scored.tolist() == [[True, False], [True, False]]
    assert batch.labels.tolist() == [[1.0, 0.0], [-0.5, 0.0]]


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_batches_hold_every_program_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget


def test_programs_of_like_length_share_a_batch() -> None:
    assert plan_batches([9, 1, 10, 2], 20) == [[1, 3], [0, 2]]
