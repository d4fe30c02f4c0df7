import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm.batching import EncodedProgram
from prm.metrics import ScoredLines, calibration_bins, line_metrics, score_lines
from prm.model import LineReading


def program(labels: list[float], scored: list[bool] | None = None) -> EncodedProgram:
    n_lines = len(labels)
    return EncodedProgram(
        token_ids=np.zeros(n_lines, dtype=np.int64),
        line_of_token=np.arange(n_lines),
        line_ends=np.arange(n_lines),
        scored=np.ones(n_lines, dtype=bool) if scored is None else np.array(scored),
        labels=np.array(labels),
    )


def reading(scores: list[float], outputs: list[float] | None = None) -> LineReading:
    return LineReading(outputs=np.array(scores if outputs is None else outputs), scores=np.array(scores))


def lines_of(*pairs: tuple[list[float], list[float]], per_line: bool = True) -> ScoredLines:
    programs, readings = [program(labels) for labels, _ in pairs], [reading(scores) for _, scores in pairs]
    return score_lines(programs, readings, per_line=per_line)


def test_lines_after_the_first_error_do_not_count_locally() -> None:
    lines = lines_of(([1, -1, -1, -1], [0.9, -0.5, -0.9, -0.9]), ([1, 1], [0.9, 0.8]))
    assert lines.counts_locally.tolist() == [True, True, False, False, True, True]
    assert lines.program.tolist() == [0, 0, 0, 0, 1, 1]
    assert lines.fails.tolist() == [True, False]


def test_knowing_that_late_lines_are_wrong_earns_nothing_locally() -> None:
    by_position = [0.4, 0.2, -0.2, -0.4, -0.6]
    lines = lines_of(*[([1] * right + [-1] * (5 - right), by_position) for right in (1, 1, 1, 2, 2, 3)])
    metrics = line_metrics(lines)
    assert metrics["auc"] > 0.85
    # first wrong at index 1, 1, 1, 2, 2, 3: right lines before it score .4; .4 .2; .4 .2 -.2
    right, wrong = [0.4] * 6 + [0.2] * 3 + [-0.2], [0.2] * 3 + [-0.2] * 2 + [-0.4]
    pairs = [(r > w) + 0.5 * (r == w) for r in right for w in wrong]
    assert metrics["local_auc"] == pytest.approx(sum(pairs) / len(pairs))


def test_local_outputs_of_a_prefix_head_are_differences() -> None:
    lines = lines_of(([1, 1, -1], [0.75, 0.5, -0.5]), per_line=False)
    assert lines.local.tolist() == [-0.25, -0.25, -1.0]


def test_differences_pass_over_neutral_lines() -> None:
    lines = score_lines(
        [program([1, 0, -1], [True, False, True])], [reading([0.5, 0.0, -0.5])], per_line=False
    )
    assert lines.local.tolist() == [-0.5, -1.0]


def test_lines_labelled_zero_are_left_out() -> None:
    lines = lines_of(([1, 0, -1], [0.5, 0.0, -0.5]))
    assert lines.right.tolist() == [True, False]


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        ([0.5, -0.1, 0.9], True),
        ([-0.1, -0.1, -0.1], False),
        ([0.5, 0.1, -0.1], False),
        ([0.5, 0.5, 0.5], False),
    ],
)
def test_the_first_rejected_line_must_be_the_first_wrong_one(scores: list[float], found: bool) -> None:
    metrics = line_metrics(lines_of(([1, -1, -1], scores)))
    assert metrics["first_error_accuracy"] == float(found)
    assert metrics["all_right_accuracy"] is None


def test_right_programs_count_apart() -> None:
    metrics = line_metrics(lines_of(([1, 1], [0.5, 0.0]), ([1, 1], [0.5, -0.1]), ([-1, -1], [-0.2, -0.9])))
    assert metrics["all_right_accuracy"] == 0.5
    assert metrics["first_error_accuracy"] == 1.0


def test_brier_accuracy_and_calibration_by_hand() -> None:
    lines = lines_of(([1, 1, -1, -1], [0.6, -0.2, -0.2, -1.0]))  # probabilities .8 .4 .4 0
    metrics = line_metrics(lines)
    assert metrics["line_accuracy"] == 0.75
    assert metrics["brier"] == pytest.approx((0.04 + 0.36 + 0.16 + 0) / 4)
    expected = [(0.0, 0.0, 1.0), (0.4, 0.5, 2.0), (0.8, 1.0, 1.0)]
    assert [pytest.approx(bin_) for bin_ in expected] == list(calibration_bins(lines))
    assert metrics["ece"] == pytest.approx((0 + 2 * 0.1 + 0.2) / 4)


def test_a_certain_score_falls_into_the_last_bin() -> None:
    assert calibration_bins(lines_of(([1], [1.0]))) == ((1.0, 1.0, 1.0),)


def test_metrics_without_both_kinds_are_not_defined() -> None:
    metrics = line_metrics(lines_of(([1, 1], [0.5, 0.5])))
    assert metrics["auc"] is metrics["local_auc"] is metrics["first_error_accuracy"] is None
    assert metrics["line_accuracy"] == 1.0


def test_programs_of_neutral_lines_count_nowhere() -> None:
    metrics = line_metrics(lines_of(([0, 0], [0.0, 0.0]), ([], [])))
    assert set(metrics.values()) == {None}


def test_the_gap_is_what_failing_programs_are_thought_too_good_by() -> None:
    lines = lines_of(([1, -1, -1], [0.5, 0.5, -1.0]), ([1, 1], [-1.0, -1.0]))
    # score minus label in the failing program: -0.5, 1.5, 0; the program without a wrong line does not count
    assert line_metrics(lines)["gap"] == pytest.approx(1.0 / 3)
    assert line_metrics(lines_of(([1, 1], [0.5, 0.5])))["gap"] is None


def test_some_lines_bring_the_programs_that_they_decide() -> None:
    lines = lines_of(([1, -1, -1], [0.5, -0.5, -0.9]), ([1, 1], [0.9, 0.2]), ([-1, -1], [0.3, -0.3]))
    assert lines.decides.tolist() == [False, True, False, False, True, True, False]
    second = lines.only(lines.position == 1)
    assert second.program.tolist() == [0, 1, 2]
    assert second.score.tolist() == [-0.5, 0.2, -0.3]
    assert second.empty.tolist() == [False, False, True]
    assert second.fails.tolist() == [True, False, False]
    metrics = line_metrics(second)
    assert metrics["first_error_accuracy"] == 1.0
    assert metrics["all_right_accuracy"] == 1.0
    assert metrics["line_accuracy"] == 1.0
    # the third program's second line is wrong too, and comes after its first error: no part of the local AUC
    assert metrics["gap"] == pytest.approx((0.5 + 0.7) / 2)
    first = line_metrics(lines.only(lines.position == 0))
    assert first["first_error_accuracy"] == 0.0
    assert first["all_right_accuracy"] is None
    assert first["local_auc"] == 1.0


def test_positions_count_neutral_lines_too() -> None:
    lines = score_lines([program([1, 0, -1], [True, False, True])], [reading([0.5, 0, -0.5])], per_line=True)
    assert lines.position.tolist() == [0, 2]


def test_weights_fit_the_programs_of_a_part() -> None:
    lines = lines_of(([1, -1], [0.5, 0.5]), ([1, -1], [0.5, -0.5]))
    second = lines.only(lines.position == 1)
    assert line_metrics(second, np.array([3.0, 1.0]))["first_error_accuracy"] == 0.25
    assert line_metrics(second, np.array([3.0, 1.0]))["line_accuracy"] == 0.25


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-2, 2), st.integers(0, 3)), min_size=1, max_size=12),
)
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[bool, int, int]]) -> None:
    lines = lines_of(*[([1.0 if right else -1.0], [score / 2]) for right, score, _ in rows])
    auc = line_metrics(lines, np.array([count for *_, count in rows], dtype=np.float64))["auc"]
    rights, wrongs = (
        [score for right, score, count in rows for _ in range(count) if right is kind]
        for kind in (True, False)
    )
    pairs = [(r > w) + 0.5 * (r == w) for r in rights for w in wrongs]
    assert auc == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


PROGRAMS = st.lists(
    st.lists(st.tuples(st.sampled_from([-1.0, 1.0]), st.floats(-1, 1, width=16)), min_size=1, max_size=5),
    min_size=1,
    max_size=6,
)


@given(PROGRAMS, st.data())
def test_a_weight_is_a_repetition(rows: list[list[tuple[float, float]]], data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    pairs = [([label for label, _ in row], [score for _, score in row]) for row in rows]
    repeated = [pair for pair, count in zip(pairs, counts, strict=True) for _ in range(count)]
    weighted = line_metrics(lines_of(*pairs), np.array(counts, dtype=np.float64))
    if not repeated:
        assert set(weighted.values()) == {None}
        return
    for name, value in line_metrics(lines_of(*repeated)).items():
        assert (value is None) == (weighted[name] is None)
        assert value is None or math.isclose(value, weighted[name] or 0.0, abs_tol=1e-9)


@given(PROGRAMS)
def test_perfect_scores_are_perfect(rows: list[list[tuple[float, float]]]) -> None:
    first_wrong = [next((i for i, (label, _) in enumerate(row) if label < 0), len(row)) for row in rows]
    labels = [[1.0] * n + [-1.0] * (len(row) - n) for n, row in zip(first_wrong, rows, strict=True)]
    for per_line in (True, False):
        metrics = line_metrics(lines_of(*[(row, row) for row in labels], per_line=per_line))
        best = {"brier": 0.0, "ece": 0.0, "gap": 0.0}
        assert all(value is None or value == best.get(name, 1.0) for name, value in metrics.items())
