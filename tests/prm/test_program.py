"""Programs as rows: what goes to disk comes back, and what is wrong with a row is named."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegym import Verdict
from codegym.testing import DOUBLE
from prm.program import LabeledProgram, SampledProgram

PROGRAM = SampledProgram(
    program_id="sft/check/double/0",
    task_id="check/double",
    policy="sft",
    prompt_ids=(5, 6),
    token_ids=(1, 2, 3, 0),
    completion="    y = x\n    return y\n",
    finished=True,
    verdict=Verdict.WRONG_ANSWER,
    results=(True, False, False),
)
LABELED = LabeledProgram(
    program=PROGRAM,
    labels=(1.0, -1.0),
    source="binary_search",
    completer="model-1",
    probes={1: (2, 4), 2: (0, 8)},
    cost={"completions": 12, "tokens": 96.5},
)


def through_json(row):
    return json.loads(json.dumps(row))


def test_rows_come_back_as_they_went():
    assert SampledProgram.from_row(through_json(PROGRAM.to_row())) == PROGRAM
    assert LabeledProgram.from_row(through_json(LABELED.to_row())) == LABELED
    assert PROGRAM.to_row()["verdict"] == "wrong_answer"
    assert type(PROGRAM.to_row()["verdict"]) is str


@given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=2), st.dictionaries(st.integers(1, 50), st.integers(0, 8))
)
def test_soft_labels_and_probes_survive(labels, passes):
    labeled = replace(LABELED, labels=tuple(labels), probes={m: (k, 8) for m, k in passes.items()})
    assert LabeledProgram.from_row(through_json(labeled.to_row())) == labeled


def test_fields_a_labeler_may_leave_out_have_defaults():
    row = {key: LABELED.to_row()[key] for key in ("program", "labels", "source")}
    labeled = LabeledProgram.from_row(row)
    assert (labeled.completer, labeled.probes, labeled.cost) == ("", {}, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"program_id": None}, "field 'program_id' must be str, got None"),
        ({"token_ids": "123"}, "field 'token_ids' must be list or tuple, got '123'"),
        ({"token_ids": [1, 2.5]}, r"field 'token_ids' must be int, got 2\.5"),
        ({"prompt_ids": [True]}, "field 'prompt_ids' must be int, got True"),
        ({"finished": 1}, "field 'finished' must be bool, got 1"),
        ({"verdict": "good"}, "verdict must be one of passed, .*, got 'good'"),
        ({"verdict": ["passed"]}, "field 'verdict' must be str"),
        ({"results": [True, 0]}, "field 'results' must be bool, got 0"),
        ({"colour": "red"}, r"unknown fields \['colour'\]"),
    ],
)
def test_a_bad_program_row_names_the_field(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        SampledProgram.from_row({**PROGRAM.to_row(), **change})
    assert "program_id" in change or "sft/check/double/0" in str(caught.value)


@pytest.mark.parametrize("name", PROGRAM.to_row())
def test_a_missing_program_field_is_named(name):
    row = {key: value for key, value in PROGRAM.to_row().items() if key != name}
    with pytest.raises(ValueError, match=f"field '{name}' is missing"):
        SampledProgram.from_row(row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [1.0]}, "has 2 lines but 1 labels"),
        ({"labels": [1.0, "x"]}, "'labels' must be float or int, got 'x'"),
        ({"labels": [1.0, 2.0]}, r"labels must be in \[-1, 1\]"),
        ({"labels": [1.0, float("nan")]}, r"labels must be in \[-1, 1\]"),
        ({"program": "x"}, "'program' must be dict"),
        ({"source": 3}, "'source' must be str"),
        ({"probes": {"1": 3}}, "field '1' must be list or tuple, got 3"),
        ({"probes": {"1": [1, 2, 3]}}, "too many values"),
        ({"cost": [1]}, "'cost' must be dict"),
    ],
)
def test_a_bad_label_row_names_the_field(change, message):
    with pytest.raises(ValueError, match=message):
        LabeledProgram.from_row({**LABELED.to_row(), **change})


@pytest.mark.parametrize("name", ["program", "labels", "source"])
def test_a_missing_label_field_is_named(name):
    row = {key: value for key, value in LABELED.to_row().items() if key != name}
    with pytest.raises(ValueError, match=f"field '{name}' is missing"):
        LabeledProgram.from_row(row)


@pytest.mark.parametrize(("finished", "n_actions"), [(True, 3), (False, 2)])
def test_a_program_is_a_finished_episode(finished, n_actions):
    episode = replace(PROGRAM, finished=finished).episode(DOUBLE)
    assert episode.lines == ("    y = x", "    return y")
    assert (episode.terminated, episode.truncated, episode.n_actions) == (finished, not finished, n_actions)
    assert episode.judgement.results == (True, False, False)
    assert episode.source == DOUBLE.prompt + PROGRAM.completion


def test_passing_is_the_verdicts_business():
    assert not PROGRAM.passed
    assert replace(PROGRAM, verdict=Verdict.PASSED).passed
