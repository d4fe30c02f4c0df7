"""`VectorRewardWrapper` pays what as many `RewardWrapper` pay, in batches."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from codegym import (
    END_OF_PROGRAM,
    REWARD_SCHEMES,
    CodeGenEnv,
    Episode,
    RewardWrapper,
    UnknownNameError,
    VectorRewardWrapper,
    make_scheme,
)
from codegym.rewards.process import ProcessReward
from codegym.rewards.score_batch import one_batch, score
from codegym.testing import DOUBLE, ScriptedJudge, judgement

MODES = list(AutoresetMode)
ACTIONS = ("    y = x + x", "    return y", "# why", END_OF_PROGRAM)


class CountingScorer:
    """Scores a line by its length, and keeps the size of every batch."""

    def __init__(self):
        self.batches = []

    def score(self, episodes):
        self.batches.append(len(episodes))
        return [np.array([len(line) / 20 - 0.5 for line in e.lines]) for e in episodes]


class Steps:
    """Pays 1, 2, 3... while a program is written, and in hindsight 10 for each action."""

    def step(self, episodes):
        return np.array([float(len(e.lines)) for e in episodes])

    def credit(self, episodes):
        return [np.full(e.n_actions, 10.0) for e in episodes]


class Growing(Steps):
    """Pays more with every program."""

    def __init__(self, n=0):
        self.n = n

    def credit(self, episodes):
        return [np.full(e.n_actions, 10.0 + self.n) for e in episodes]

    def after(self, n_programs):
        return Growing(n_programs)


def judge():
    return ScriptedJudge(lambda task, source: judgement(task, 3 if "return y" in source else 1))


def make(n, mode=AutoresetMode.NEXT_STEP, **options):
    options = {"tasks": [DOUBLE], "judge": judge(), "max_lines": 3, "autoreset_mode": mode, **options}
    return gym.make_vec("CodeGen-v0", n, **options)


def make_sync(n, scheme, mode):
    def make_env():
        return RewardWrapper(CodeGenEnv([DOUBLE], judge(), max_lines=3), scheme)

    return SyncVectorEnv([make_env] * n, autoreset_mode=mode)


def same(a, b):
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and all(map(same, a.tolist(), b.tolist()))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b if not isinstance(a, float) else a == pytest.approx(b, abs=1e-12)


def schemes():
    """One scheme per entry of the table that needs no arguments, and process rewards of a scorer."""
    made = {"process": ProcessReward.from_scorer(CountingScorer())}
    for name in REWARD_SCHEMES:
        try:
            made.setdefault(name, make_scheme(name))
        except (TypeError, ValueError):
            continue  # it needs a model or parts
    return made


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", schemes())
def test_every_scheme_pays_what_single_environments_pay(name, mode):
    rng = np.random.default_rng(0)
    ours = VectorRewardWrapper(make(16, mode), schemes()[name])
    theirs = make_sync(16, schemes()[name], mode)
    assert same(ours.reset(seed=0), theirs.reset(seed=0))
    for _ in range(7):
        actions = rng.choice(ACTIONS, size=16, p=(0.3, 0.3, 0.2, 0.2)).tolist()
        a, b = ours.step(actions), theirs.step(actions)
        assert all(map(same, a, b))
        if mode is AutoresetMode.DISABLED and (a[2] | a[3]).any():
            mask = {"reset_mask": a[2] | a[3]}
            assert same(ours.reset(options=dict(mask)), theirs.reset(options=dict(mask)))


def test_what_is_no_scheme_is_refused():
    for wrong in (None, Steps):
        with pytest.raises(TypeError, match="scheme must be a RewardScheme"):
            VectorRewardWrapper(make(2), wrong)


def test_the_last_action_settles():
    env = VectorRewardWrapper(make(2), Steps())
    env.reset(seed=0)
    assert env.step(("a", "a"))[1].tolist() == [1.0, 1.0]
    assert env.step(("b", "b"))[1].tolist() == [2.0, 2.0]
    _, rewards, _, _, infos = env.step((END_OF_PROGRAM, "c"))
    assert rewards.tolist() == [27.0, 27.0]
    assert infos["action_rewards"].tolist() == [(10.0, 10.0, 10.0)] * 2
    assert infos["reward_parts"]["Steps"].tolist() == [30.0, 30.0]
    assert env.step(("ignored", "ignored"))[1].tolist() == [0.0, 0.0]
    assert env.step(("a", "a"))[1].tolist() == [1.0, 1.0]


def test_ends_in_the_same_step_are_told_in_the_final_info():
    env = VectorRewardWrapper(make(2, AutoresetMode.SAME_STEP), Steps())
    env.reset(seed=0)
    env.step(("a", "    return y"))
    _, rewards, _, _, infos = env.step(("b", END_OF_PROGRAM))
    assert rewards.tolist() == [2.0, 19.0]
    final = infos["final_info"]
    assert final["action_rewards"].tolist() == [None, (10.0, 10.0)]
    assert final["_action_rewards"].tolist() == [False, True]
    assert final["reward_parts"]["Steps"][1] == 20.0
    assert "reward_parts" not in infos
    assert env.step(("c", "a"))[1].tolist() == [27.0, 1.0]


def test_a_masked_reset_forgets_only_what_it_resets():
    env = VectorRewardWrapper(make(2, AutoresetMode.DISABLED), Steps())
    env.reset(seed=0)
    env.step(("a", END_OF_PROGRAM))
    env.reset(options={"reset_mask": np.array([False, True])})
    assert env.step((END_OF_PROGRAM, "a"))[1].tolist() == [19.0, 1.0]


def test_an_early_reset_forgets_what_was_paid():
    env = VectorRewardWrapper(make(1), Steps())
    env.reset(seed=0)
    env.step(("a",))
    env.reset()
    assert env.step((END_OF_PROGRAM,))[1].tolist() == [10.0]


def test_a_scorer_is_asked_once_per_step_for_running_and_ended_programs():
    scorer = CountingScorer()
    env = VectorRewardWrapper(make(6), ProcessReward.from_scorer(scorer))
    env.reset(seed=0)
    env.step(["    y = x + x"] * 6)
    env.step([END_OF_PROGRAM] * 2 + ["    return y"] * 4)
    env.step(["ignored"] * 2 + [END_OF_PROGRAM] * 4)
    assert scorer.batches == [6, 6, 4]


def test_the_parts_of_a_composed_scheme_share_the_scores():
    scorer = CountingScorer()
    parts = {
        "first": [ProcessReward.from_scorer(scorer), 0.5],
        "second": [ProcessReward.from_scorer(scorer), 0.5],
    }
    episodes = [Episode(task=DOUBLE, lines=("a",)), Episode(task=DOUBLE, lines=("a", "b"))]
    with one_batch(episodes):
        for scheme, _ in parts.values():
            scheme.step(episodes[:1])
            scheme.step(episodes[1:])
    assert scorer.batches == [2]


def test_scores_outside_the_announced_batch_are_asked_for():
    scorer = CountingScorer()
    known, other = Episode(task=DOUBLE, lines=("a",)), Episode(task=DOUBLE, lines=("abc",))
    with one_batch([known]):
        assert score(scorer, [other, known])[0].tolist() == [3 / 20 - 0.5]
        assert score(scorer, [known])[0].tolist() == [1 / 20 - 0.5]
        score(scorer, [known])
    score(scorer, [known])
    assert scorer.batches == [2, 1, 1]


def test_batches_do_not_outlive_an_error():
    scorer = CountingScorer()
    known = Episode(task=DOUBLE, lines=("a",))
    with pytest.raises(RuntimeError), one_batch([known]):
        raise RuntimeError
    score(scorer, [known])
    score(scorer, [known])
    assert scorer.batches == [1, 1]


def test_a_scorer_with_too_few_scores_is_named():
    class Short(CountingScorer):
        def score(self, episodes):
            return super().score(episodes)[:1]

    episodes = [Episode(task=DOUBLE, lines=("a",))] * 3
    with pytest.raises(ValueError, match="1 results for 3 episodes"), one_batch(episodes):
        score(Short(), episodes[:1])


def test_a_schedule_moves_with_all_programs():
    env = VectorRewardWrapper(make(3, AutoresetMode.SAME_STEP), Growing())
    env.reset(seed=0)
    assert env.step([END_OF_PROGRAM] * 3)[1].tolist() == [10.0] * 3
    assert env.step([END_OF_PROGRAM] * 3)[1].tolist() == [13.0] * 3


def test_rendering_shows_the_schemes_rewards():
    env = VectorRewardWrapper(make(2, render_mode="ansi"), Steps())
    env.reset(seed=0)
    env.step(("a", "a"))
    env.step((END_OF_PROGRAM, "b"))
    ended, running = env.render()
    assert "   1 +10.000 | a\n      +10.000 |" in ended.replace("     +10", "      +10")
    assert running.endswith("   1  +1.000 | a\n   2  +2.000 | b\n")


def test_what_cannot_be_wrapped_is_refused():
    with pytest.raises(TypeError, match="already has a reward wrapper"):
        VectorRewardWrapper(VectorRewardWrapper(make(2), "pass_fail"), "pass_fail")
    sync = gym.make_vec("CodeGen-v0", 2, "sync", tasks=[DOUBLE], judge=judge())
    with pytest.raises(TypeError, match="wrap each environment in RewardWrapper"):
        VectorRewardWrapper(sync, "pass_fail")
    with pytest.raises(TypeError, match="go with a scheme's name"):
        VectorRewardWrapper(make(2), Steps(), weight=2)
    with pytest.raises(UnknownNameError, match="pass_fail"):
        VectorRewardWrapper(make(2), "pass_fial")


def test_wrapped_environments_vectorize_with_gymnasium_too():
    make_env = partial(gym.make, "CodeGen-v0", tasks=[DOUBLE], judge=judge())
    env = SyncVectorEnv([lambda: RewardWrapper(make_env(), Steps())] * 2)
    env.reset(seed=0)
    assert env.step(("a", "a"))[1].tolist() == [1.0, 1.0]
