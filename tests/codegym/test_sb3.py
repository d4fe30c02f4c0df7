"""Classic libraries, unchanged: checks, training, saving, and that they can learn."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from codegym import LineChoices, RewardWrapper, TokenActions, load_tasks, make_judge
from codegym.testing import DOUBLE, ScriptedJudge, judgement


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def token_env():
    judge = ScriptedJudge(lambda task, source: judgement(task, 3 if "return y" in source else 1))
    env = gym.make("CodeGen-v0", tasks=[DOUBLE], judge=judge, max_lines=3)
    return TokenActions(RewardWrapper(env, "pass_rate"), max_tokens=12, context=24)


def choice_env(k=3):
    tasks = load_tasks("stepwise", limit=6, horizons=(1, 3))
    judge = ScriptedJudge(lambda task, source: judgement(task, 0 if "sorted" in source else len(task.tests)))
    return LineChoices(gym.make("CodeGen-v0", tasks=tasks, judge=judge), "stepwise", k, n_features=32)


@pytest.mark.parametrize("make", [token_env, choice_env])
def test_sb3_check_env_is_clean(make):
    check_env(make())


@pytest.mark.parametrize(
    ("algorithm", "policy", "make"),
    [
        (PPO, "MultiInputPolicy", token_env),
        (RecurrentPPO, "MultiInputLstmPolicy", token_env),
        (PPO, "MlpPolicy", choice_env),
        (MaskablePPO, "MlpPolicy", choice_env),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_stock_algorithms_step_train_save_and_load(algorithm, policy, make, tmp_path):
    env = make_vec_env(make, n_envs=2, seed=0)
    model = algorithm(policy, env, n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu")
    model.learn(64)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=env, device="cpu")
    observation = env.reset()
    first, second = (m.predict(observation, deterministic=True)[0] for m in (model, loaded))
    assert np.array_equal(first, second)
    loaded.learn(32)
    assert len(loaded.ep_info_buffer) > 0


def test_masks_reach_the_algorithm():
    env = make_vec_env(choice_env, n_envs=2, seed=0)
    env.reset()
    while True:
        masks = get_action_masks(env)
        assert masks.shape == (2, 3)
        if masks[0].tolist() == [True, False, False]:
            break
        env.step(np.zeros(2, dtype=np.int64))


def test_policies_are_evaluated_unchanged():
    env = make_vec_env(choice_env, n_envs=1, seed=0)
    model = PPO("MlpPolicy", env, n_steps=16, batch_size=16, device="cpu")
    mean, _ = evaluate_policy(model, env, n_eval_episodes=4)
    assert 0.0 <= mean <= 1.0


def success_rate(choose, env, n):
    successes = 0
    for seed in range(n):
        observation, info = env.reset(seed=seed)
        over = False
        while not over:
            observation, _, terminated, truncated, info = env.step(choose(observation))
            over = terminated or truncated
        successes += info["is_success"]
    return successes / n


@pytest.mark.slow
def test_stock_ppo_learns_to_choose_lines_of_programs_it_has_not_seen():
    with make_judge("local", workers=1) as judge:

        def make(split, limit):
            tasks = list(load_tasks("stepwise", split=split, limit=limit, horizons=(1, 3)))
            line_env = gym.make("CodeGen-v0", tasks=tasks, judge=judge)
            return LineChoices(line_env, "stepwise", 2)

        held_out = make("test", 200)
        rng = np.random.default_rng(0)
        by_chance = success_rate(lambda observation: int(rng.integers(2)), held_out, 100)
        model = PPO(
            "MlpPolicy",
            DummyVecEnv([lambda: make("train", 2000)] * 16),
            n_steps=64,
            batch_size=256,
            n_epochs=8,
            learning_rate=lambda remaining: 3e-3 * remaining,
            gamma=1.0,
            gae_lambda=1.0,
            ent_coef=0.01,
            policy_kwargs={"net_arch": [64]},
            seed=0,
            device="cpu",
        )
        model.learn(41_000)
        learned = success_rate(lambda o: int(model.predict(o, deterministic=True)[0]), held_out, 100)
    assert by_chance < 0.3
    assert learned > 0.85
