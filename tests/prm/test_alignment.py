"""For any segmentation of any text, the token that covers a newline ends the line."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm.alignment import line_end_tokens, line_of_token, newlines_per_token, split_lines


class Pieces:
    """A tokenizer whose vocabulary is a list of texts; token 0 is special."""

    def __init__(self, pieces):
        self.pieces = ["<|end|>", *pieces]

    def __len__(self):
        return len(self.pieces)

    def decode(self, token_ids, *, skip_special_tokens=False, clean_up_tokenization_spaces=True):
        assert not clean_up_tokenization_spaces, "cleaning up changes the text"
        return "".join(self.pieces[token] for token in token_ids if token or not skip_special_tokens)


TEXT = st.text(alphabet="ab \n", max_size=30)


@st.composite
def segmented(draw):
    """A text cut into tokens anywhere, newlines merged with whatever stands beside them."""
    text = draw(TEXT)
    cuts = sorted(draw(st.sets(st.integers(1, max(len(text) - 1, 1)), max_size=len(text))))
    bounds = [0, *[cut for cut in cuts if cut < len(text)], len(text)]
    pieces = [text[a:b] for a, b in pairwise(bounds) if a < b]
    return text, pieces


@pytest.mark.parametrize(
    ("completion", "lines"),
    [
        ("", []),
        ("a", ["a"]),
        ("a\n", ["a"]),
        ("a\n\n", ["a", ""]),
        ("\n", [""]),
        ("a\nb", ["a", "b"]),
        ("a\r\nb\x0c\u2028c\n", ["a\r", "b\x0c\u2028c"]),
    ],
)
def test_lines_end_at_newlines_only(completion, lines):
    assert split_lines(completion) == lines


@given(st.lists(st.text(st.characters(exclude_characters="\n"))))
def test_splitting_undoes_writing(lines):
    assert split_lines("".join(line + "\n" for line in lines)) == lines


def test_newlines_are_counted_per_token_and_special_tokens_have_none():
    counts = newlines_per_token(Pieces(["a", "\n", "\n\n    ", ":\n  b\n"]))
    assert counts.tolist() == [0, 0, 1, 2, 2]
    assert counts.dtype == np.int64


def test_by_hand():
    # tokens: "if" ":\n    " "x" "\n\n" "y"; lines "if:", "    x", "", "y"
    newlines = newlines_per_token(Pieces(["if", ":\n    ", "x", "\n\n", "y"]))
    tokens = [1, 2, 3, 4, 5]
    assert line_of_token(tokens, newlines).tolist() == [0, 0, 1, 1, 3]
    assert line_end_tokens(tokens, 4, newlines).tolist() == [1, 3, 3, 4]


@given(segmented())
def test_a_line_ends_at_the_token_covering_its_newline(segmented):
    text, pieces = segmented
    lines = split_lines(text)
    newlines = newlines_per_token(Pieces(pieces))
    ends = line_end_tokens(range(1, len(pieces) + 1), len(lines), newlines)
    starts = np.cumsum([0, *map(len, pieces)])
    position = 0
    for line, end in zip(lines, ends, strict=True):
        newline = position + len(line)
        if newline < len(text):
            assert text[newline] == "\n"
            assert starts[end] <= newline < starts[end + 1]
        else:
            assert end == len(pieces) - 1
        position = newline + 1


@given(segmented())
def test_a_token_belongs_to_the_line_of_its_first_character(segmented):
    text, pieces = segmented
    newlines = newlines_per_token(Pieces(pieces))
    of_token = line_of_token(range(1, len(pieces) + 1), newlines)
    position = 0
    for piece, line in zip(pieces, of_token, strict=True):
        assert line == text[:position].count("\n")
        position += len(piece)


@given(segmented())
def test_ends_never_go_back_and_no_token_after_a_lines_end_belongs_to_it(segmented):
    text, pieces = segmented
    lines = split_lines(text)
    newlines = newlines_per_token(Pieces(pieces))
    tokens = range(1, len(pieces) + 1)
    ends, of_token = line_end_tokens(tokens, len(lines), newlines), line_of_token(tokens, newlines)
    assert (np.diff(ends) >= 0).all()
    for line, end in enumerate(ends):
        assert (of_token[end + 1 :] > line).all()


@pytest.mark.parametrize(("tokens", "n_lines"), [([1], 3), ([1, 2], 0), ([2, 2], 1), ([], 1), ([2, 2, 2], 5)])
def test_tokens_and_lines_that_do_not_belong_together_are_refused(tokens, n_lines):
    newlines = newlines_per_token(Pieces(["a", "\n"]))
    with pytest.raises(ValueError, match=f"{len(tokens)} tokens cover .* cannot be {n_lines} lines"):
        line_end_tokens(tokens, n_lines, newlines)


def test_an_empty_program_has_no_ends():
    newlines = newlines_per_token(Pieces(["a"]))
    assert line_end_tokens([], 0, newlines).tolist() == []
    assert line_of_token([], newlines).tolist() == []
