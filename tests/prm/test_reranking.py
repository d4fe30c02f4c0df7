import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import UnknownNameError, Verdict
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram, SampledProgram
from prm.reranking import AGGREGATES, aggregate, any_of, best_of, majority_of, rerank

MakeModel = Callable[..., ProcessRewardModel]
Digits = Callable[[range], list[LabeledProgram]]


# --- what a program is worth --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"), [("min", 0.25), ("mean", 2.25 / 4), ("last", 0.5), ("product", 1 * 0.5 * 0.25 * 0.5)]
)
def test_aggregates_by_hand(name: str, value: float) -> None:
    # probabilities 1, 1/2, 1/4, 1/2
    scores = np.array([1.0, 0.0, -0.5, 0.0])
    assert aggregate(name, scores, ["a", "b", "c", "d"]) == pytest.approx(value)


@pytest.mark.parametrize("name", AGGREGATES)
def test_blank_and_comment_lines_have_no_say(name: str) -> None:
    lines = ["a = 1", "", "    # why", "return a"]
    with_neutral = aggregate(name, np.array([0.5, 0.0, 0.0, -0.5]), lines)
    assert with_neutral == aggregate(name, np.array([0.5, -0.5]), ["a = 1", "return a"])


@pytest.mark.parametrize("name", AGGREGATES)
@pytest.mark.parametrize("lines", [[], ["", "# only"]])
def test_a_program_of_nothing_is_worth_nothing(name: str, lines: list[str]) -> None:
    assert aggregate(name, np.zeros(len(lines)), lines) == 0.0


@given(st.sampled_from(sorted(AGGREGATES)), st.lists(st.floats(-1, 1), min_size=1, max_size=6))
def test_every_aggregate_is_a_number_from_0_to_1_and_grows_with_the_scores(
    name: str, scores: list[float]
) -> None:
    lines = ["x"] * len(scores)
    value = aggregate(name, np.array(scores), lines)
    assert 0.0 <= value <= 1.0
    assert aggregate(name, np.minimum(np.array(scores) + 0.25, 1.0), lines) >= value


def test_an_unknown_aggregate_and_scores_of_other_lines_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown aggregate 'max'"):
        aggregate("max", np.zeros(1), ["x"])
    with pytest.raises(ValueError, match="2 lines but 1 scores"):
        aggregate("min", np.zeros(1), ["x", "y"])


# --- expectations -------------------------------------------------------------------------------------------


def test_best_of_by_hand() -> None:
    values, passed = [0.9, 0.5, 0.1], [False, True, False]
    assert best_of(1, values, passed) == pytest.approx(1 / 3)
    # pairs: (.9 .5) fails, (.9 .1) fails, (.5 .1) passes
    assert best_of(2, values, passed) == pytest.approx(1 / 3)
    assert best_of(3, values, passed) == 0.0


def test_ties_are_split_whatever_the_order_of_the_programs() -> None:
    assert best_of(2, [0.5, 0.5], [True, False]) == 0.5
    assert best_of(2, [0.5, 0.5], [False, True]) == 0.5
    # pairs of 3 equal ones, one of which passes: 2 of 3 pairs hold it, and it wins half of these
    assert best_of(2, [0.5] * 3, [False, False, True]) == pytest.approx(1 / 3)
    assert best_of(3, [0.7, 0.7, 0.1], [True, False, True]) == 0.5


def test_any_of_is_pass_at_n() -> None:
    assert any_of(1, [True, False, False, False]) == 0.25
    # of 6 pairs 3 hold the passing program
    assert any_of(2, [True, False, False, False]) == 0.5
    assert any_of(4, [True, False, False, False]) == 1.0
    assert any_of(2, [False] * 3) == 0.0


def test_majority_by_hand() -> None:
    votes, passed = [7, 7, 8], [True, True, False]
    # pairs: (7 7) passes; twice (7 8), a tie
    assert majority_of(2, votes, passed) == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert majority_of(3, votes, passed) == 1.0
    assert majority_of(1, votes, passed) == pytest.approx(2 / 3)


def test_programs_without_a_vote_win_only_among_themselves() -> None:
    assert majority_of(3, [None, None, 4], [False, False, True]) == 1.0
    # pairs: (None None) fails; twice the vote wins
    assert majority_of(2, [None, None, 4], [False, False, True]) == pytest.approx(2 / 3)
    assert majority_of(2, [None, None], [True, False]) == 0.5


def test_a_wrong_majority_is_followed() -> None:
    assert majority_of(4, [1, 1, 1, 2], [False, False, False, True]) == 0.0


def choose_by_votes(votes: tuple[int | None, ...], passed: tuple[bool, ...]) -> float:
    """The rule itself, for one choice of n."""
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return sum(passed) / len(passed)
    winners = [vote for vote, count in counts.items() if count == max(counts.values())]
    shares = [
        np.mean([flag for flag, vote in zip(passed, votes, strict=True) if vote == winner])
        for winner in winners
    ]
    return float(np.mean(shares))


PROGRAMS = st.lists(
    st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(0, 3)), st.booleans()),
    min_size=1,
    max_size=7,
)


@settings(max_examples=200)
@given(PROGRAMS, st.data())
def test_expectations_are_means_over_all_choices(rows: list, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(rows)))
    values, votes, passed = zip(*rows, strict=True)
    choices = list(combinations(range(len(rows)), n))

    def best(chosen: tuple[int, ...]) -> float:
        top = max(values[i] for i in chosen)
        return float(np.mean([passed[i] for i in chosen if values[i] == top]))

    def voted(chosen: tuple[int, ...]) -> float:
        return choose_by_votes(tuple(votes[i] for i in chosen), tuple(passed[i] for i in chosen))

    assert best_of(n, values, passed) == pytest.approx(np.mean([best(chosen) for chosen in choices]))
    assert majority_of(n, votes, passed) == pytest.approx(np.mean([voted(chosen) for chosen in choices]))
    assert any_of(n, passed) == pytest.approx(np.mean([any(passed[i] for i in chosen) for chosen in choices]))


@given(PROGRAMS, st.data())
def test_no_choice_beats_the_oracle(rows: list, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(rows)))
    values, votes, passed = zip(*rows, strict=True)
    oracle = any_of(n, passed)
    assert best_of(n, values, passed) <= oracle + 1e-9
    assert majority_of(n, votes, passed) <= oracle + 1e-9
    assert best_of(n, [float(flag) for flag in passed], passed) == pytest.approx(oracle)


def test_many_programs_take_no_enumeration() -> None:
    votes = [index % 9 for index in range(64)]
    passed = [vote == 0 for vote in votes]
    # nine behaviours, eight of 7 programs and one, the right one, of 8
    assert votes.count(0) == 8
    assert majority_of(64, votes, passed) == 1.0
    assert 1 / 9 < majority_of(16, votes, passed) < 0.5
    assert best_of(32, list(range(64)), passed) < any_of(32, passed) <= 1.0


@pytest.mark.parametrize("n", [0, 3, -1])
@pytest.mark.parametrize("choose", [best_of, majority_of])
def test_more_programs_than_there_are_cannot_be_chosen_from(choose: Callable, n: int) -> None:
    with pytest.raises(ValueError, match=rf"n must be in 1 \.\.\. 2, the number of programs, got {n}"):
        choose(n, [1, 2], [True, False])
    with pytest.raises(ValueError, match=f"got {n}"):
        any_of(n, [True, False])


# --- a model among other ways to choose ---------------------------------------------------------------------


def candidates(digits: Digits, n_tasks: int = 12, n: int = 4) -> list[SampledProgram]:
    """So many programs for each of so many tasks."""
    programs = [item.program for item in digits(range(n_tasks * n))]
    return [replace(program, task_id=f"t{index // n}") for index, program in enumerate(programs)]


class Knowing:
    """Scores every line of a program by what is known about the program."""

    def __init__(self, score: Callable[[SampledProgram], float]) -> None:
        self.score = score

    def score_programs(self, programs: list[SampledProgram]) -> list[np.ndarray]:
        return [np.full(len(program.lines), self.score(program)) for program in programs]


def test_a_model_that_knows_the_verdicts_closes_the_gap_and_one_that_knows_nothing_none_of_it(
    digits: Digits,
) -> None:
    programs = candidates(digits)
    knows = rerank(Knowing(lambda p: 1.0 if p.passed else -1.0), programs, sizes=(1, 2, 4), n_bootstrap=20)
    empty = rerank(Knowing(lambda p: 0.25), programs, sizes=(1, 2, 4), n_bootstrap=20)
    assert knows.n_tasks == 12
    assert knows.n_programs == 48
    for name in AGGREGATES:
        for n in (2, 4):
            assert knows.solved[f"prm {name}"][n].value == pytest.approx(knows.solved["oracle"][n].value)
            assert knows.gap_closed[f"prm {name}"][n].value == pytest.approx(1.0)
            assert empty.solved[f"prm {name}"][n].value == pytest.approx(empty.solved["random"][n].value)
            assert empty.gap_closed[f"prm {name}"][n].value == pytest.approx(0.0)
        assert knows.gap_closed[f"prm {name}"][1].value is None
    assert "majority" not in knows.solved
    assert set(knows.gap_closed) == {f"prm {name}" for name in AGGREGATES}


def test_shares_are_means_over_tasks(random_model: MakeModel, digits: Digits) -> None:
    model, programs = random_model(), candidates(digits, n_tasks=3)
    found = rerank(model, programs, sizes=(1, 4), n_bootstrap=0)
    passed = np.array([program.passed for program in programs]).reshape(3, 4)
    assert found.solved["random"][4].value == pytest.approx(passed.mean())
    assert found.solved["random"][1] == found.solved["oracle"][1]
    assert found.solved["oracle"][4].value == pytest.approx(passed.any(axis=1).mean())
    values = [
        aggregate("mean", scores, program.lines)
        for scores, program in zip(model.score_programs(programs), programs, strict=True)
    ]
    first = passed[np.arange(3), np.array(values).reshape(3, 4).argmax(axis=1)]
    assert found.solved["prm mean"][4].value == pytest.approx(first.mean())


def test_intervals_are_over_tasks_and_repeat_under_a_seed(random_model: MakeModel, digits: Digits) -> None:
    programs = candidates(digits)
    first, second = (rerank(random_model(), programs, sizes=(2,), n_bootstrap=30, seed=1) for _ in range(2))
    assert first == second
    estimate = first.solved["random"][2]
    assert estimate.low is not None
    assert estimate.low < (estimate.value or 0) < (estimate.high or 0)


def test_tasks_with_too_few_programs_are_left_out_and_counted(digits: Digits) -> None:
    programs = candidates(digits)[:-1]
    found = rerank(Knowing(lambda p: 0.0), programs, sizes=(1, 4), n_bootstrap=0)
    assert (found.n_tasks, found.n_left_out, found.n_programs) == (11, 1, 44)
    with pytest.raises(ValueError, match="no task has 8 programs to choose from; the most that one has is 4"):
        rerank(Knowing(lambda p: 0.0), programs, sizes=(1, 8), n_bootstrap=0)
    with pytest.raises(ValueError, match="the most that one has is 0"):
        rerank(Knowing(lambda p: 0.0), [], n_bootstrap=0)


def test_the_order_of_the_programs_says_nothing(random_model: MakeModel, digits: Digits) -> None:
    programs = candidates(digits)
    model = random_model()
    forth, back = (rerank(model, order, sizes=(1, 2), n_bootstrap=0) for order in (programs, programs[::-1]))
    for way, row in forth.solved.items():
        for n, estimate in row.items():
            assert math.isclose(estimate.value or 0, back.solved[way][n].value or 0, abs_tol=1e-9)


def test_where_nothing_passes_there_is_no_gap(digits: Digits) -> None:
    programs = [replace(program, verdict=Verdict.WRONG_ANSWER) for program in candidates(digits)]
    found = rerank(Knowing(lambda p: 0.0), programs, sizes=(4,), n_bootstrap=5)
    assert found.solved["oracle"][4].value == 0.0
    assert found.gap_closed["prm min"][4].value is None


def test_a_comparison_is_json(digits: Digits) -> None:
    row = rerank(Knowing(lambda p: 0.0), candidates(digits), sizes=(1, 2), n_bootstrap=3).to_row()
    assert (
        json.loads(json.dumps(row))["solved"]["random"]["2"]["value"] == row["solved"]["random"][2]["value"]
    )
