"""Every credit assignment and gate of the process reward: hand-computed."""

import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import END_OF_PROGRAM, CallTest, CodeGenEnv, Episode, RewardWrapper, Task, TaskError
from codegym.episode import is_neutral
from codegym.rewards import is_ordered
from codegym.rewards.assignment import FORMS, capped, held, potential_shares
from codegym.rewards.process import ProcessReward
from codegym.testing import ScriptedJudge, ScriptedScorer, judgement

TASK = Task(
    task_id="t",
    prompt="def f(x):\n",
    entry_point="f",
    tests=(CallTest(args=(1,), expected=2),),
    reference="    # add\n    y = (\n        x + 1\n    )\n    return y\n",
)
# T = 5 lines, T' = 4 of them scored
LINES = ("    a = 1", "    # why", "    b = 2", "    c = 3", "    return c")
SCORES = [0.8, 0.9, 0.4, -0.6, -2.0]
CLIPPED = [0.8, 0.4, -0.6, -1.0]


def episode(lines=LINES, *, passed=False, terminated=True, task=TASK):
    return Episode(
        task=task,
        lines=tuple(lines),
        terminated=terminated,
        truncated=not terminated,
        judgement=judgement(task, int(passed)),
    )


def scheme(scores=SCORES, **options):
    return ProcessReward.from_scorer(ScriptedScorer(lambda e: scores[: len(e.lines)]), **options)


def credit(form, *, passed=False, **options):
    return scheme(form=form, **options).credit([episode(passed=passed)])[0]


# ---------------------------------------------------------------- forms


def test_scored_mean_divides_by_the_lines_that_are_scored():
    assert credit("scored_mean") == pytest.approx([0.25 * 0.2, 0, 0.25 * 0.1, 0.25 * -0.15, -0.25 / 4, 0])
    # dilution by comments, which helps the paper's mean of a program with a negative sum, changes nothing
    padded = (*LINES, *["    # c"] * 35)
    long = scheme([*SCORES, *[1.0] * 35], form="scored_mean").credit([episode(padded)])[0]
    assert long.sum() == pytest.approx(credit("scored_mean").sum())
    assert (
        scheme([*SCORES, *[1.0] * 35], form="mean").credit([episode(padded)])[0].sum() > credit("mean").sum()
    )


def test_sum_pays_every_score_in_full():
    assert credit("sum", passed=True) == pytest.approx([0.02, 0, 0.01, -0.015, -0.025, 1])
    assert credit("sum") == pytest.approx([0.2, 0, 0.1, -0.15, -0.25, 0])


def test_min_pays_the_first_lowest_line_pure():
    assert credit("min") == pytest.approx([0, 0, 0, 0, -0.25, 0])
    tied = scheme([0.5, 0.0, -0.5, -0.5, 0.1], form="min").credit([episode()])[0]
    assert tied == pytest.approx([0, 0, -0.125, 0, 0, 0])


def test_softmin_weighs_scores_by_a_softmax_of_their_negatives_pure():
    weights = np.exp([-0.8 / 0.5, -0.4 / 0.5, 0.6 / 0.5, 1.0 / 0.5])
    shares = weights / weights.sum() * CLIPPED
    got = credit("softmin", temperature=0.5)
    assert got == pytest.approx([0.25 * shares[0], 0, *(0.25 * shares[1:]), 0])
    # at a low temperature it is the minimum, at a high one the mean
    assert credit("softmin", temperature=1e-3) == pytest.approx(credit("min"), abs=1e-9)
    assert credit("softmin", temperature=1e6) == pytest.approx(credit("scored_mean"), abs=1e-6)


def test_delta_telescopes_to_the_score_of_each_line():
    # 0.8 - 0.4, 0.4 + 0.6, -0.6 on the last but one, 0 on the last
    assert credit("delta") == pytest.approx([0.1, 0, 0.25, -0.15, 0, 0])
    to_go = np.cumsum(credit("delta", lambda_fail=0.5)[::-1])[::-1]
    assert to_go[[0, 2, 3, 4]] == pytest.approx([0.4, 0.2, -0.3, 0])


@pytest.mark.parametrize("n_lines", [0, 1, 2])
def test_delta_of_short_programs(n_lines):
    got = scheme([0.8, 0.4], form="delta").credit([episode(["    a"] * n_lines)])[0]
    assert got == pytest.approx([[0], [0, 0], [0.2, 0, 0]][n_lines])


def test_clip_pays_nothing_above_eta():
    assert credit("clip") == pytest.approx([0, 0, 0, -0.15, -0.25, 0])
    assert credit("clip", eta=0.5) == pytest.approx([0, 0, -0.025, -0.275, -0.375, 0])


def test_a_cap_bounds_the_running_total_of_any_form():
    # running totals 0.8, 1.2, 0.6, -0.4 within ±1
    assert credit("sum", cap=1.0) == pytest.approx([0.2, 0, 0.05, -0.1, -0.25, 0])
    assert credit("clip", cap=0.7) == pytest.approx([0, 0, 0, -0.15, -0.025, 0])
    assert credit("mean", cap=0.1).sum() == pytest.approx(-0.25 * 0.08)


def test_potential_pays_differences_and_takes_all_back_at_the_end():
    # Φ = .9, (kept) .9, .7, .2, 0
    got = credit("potential")
    assert got == pytest.approx([0.9, 0, -0.2, -0.5, -0.2, 0])
    assert got.sum() == pytest.approx(0)
    assert credit("potential", passed=True).sum() == pytest.approx(1)
    cut = scheme(form="potential").credit([episode(LINES[:3], terminated=False)])[0]
    assert cut == pytest.approx([0.9, 0, -0.9])


def test_discounted_potential_cancels_in_the_discounted_return():
    gamma = 0.9
    got = credit("potential", gamma=gamma)
    # Φ = .9, .9, .7, .2, 0, then the finished program
    assert got == pytest.approx([0.81, 0.81 - 0.9, 0.63 - 0.9, 0.18 - 0.7, -0.2, 0])
    assert (gamma ** np.arange(6) * got).sum() == pytest.approx(0)


@pytest.mark.parametrize("form", [*FORMS, "potential"])
@pytest.mark.parametrize("lines", [(), ("# c",), ("", "  # d")])
def test_programs_without_a_scored_line_earn_the_outcome_alone(form, lines):
    for passed in (False, True):
        got = scheme([1.0, 1.0], form=form).credit([episode(lines, passed=passed)])[0]
        assert got.tolist() == [0.0] * len(lines) + [float(passed)]


# ---------------------------------------------------------------- the two first forms are as they were


def old_shares(form, lines, scores, divisor, cap):
    """The formula of both forms before there were others."""
    scored = np.array([not is_neutral(line) for line in lines], dtype=np.float64)
    if form == "mean":
        return scores * scored / max(divisor, 1)
    gains = (scores + 1.0) / 2.0 * scored / divisor
    return np.diff(np.minimum(np.cumsum(gains), cap), prepend=0.0)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from(["    a = 1", "# c", "", "b = '''"]), st.floats(-2, 2)), max_size=12),
    st.booleans(),
    st.integers(1, 20),
)
def test_progress_and_mean_pay_what_they_did_to_the_last_bit(program, passed, n_lines):
    lines = [line for line, _ in program]
    scores = np.array([score for _, score in program])
    clipped = np.clip(scores, -1.0, 1.0)
    for form, weights, divisor in (
        ("progress", (1.0, 0.1), n_lines),
        ("mean", (0.25, 0.025), len(lines)),
    ):
        made = scheme(list(scores), form=form, n_lines=n_lines)
        expected = np.zeros(len(lines) + 1)
        expected[-1] = passed
        expected[: len(lines)] += weights[passed] * old_shares(form, lines, clipped, divisor, 0.95)
        assert made.credit([episode(lines, passed=passed)])[0].tolist() == expected.tolist()
        if lines:
            share = old_shares(form, lines, clipped, n_lines, 0.95)[-1]
            assert made.step([Episode(task=TASK, lines=tuple(lines))])[0] == weights[0] * share


# ---------------------------------------------------------------- gates


def test_gates_weigh_failing_and_passing_programs():
    def weights(**options):
        made = scheme([1.0] * 5, form="scored_mean", **options)
        fail, passed = (made.credit([episode(passed=p)])[0].sum() - p for p in (False, True))
        return pytest.approx((fail, passed))

    assert weights() == (0.25, 0.025)
    assert weights(lambda_fail=0.5, lambda_pass=0.1) == (0.5, 0.1)
    assert weights(gate="pass_only") == (0, 0.25)
    assert weights(gate="pass_only", lambda_pass=0.7) == (0, 0.7)
    assert weights(gate="both") == (0.25, 0.25)
    assert weights(gate="both", lambda_fail=0.4) == (0.4, 0.4)


def test_pass_only_streams_nothing():
    prefixes = [Episode(task=TASK, lines=LINES[:n]) for n in range(1, 6)]
    assert scheme(gate="pass_only").step(prefixes).tolist() == [0] * 5


def test_a_schedule_moves_the_weights_with_the_programs_paid():
    made = scheme([1.0] * 5, form="scored_mean", gate="schedule", schedule=(1.0, 0.2, 10))
    returns = [made.after(n).credit([episode()])[0].sum() for n in (0, 5, 10, 1000)]
    assert returns == pytest.approx([0.25, 0.15, 0.05, 0.05])
    assert made.after(5).step([Episode(task=TASK, lines=LINES[:1])])[0] == pytest.approx(0.15 / 4)
    assert made.credit([episode()])[0].sum() == pytest.approx(0.25)
    assert made.after(3).after(10).n_programs == 10
    assert scheme().after(5).n_programs == 0


def test_the_wrapper_moves_a_schedule_on_with_every_finished_program():
    made = scheme([1.0] * 5, form="scored_mean", gate="schedule", schedule=(1.0, 0.0, 4))
    env = RewardWrapper(CodeGenEnv([TASK], ScriptedJudge(lambda task, source: judgement(task, 0))), made)
    returns = []
    for _ in range(6):
        env.reset()
        returns.append(sum(env.step(line)[1] for line in ("    return x", END_OF_PROGRAM)))
    env.reset()
    env.step("    return x")
    env.reset()  # given up: not paid
    assert returns == pytest.approx([0.25, 0.1875, 0.125, 0.0625, 0, 0])
    assert env.scheme.n_programs == 6


def test_a_scheduled_model_is_loaded_once(monkeypatch):
    loaded = []

    class Model:
        @classmethod
        def from_pretrained(cls, path):
            loaded.append(path)
            return ScriptedScorer(lambda e: SCORES[: len(e.lines)])

    monkeypatch.setitem(sys.modules, "prm.model", types.SimpleNamespace(ProcessRewardModel=Model))
    made = ProcessReward(prm="runs/prm", gate="schedule", schedule=(1.0, 0.0, 4))
    for n in range(5):
        made.after(n).credit([episode()])
    assert loaded == ["runs/prm"]


# ---------------------------------------------------------------- per statement


def test_a_statement_pays_once_on_its_last_line_and_t0_counts_statements():
    # the reference is 2 statements on 4 scored lines
    lines = (
        "    y = (",
        "        x",
        "    )",
        "    # c",
        "    for i in x:",
        "        y += i",
        "    return y",
    )
    scores = [1.0, 1.0, 0.6, 1.0, 1.0, 0.2, -1.0]
    got = scheme(scores, unit="statement").credit([episode(lines)])[0]
    assert got == pytest.approx([0, 0, 0.8 / 2, 0, 0, 0.6 / 2, 0, 0])
    per_line = scheme(scores).credit([episode(lines)])[0]
    assert per_line[:3] == pytest.approx([0.25, 0.25, 0.2])


def test_one_statement_on_more_lines_earns_no_more():
    short, long = (
        ("    y = x + 2", "    return y"),
        ("    y = (", "        x", "        + 2", "    )", "    return y"),
    )
    for form in FORMS:
        made = scheme([0.2] * 5, form=form, unit="statement")
        one, other = (c.sum() for c in made.credit([episode(short), episode(long)]))
        assert one == pytest.approx(other)
    one, other = (c.sum() for c in scheme([0.2] * 5).credit([episode(short), episode(long)]))
    assert other > one


def test_own_lengths_count_statements_too():
    lines = ("    y = (", "        x", "    )", "    # c", "    return y")
    for form in ("mean", "scored_mean"):
        got = scheme([0.5] * 5, form=form, unit="statement").credit([episode(lines)])[0]
        assert got == pytest.approx([0, 0, 0.25 * 0.25, 0, 0.25 * 0.25, 0])


def test_a_growing_statement_is_paid_for_its_own_gain():
    # T0 = 2; the loop is worth its newest line's score, so each line pays the difference
    lines = ("    for i in x:", "        a = i", "        b = i", "    return b")
    made = scheme([1.0, 0.2, 0.6, -1.0], unit="statement")
    steps = made.step([Episode(task=TASK, lines=lines[:n]) for n in range(1, 5)])
    assert steps == pytest.approx([0, 0.3, 0.4 - 0.3, 0])
    assert made.credit([episode(lines)])[0] == pytest.approx([0, 0, 0.4, 0, 0])


def test_an_unfinished_statement_earns_nothing():
    lines = ("    a = 1", "    b = (", "    c = 2", "    d = 3")
    assert scheme([1.0] * 4, unit="statement").credit([episode(lines)])[0] == pytest.approx([0.5, 0, 0, 0, 0])


def test_t0_in_statements_needs_a_reference_that_has_one():
    bare = Task(task_id="bare", prompt="", entry_point="f", tests=TASK.tests, reference="pass\n# c\n")
    with pytest.raises(TaskError, match="'bare' has no reference to count statements of; give n_lines="):
        scheme(unit="statement").credit([episode(task=bare)])
    text = Task(
        task_id="text", prompt="Not code!", entry_point="f", tests=TASK.tests, prompt_is_code=False,
        reference="def f(x):\n    y = x\n    return y\n",
    )  # fmt: skip
    lines = ("def f(x):", "    return x")
    got = scheme([1.0, 1.0], unit="statement").credit([episode(lines, task=text)])[0]
    assert got == pytest.approx([0, 0.5, 0])


# ---------------------------------------------------------------- streaming


@pytest.mark.parametrize(
    ("form", "total"),
    [
        ("progress", 1.8 / 4),
        ("mean", 0.25 * -0.4 / 4),
        ("scored_mean", 0.25 * -0.4 / 4),
        ("sum", 0.25 * -0.4),
        ("min", 0.25 * -1.0),
        ("softmin", 0.25 * -0.9999983),
        ("delta", 0.25 * 0.8),
        ("clip", 0.25 * -1.6),
        ("potential", 0.0),
    ],
)
def test_streamed_rewards_add_up_to_the_shares_of_a_failing_program_with_t0(form, total):
    prefixes = [Episode(task=TASK, lines=LINES[:n]) for n in range(1, 6)]
    options = {"temperature": 0.03} if form == "softmin" else {}
    steps = scheme(form=form, **options).step(prefixes)
    assert steps.sum() == pytest.approx(total, abs=1e-6)
    assert steps[1] == 0
    if form != "potential":
        by_statement = scheme(form=form, unit="statement", **options).step(prefixes)
        factor = 2 if form in ("progress", "mean", "scored_mean") else 1
        assert by_statement.sum() == pytest.approx(min(factor * total, 0.95), abs=1e-6)


def test_min_streams_the_running_minimum():
    steps = scheme(form="min").step([Episode(task=TASK, lines=LINES[:n]) for n in range(1, 6)])
    assert steps == pytest.approx([0.2, 0, -0.1, -0.25, -0.1])


# ---------------------------------------------------------------- bounds and refusals


@pytest.mark.parametrize(
    ("options", "fail", "passed"),
    [
        ({}, (0, 0.95), (1, 1.095)),
        ({"form": "mean"}, (-0.25, 0.25), (0.975, 1.025)),
        ({"form": "min", "cap": 0.5}, (-0.125, 0.125), (0.9875, 1.0125)),
        ({"form": "sum"}, (-np.inf, np.inf), (-np.inf, np.inf)),
        ({"form": "sum", "cap": 2.0}, (-0.5, 0.5), (0.95, 1.05)),
        ({"form": "clip"}, (-np.inf, 0), (-np.inf, 1)),
        ({"form": "clip", "lambda_pass": 0.0}, (-np.inf, 0), (1, 1)),
        ({"form": "potential"}, (0, 0), (1, 1)),
        ({"form": "potential", "gamma": 0.9}, (-np.inf, 0), (-np.inf, 1)),
        ({"form": "mean", "gate": "pass_only"}, (0, 0), (0.75, 1.25)),
        ({"form": "mean", "gate": "schedule", "schedule": (0.5, 2.0, 9)}, (-0.5, 0.5), (0.95, 1.05)),
    ],
)
def test_bounds_by_hand(options, fail, passed):
    made = scheme(**options)
    assert made.bounds(passed=False) == pytest.approx(fail)
    assert made.bounds(passed=True) == pytest.approx(passed)
    assert is_ordered(made) == (fail[1] < passed[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "fail_only"}, "unknown gate 'fail_only'"),
        ({"unit": "token"}, "unknown unit 'token'"),
        ({"gate": "both", "lambda_pass": 0.1}, "gate='both' does not use lambda_pass, got 0.1"),
        ({"gate": "pass_only", "lambda_fail": 0.1}, "gate='pass_only' does not use lambda_fail, got 0.1"),
        ({"gate": "schedule"}, r"go together, got gate='schedule' and schedule=None"),
        ({"schedule": (1, 0, 9)}, r"go together, got gate='psgpo' and schedule=\(1, 0, 9\)"),
        ({"gate": "schedule", "schedule": (1, 0)}, r"schedule must be .*got \(1, 0\)"),
        ({"gate": "schedule", "schedule": (1, 0, 0)}, "schedule must be"),
        ({"gate": "schedule", "schedule": (1, -1, 5)}, "schedule must be"),
        ({"gate": "schedule", "schedule": (2.0, 1.0, 5)}, "a failing program could earn 1.9"),
        ({"temperature": 0}, "temperature must be positive and finite, got 0"),
        ({"eta": 2.0}, r"eta must be in \[-1, 1\], got 2.0"),
        ({"gamma": 0.0}, r"gamma must be in \(0, 1\], got 0.0"),
        ({"gamma": 1.1}, "gamma must be in"),
        ({"form": "sum", "cap": float("inf")}, "cap must be in"),
        ({"form": "sum", "cap": 5.0}, "a failing program could earn 1.25 and a passing one only 0.875"),
        ({"form": "potential", "unit": "statement"}, "pays every line in full, got unit='statement'"),
        ({"form": "potential", "cap": 0.5}, "cap=0.5"),
        ({"form": "min", "gate": "both", "lambda_fail": 0.5}, "could earn 0.5 and a passing one only 0.5"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        scheme(**options)


def test_a_schedule_from_json_is_the_same_scheme():
    options = {"prm": "p", "gate": "schedule"}
    assert ProcessReward(schedule=[1, 0, 5], **options) == ProcessReward(schedule=(1, 0, 5), **options)


# ---------------------------------------------------------------- parts of the formulas


def test_capped_shares():
    assert capped(np.array([0.5, 0.4, -2.0, 0.1]), 0.8) == pytest.approx([0.5, 0.3, -1.6, 0])
    assert capped(np.array([]), 0.8).shape == (0,)


def test_held_values():
    values, mask = np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, True, False, True])
    assert held(values, mask).tolist() == [0, 2, 2, 4]
    assert held(np.array([]), np.array([], dtype=bool)).shape == (0,)


@given(st.lists(st.floats(0, 1), max_size=10), st.booleans(), st.floats(0.1, 1))
def test_potential_shares_of_a_finished_program_cancel(potential, ended, gamma):
    n_actions = len(potential) + ended
    shares = potential_shares(np.array(potential), n_actions, gamma=gamma, is_over=True)
    assert shares.shape == (n_actions,)
    assert (gamma ** np.arange(n_actions) * shares).sum() == pytest.approx(0, abs=1e-9)
