"""Shares of tests, weighted and not: hand-computed."""

from dataclasses import replace

import pytest

from codegym import CallTest, Episode, TaskError, Verdict, make_scheme
from codegym.rewards.outcome import BELOW_ONE, PassFail, PassRate, WeightedTests, difficulty_weights
from codegym.task import Task
from codegym.verdict import Judgement

TASK = Task(
    task_id="t",
    prompt="def f(x):\n",
    entry_point="f",
    tests=tuple(CallTest(args=(x,), expected=x) for x in range(4)),
)


def judged(results, verdict=None, *, task=TASK, lines=("    return 1",)):
    if verdict is None:
        verdict = Verdict.PASSED if all(results) else Verdict.WRONG_ANSWER
    result = Judgement(verdict=verdict, results=tuple(bool(r) for r in results))
    return Episode(task=task, lines=lines, terminated=True, judgement=result)


def test_pass_rate_is_the_share_of_tests_passed_on_the_last_action():
    credits = PassRate().credit([judged([1, 1, 1, 1]), judged([1, 0, 1, 0]), judged([0, 0, 0, 1])])
    assert [credit.tolist() for credit in credits] == [[0, 1.0], [0, 0.5], [0, 0.25]]


def test_pass_rate_ignores_weights_in_the_metadata():
    task = replace(TASK, metadata={"test_weights": [9, 1, 1, 1]})
    assert PassRate().credit([judged([1, 0, 0, 0], task=task)])[0].sum() == 0.25


def test_weighted_tests_by_argument_by_metadata_and_by_default():
    task = replace(TASK, metadata={"test_weights": [1, 2, 3, 4]})
    one = judged([1, 0, 1, 0], task=task)
    assert WeightedTests().credit([one])[0].sum() == pytest.approx(4 / 10)
    assert WeightedTests({"t": [7, 1, 1, 1]}).credit([one])[0].sum() == pytest.approx(8 / 10)
    assert WeightedTests({"other": [7, 1, 1, 1]}).credit([one])[0].sum() == pytest.approx(4 / 10)
    assert WeightedTests().credit([judged([1, 0, 1, 0])])[0].sum() == pytest.approx(0.5)


@pytest.mark.parametrize("weights", [[1, 2, 3], [1, 2, 3, 0], [1, 2, 3, -1], [1, 2, 3, float("nan")]])
def test_weights_must_be_one_positive_number_per_test(weights):
    with pytest.raises(TaskError, match="'t' needs 4 positive test weights"):
        make_scheme("weighted", weights={"t": weights}).credit([judged([1, 0, 0, 0])])


@pytest.mark.parametrize("name", ["pass_rate", "weighted"])
def test_a_failing_program_stays_below_one_even_with_every_result_true(name):
    scheme = make_scheme(name)
    assert scheme.credit([judged([1, 1, 1, 1], Verdict.OUTPUT_LIMIT)])[0].sum() == BELOW_ONE < 1
    assert scheme.credit([judged([1, 1, 1, 1], Verdict.TAMPERED)])[0].sum() == 0
    huge = WeightedTests({"t": [1e300, 1e-300, 1e-300, 1e-300]})
    assert huge.credit([judged([1, 0, 0, 0])])[0].sum() == BELOW_ONE


def test_nothing_is_paid_before_the_end():
    prefix = Episode(task=TASK, lines=("    return 1",))
    for scheme in (PassFail(), PassRate(), WeightedTests()):
        assert scheme.step([prefix, prefix]).tolist() == [0, 0]
        with pytest.raises(ValueError, match="has not ended with a judgement"):
            scheme.credit([prefix])


def test_difficulty_weights_are_one_minus_laplaces_pass_rate():
    other = replace(TASK, task_id="u", tests=TASK.tests[:1])
    rollouts = [judged([1, 1, 0, 0]), judged([1, 0, 0, 0]), judged([1], task=other)]
    weights = difficulty_weights(rollouts)
    # rates (2+1)/4, (1+1)/4, (0+1)/4, (0+1)/4 and (1+1)/3
    assert weights["t"] == pytest.approx([0.25, 0.5, 0.75, 0.75])
    assert weights["u"] == pytest.approx([1 / 3])
    paid = WeightedTests(weights).credit([judged([1, 0, 0, 0]), judged([0, 0, 1, 0])])
    assert [credit.sum() for credit in paid] == pytest.approx([0.25 / 2.25, 0.75 / 2.25])


def test_bounds_are_tight():
    for name in ("pass_rate", "weighted"):
        assert make_scheme(name).bounds(passed=True) == (1.0, 1.0)
        assert make_scheme(name).bounds(passed=False) == (0.0, BELOW_ONE)
    assert PassFail().bounds(passed=False) == (0.0, 0.0)
