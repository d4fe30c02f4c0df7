import pytest

from codegym import Verdict
from prm.agreement import compare_labels
from prm.program import LabeledProgram, SampledProgram


def labeled(name: str, labels: list[float], completions: int = 0, lines: int | None = None) -> LabeledProgram:
    program = SampledProgram(
        program_id=name,
        task_id="t",
        policy="p",
        prompt_ids=(1,),
        token_ids=(2, 0),
        completion="x = 1\n" * len(labels),
        finished=True,
        verdict=Verdict.WRONG_ANSWER,
        results=(False,),
    )
    return LabeledProgram(
        program=program, labels=tuple(labels), source="s", cost={"completions": completions}
    )


def test_agreement_by_hand():
    exact = [labeled("a", [1, 1, 1, -1]), labeled("b", [1, -1, -1, 0]), labeled("only here", [1])]
    guess = [labeled("b", [1, 1, -1, 0], completions=8), labeled("a", [1, -1, -1, -1], completions=12)]
    assert compare_labels(exact, guess, k=4) == {
        "programs": 2,
        "lines": 7,  # the neutral line does not count
        "line_agreement": pytest.approx(4 / 7),
        "right_called_wrong": pytest.approx(2 / 7),
        "wrong_called_right": pytest.approx(1 / 7),
        "same_first_error": 0.0,
        "completions_per_program": 10.0,
        "completions_vs_full_scan": pytest.approx(20 / (4 * 7)),
    }


def test_equal_labels_agree_entirely():
    programs = [labeled("a", [1, -1]), labeled("b", [1, 1]), labeled("c", [-1])]
    result = compare_labels(programs, programs, k=8)
    assert result["line_agreement"] == result["same_first_error"] == 1.0
    assert result["right_called_wrong"] == result["wrong_called_right"] == 0.0


def test_nothing_in_common_compares_nothing():
    assert compare_labels([labeled("a", [1])], [labeled("b", [1])], k=8) == {}


def test_programs_of_neutral_lines_alone_do_not_divide_by_zero():
    result = compare_labels([labeled("a", [0, 0])], [labeled("a", [0, 0])], k=8)
    assert result["lines"] == 0
    assert result["line_agreement"] == 0.0


def test_labels_of_different_number_are_an_error():
    with pytest.raises(ValueError, match="'a' has 2 exact labels but 1 estimated"):
        compare_labels([labeled("a", [1, -1])], [labeled("a", [1])], k=8)
