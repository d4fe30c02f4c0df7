"""CodeSpace: permissive, seeded, and loud where Gymnasium's own text space is silently wrong."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegym import END_OF_PROGRAM, CodeSpace
from codegym.episode import CUT_PROGRAM


@given(st.text())
def test_every_string_is_an_observation(text):
    assert text in CodeSpace()


@given(st.text())
def test_an_action_is_one_line_without_nul(text):
    assert (text in CodeSpace(one_line=True)) == ("\n" not in text and "\0" not in text)


@given(st.text())
def test_a_program_is_text_without_nul(text):
    assert (text in CodeSpace(is_source=True)) == ("\0" not in text)


def test_end_of_program_is_an_action():
    assert END_OF_PROGRAM in CodeSpace(one_line=True)
    assert CUT_PROGRAM in CodeSpace(one_line=True)
    assert END_OF_PROGRAM + " " not in CodeSpace(one_line=True)


@pytest.mark.parametrize("value", [None, 1, b"x", ["x"], np.array("x")])
def test_other_types_are_no_members(value):
    assert value not in CodeSpace()
    assert value not in CodeSpace(one_line=True)


def test_samples_repeat_with_the_seed_and_are_members():
    space, twin = CodeSpace(one_line=True, seed=4), CodeSpace(one_line=True, seed=4)
    samples = [space.sample() for _ in range(200)]
    assert samples == [twin.sample() for _ in range(200)]
    assert all(sample in space for sample in samples)
    assert END_OF_PROGRAM not in samples
    assert {len(sample) for sample in samples} >= {0, 24}
    assert any(not sample.isascii() for sample in samples)


def test_sampling_refuses_masks():
    with pytest.raises(ValueError, match="neither mask nor probability"):
        CodeSpace().sample(mask=(3, None))


def test_equality_hash_and_copies():
    assert CodeSpace() == CodeSpace(seed=3)
    assert CodeSpace() != CodeSpace(one_line=True)
    assert CodeSpace() != gym.spaces.Text(5)
    assert CodeSpace(is_source=True) != CodeSpace()
    assert len({CodeSpace(), CodeSpace(), CodeSpace(one_line=True), CodeSpace(is_source=True)}) == 3
    for twin in (
        copy.deepcopy(CodeSpace(one_line=True)),
        pickle.loads(pickle.dumps(CodeSpace(one_line=True))),
    ):
        assert twin == CodeSpace(one_line=True)
    assert repr(CodeSpace(one_line=True)) == "CodeSpace(one_line=True)"
    assert repr(CodeSpace()) == "CodeSpace()"


def test_json_round_trip():
    space = CodeSpace()
    assert space.from_jsonable(space.to_jsonable(["a", "é"])) == ["a", "é"]


def test_shared_memory_is_refused_and_flattening_is_impossible():
    assert not CodeSpace().is_np_flattenable
    with pytest.raises((TypeError, gym.error.CustomSpaceError)):
        gym.vector.utils.create_shared_memory(CodeSpace(), n=2)
