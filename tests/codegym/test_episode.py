"""The immutable record of a program being written."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegym import END_OF_PROGRAM, Episode
from codegym.episode import is_neutral
from codegym.testing import DOUBLE


def test_writing_returns_a_new_episode():
    empty = Episode(task=DOUBLE)
    one = empty.write("    y = x")
    assert (empty.lines, one.lines) == ((), ("    y = x",))
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.lines = ()


def test_texts_of_an_episode():
    episode = Episode(task=DOUBLE, lines=("    y = x", "", "    return y"))
    assert episode.completion == "    y = x\n\n    return y\n"
    assert episode.text == episode.source == "def double(x):\n    y = x\n\n    return y\n"
    assert Episode(task=DOUBLE).completion == ""


@pytest.mark.parametrize(
    ("terminated", "truncated", "over", "n_actions"),
    [(False, False, False, 2), (True, False, True, 3), (False, True, True, 2)],
)
def test_the_end_action_counts(terminated, truncated, over, n_actions):
    episode = Episode(task=DOUBLE, lines=("a", "b"), terminated=terminated, truncated=truncated)
    assert (episode.over, episode.n_actions) == (over, n_actions)


def test_end_of_program_cannot_occur_in_source():
    with pytest.raises((ValueError, SyntaxError)):
        compile(f"x = '{END_OF_PROGRAM}'", "module", "exec")


def test_end_of_program_survives_a_numpy_array():
    assert str(np.array(["x", END_OF_PROGRAM])[1]) == END_OF_PROGRAM


@pytest.mark.parametrize(
    ("line", "neutral"),
    [
        ("", True),
        ("   \t ", True),
        ("\x0c", True),
        ("# why", True),
        ("      # why", True),
        ("x = 1  # why", False),
        ("pass", False),
        ("'''text'''", False),
        ("    return", False),
    ],
)
def test_only_blank_and_comment_lines_are_neutral(line, neutral):
    assert is_neutral(line) is neutral


@given(st.text(), st.text(alphabet=" \t"))
def test_indentation_does_not_change_neutrality(line, indent):
    assert is_neutral(indent + line) == is_neutral(line)
