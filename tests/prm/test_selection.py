"""Correct, revised and wrong programs; selection; statistics by hand."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegym import UnknownNameError, Verdict
from prm.program import LabeledProgram, SampledProgram
from prm.selection import (
    STRATEGIES,
    SampleClass,
    SelectionConfig,
    classify,
    label_statistics,
    pass_rates,
    select,
    strategy_statistics,
)


def labeled(task, labels, *, passed=False, cost=None):
    return LabeledProgram(
        program=SampledProgram(
            program_id=f"p/{task}/{labels}",
            task_id=task,
            policy="p",
            prompt_ids=(),
            token_ids=(),
            completion="x\n" * len(labels),
            finished=True,
            verdict=Verdict.PASSED if passed else Verdict.TIME_LIMIT,
            results=(passed,),
        ),
        labels=labels,
        source="reference",
        cost=cost or {},
        seconds=0.125,
    )


CORRECT = labeled("medium", (1.0, 0.0, 1.0), passed=True, cost={"verdicts": 0})
REVISED = labeled("medium", (1.0, 1.0, -1.0, -1.0), cost={"verdicts": 3, "tokens": 20})
WRONG = labeled("hard", (0.0, -1.0), cost={"verdicts": 2})
CUT = labeled("hard", (1.0,))
EASY = labeled("easy", (1.0,), passed=True)
EMPTY = labeled("hard", ())
ALL = [CORRECT, REVISED, WRONG, CUT, EASY, EMPTY]


@pytest.mark.parametrize(
    ("program", "kind"),
    [(CORRECT, "correct"), (REVISED, "revised"), (WRONG, "wrong"), (CUT, "revised"), (EMPTY, "wrong")],
)
def test_classes(program, kind):
    assert classify(program) is SampleClass(kind)


def test_a_soft_label_above_zero_is_a_right_line():
    assert classify(labeled("t", (0.1, -1.0))) is SampleClass.REVISED


def test_pass_rates_by_task():
    assert pass_rates(ALL) == {"medium": 0.5, "hard": 0.0, "easy": 1.0}


@pytest.mark.parametrize(
    ("strategy", "kept"),
    [
        ("full", ALL),
        ("revised_only", [CORRECT, REVISED, CUT, EASY]),
        ("remove_hard", [CORRECT, REVISED, EASY]),
        ("medium_only", [CORRECT, REVISED]),
    ],
)
def test_strategies(strategy, kept):
    assert select(ALL, SelectionConfig(strategy=strategy)) == kept


def test_the_default_keeps_everything():
    assert select(ALL) == ALL
    assert select([]) == []


def test_a_selection_of_your_own_is_a_function_of_a_program():
    assert select(ALL, lambda labeled: len(labeled.labels) == 1) == [CUT, EASY]


def test_statistics_of_every_strategy():
    statistics = strategy_statistics(ALL)
    assert {name: values["programs"] for name, values in statistics.items()} == {
        "full": 6,
        "revised_only": 4,
        "remove_hard": 3,
        "medium_only": 2,
    }
    assert statistics["full"] == label_statistics(ALL)
    harder = strategy_statistics(ALL, SelectionConfig(strategy="medium_only", hard_pass_rate=0.5))
    assert harder["remove_hard"]["programs"] == 1
    assert harder["full"]["programs"] == 6


def test_thresholds_move_what_is_hard_and_easy():
    assert select(ALL, SelectionConfig(strategy="remove_hard", hard_pass_rate=0.5)) == [EASY]
    assert select(ALL, SelectionConfig(strategy="medium_only", easy_pass_rate=0.5)) == []


@given(st.sampled_from(list(STRATEGIES)), st.lists(st.sampled_from(ALL), max_size=12))
def test_selecting_keeps_order_and_invents_nothing(strategy, programs):
    kept = iter(programs)
    assert all(program in kept for program in select(programs, SelectionConfig(strategy=strategy)))


@pytest.mark.parametrize("rates", [(0.5, 0.5), (-0.1, 1.0), (0.0, 1.1), (0.0, float("nan"))])
def test_bad_thresholds_are_refused(rates):
    with pytest.raises(ValueError, match="0 <= hard_pass_rate < easy_pass_rate <= 1"):
        SelectionConfig(hard_pass_rate=rates[0], easy_pass_rate=rates[1])


def test_an_unknown_strategy_lists_the_choices():
    with pytest.raises(UnknownNameError, match="choose from full, medium_only, remove_hard, revised_only"):
        SelectionConfig(strategy="fall")


def test_statistics_by_hand():
    statistics = label_statistics(ALL)
    assert statistics == {
        "programs": 6,
        "correct": 2,
        "revised": 2,
        "wrong": 2,
        "lines": 11,
        "positive": pytest.approx(6 / 11),
        "negative": pytest.approx(3 / 11),
        "neutral": pytest.approx(2 / 11),
        "lines_per_program": {"mean": pytest.approx(11 / 6), "median": 1.5, "most": 4},
        "first_wrong_line": {"2": 1, "3": 1},
        "first_wrong_position": [0, 0, 0, 0, 0, 2, 0, 0, 0, 0],
        "no_wrong_line": 2,
        "sources": {"reference": 6},
        "cost": {"verdicts": 5, "tokens": 20, "seconds": 0.75},
    }
    json.dumps(statistics)


def test_statistics_of_nothing():
    statistics = label_statistics([])
    assert (statistics["programs"], statistics["positive"], statistics["lines_per_program"]["mean"]) == (
        0,
        0,
        0,
    )


def test_positions_cover_the_first_and_the_last_tenth():
    ends = [labeled("t", (-1.0,) * 20), labeled("t", (1.0,) * 19 + (-1.0,))]
    assert label_statistics(ends)["first_wrong_position"] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
