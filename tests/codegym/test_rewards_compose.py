"""Weighted sums of schemes, and what a finished episode has earned by part."""

import json
import math

import numpy as np
import pytest

from codegym import END_OF_PROGRAM, CallTest, CodeGenEnv, Episode, RewardWrapper, Task, UnknownNameError
from codegym.rewards import is_ordered, make_scheme
from codegym.rewards.compose import Compose
from codegym.rewards.outcome import PassFail
from codegym.rewards.process import ProcessReward
from codegym.rewards.settlement import settle
from codegym.rewards.shaping import LengthReward
from codegym.testing import ScriptedJudge, ScriptedScorer, judgement

TASK = Task(
    task_id="t",
    prompt="def f(x):\n",
    entry_point="f",
    tests=(CallTest(args=(1,), expected=2),),
    reference="    y = x + 1\n    return y\n",
)
LINES = ("    y = )", "    return y")


def episode(lines=LINES, *, passed=False):
    return Episode(task=TASK, lines=lines, terminated=True, judgement=judgement(TASK, int(passed)))


def test_a_sum_pays_the_weighted_credits_of_its_members():
    made = Compose(
        [{"name": "pass_fail", "weight": 2}, {"name": "syntax", "weight": 0.5}, {"name": "length"}]
    )
    assert made.credit([episode()])[0] == pytest.approx([-0.05 - 0.01, -0.01, 0])
    assert made.credit([episode(passed=True)])[0] == pytest.approx([-0.06, -0.01, 2])
    assert made.step([Episode(task=TASK, lines=LINES[:1])]) == pytest.approx([-0.06])


def test_each_member_is_a_part_of_its_own():
    made = Compose(
        [{"name": "length"}, {"name": "length", "weight": 3}, {"name": "pass_fail"}, {"name": "length"}]
    )
    (parts,) = made.parts([episode(passed=True)])
    assert {name: part.tolist() for name, part in parts.items()} == {
        "length": [-0.01, -0.01, 0],
        "length#2": pytest.approx([-0.03, -0.03, 0]),
        "pass_fail": [0, 0, 1],
        "length#3": [-0.01, -0.01, 0],
    }


def test_sums_nest():
    inner = {"name": "compose", "weight": 0.5, "schemes": [{"name": "pass_fail"}, {"name": "length"}]}
    made = make_scheme("compose", schemes=[{"name": "pass_fail"}, inner])
    assert made.credit([episode(passed=True)])[0] == pytest.approx([-0.005, -0.005, 1.5])


def test_a_sum_of_schemes_in_memory():
    scorer = ScriptedScorer(lambda e: [1.0] * len(e.lines))
    made = Compose.from_schemes(
        {"dense": (1.0, ProcessReward.from_scorer(scorer)), "short": (2.0, LengthReward(rate=-0.05))}
    )
    assert made.credit([episode()])[0] == pytest.approx([0.5 - 0.1, 0.45 - 0.1, 0])


def test_a_sum_moves_its_members_schedules_on():
    scorer = ScriptedScorer(lambda e: [1.0] * len(e.lines))
    scheduled = ProcessReward.from_scorer(scorer, form="mean", gate="schedule", schedule=(1.0, 0.0, 4))
    made = Compose.from_schemes({"dense": (1.0, scheduled), "test": (1.0, PassFail())})
    assert [made.after(n).credit([episode()])[0].sum() for n in (0, 2, 4)] == pytest.approx([0.25, 0.125, 0])


def test_bounds_are_the_sum_of_the_members():
    made = Compose(
        [{"name": "pass_fail"}, {"name": "length", "weight": 2.0}, {"name": "syntax", "weight": -1.0}]
    )
    assert made.bounds(passed=False) == pytest.approx((-0.4, 0.1))
    assert made.bounds(passed=True) == pytest.approx((0.6, 1.1))
    assert is_ordered(made)


@pytest.mark.parametrize(
    ("schemes", "ordered"),
    [
        ([{"name": "pass_fail"}, {"name": "length", "cap": 0.9}], True),
        ([{"name": "pass_fail"}, {"name": "length", "cap": 1.0}], False),
        ([{"name": "pass_fail", "weight": -1.0}], False),
        ([{"name": "pass_fail", "weight": 0.0}], False),
        ([{"name": "coderl"}, {"name": "length", "weight": 3.0, "cap": 0.4}], True),
        ([{"name": "pass_rate"}, {"name": "length"}], False),
        ([{"name": "pass_rate"}, {"name": "length", "weight": 0.0}], True),
        ([{"name": "pass_rate"}, {"name": "coderl"}], True),
    ],
)
def test_a_sum_knows_whether_it_keeps_the_order(schemes, ordered):
    assert is_ordered(Compose(schemes)) == ordered


def test_a_member_without_bounds_leaves_the_sum_without_any():
    class Mine:
        credit = staticmethod(PassFail().credit)
        step = staticmethod(PassFail().step)

    made = Compose.from_schemes({"mine": (1.0, Mine()), "length": (1.0, LengthReward())})
    assert made.bounds(passed=True) == (-math.inf, math.inf)
    assert not is_ordered(made)


@pytest.mark.parametrize(
    ("schemes", "error", "message"),
    [
        ([], ValueError, "at least one scheme"),
        ([{"weight": 1.0}], ValueError, r"needs a name, got {'weight': 1.0}"),
        ([{"name": "lenght"}], UnknownNameError, "did you mean 'length'"),
        (
            [{"name": "length", "weight": float("nan")}],
            ValueError,
            "weight of 'length' must be finite, got nan",
        ),
        ([{"name": "length", "speed": 3}], TypeError, "speed"),
    ],
)
def test_bad_sums_are_named(schemes, error, message):
    with pytest.raises(error, match=message):
        Compose(schemes)


# ---------------------------------------------------------------- settling


def test_a_scheme_without_parts_is_one_part():
    (settled,) = settle(make_scheme("coderl"), [episode(passed=True)], name="levels")
    assert settled.parts == {"levels": 1.0}
    (settled,) = settle(make_scheme("coderl"), [episode()], name="levels")
    assert settled.parts == pytest.approx({"levels": -0.3})
    assert settled.total == pytest.approx(-0.3)
    assert settled.info == {"action_rewards": (0.0, 0.0, -0.3), "reward_parts": settled.parts}


@pytest.mark.parametrize(("name", "paid"), [("length", -0.02), ("syntax", -0.1)])
def test_parts_name_no_outcome_that_was_not_paid(name, paid):
    for passed in (True, False):
        (settled,) = settle(make_scheme(name), [episode(passed=passed)], name=name)
        assert settled.parts == pytest.approx({name: paid})


def test_settling_a_batch_asks_a_scheme_once():
    calls = []

    class Counting(PassFail):
        def credit(self, episodes):
            calls.append(len(episodes))
            return super().credit(episodes)

    assert [s.total for s in settle(Counting(), [episode(passed=True), episode()], name="x")] == [1.0, 0.0]
    assert settle(Counting(), [], name="x") == []
    assert calls == [2, 0]


def test_the_wrapper_reports_the_parts_of_a_sum_given_as_json():
    options = json.loads('{"schemes": [{"name": "rltf"}, {"name": "length", "weight": 0.5}]}')
    judge = ScriptedJudge(lambda task, source: judgement(task, 0))
    env = RewardWrapper(CodeGenEnv([TASK], judge), "compose", **options)
    env.reset()
    rewards = [env.step(line)[1] for line in LINES]
    _, last, *_, info = env.step(END_OF_PROGRAM)
    assert rewards == pytest.approx([-0.005, -0.005])
    assert last == pytest.approx(-0.3)
    assert info["reward_parts"] == pytest.approx({"rltf": -0.3, "length": -0.01})
    assert np.sum(info["action_rewards"]) == pytest.approx(-0.31)
