"""Stable-Baselines3's own callbacks, evaluation and vector environments, unmodified, with PSGPO."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from agents.psgpo import PSGPO, PSGPOConfig
from codegym import END_OF_PROGRAM
from codegym.rewards.wrapper import RewardWrapper
from codegym.testing import ScriptedJudge, judgement

CONFIG = PSGPOConfig(
    n_iterations=4,
    rollouts_per_iteration=16,
    max_new_tokens=5,
    critic_only_iterations=1,
    warmup_iterations=1,
    learning_rate=3e-3,
    micro_batch_tokens=64,
)


@pytest.fixture
def make(toy):
    def build(env=None, config=CONFIG, **options):
        return PSGPO(
            toy.model(), env or toy.env(), config, tokenizer=toy.tokenizer(), device="cpu", **options
        )

    return build


def weights(agent):
    return [parameter.sum().item() for parameter in agent.policy.parameters()]


def generous(toy):
    """Every program passes."""
    return Monitor(
        gym.make(
            "CodeGen-v0",
            tasks=toy.tasks(),
            judge=ScriptedJudge(lambda task, _: judgement(task, 1)),
            max_lines=5,
        )
    )


class Steps(BaseCallback):
    """Keeps what Stable-Baselines3 promises to callbacks."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def _on_step(self):
        self.rows.append(
            (self.num_timesteps, self.model.iteration, *self.locals["dones"], *self.locals["infos"])
        )
        return True


# --- vector environments ---


def test_texts_go_through_stock_vector_environments_whole(toy):
    env = DummyVecEnv([toy.env for _ in range(3)])
    env.seed(0)
    prompts = env.reset()
    assert prompts.shape == (3,)
    assert set(prompts) <= {f"{letter}\n" for letter in toy.letters}
    long = "x" * 500
    texts, rewards, dones, _ = env.step(np.array([long, "é😀", END_OF_PROGRAM], dtype=object))
    assert texts[0] == f"{prompts[0]}{long}\n"
    assert texts[1] == f"{prompts[1]}é😀\n"
    assert dones.tolist() == [False, False, True]
    assert rewards.tolist() == [0, 0, 0]


def test_the_end_of_an_episode_is_told_as_stable_baselines_tells_it(toy):
    env = DummyVecEnv([toy.env])
    prompt = env.reset()[0]
    env.step([prompt.strip()])
    _, rewards, dones, infos = env.step([END_OF_PROGRAM])
    assert (rewards[0], dones[0]) == (1, True)
    assert infos[0]["terminal_observation"] == prompt + prompt
    assert infos[0]["is_success"]
    assert infos[0]["TimeLimit.truncated"] is False


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: env,
        Monitor,
        lambda env: DummyVecEnv([lambda: env]),
        lambda env: VecMonitor(DummyVecEnv([lambda: env])),
        lambda env: make_vec_env(lambda: env, n_envs=1),
        lambda env: RewardWrapper(env, "pass_rate"),
    ],
    ids=["plain", "monitor", "dummy", "vec-monitor", "make_vec_env", "reward"],
)
def test_it_trains_in_any_wrapping_of_one_environment(make, toy, wrap):
    agent = make(env=wrap(toy.env()))
    agent.iterate(0.0)
    assert agent.get_env().num_envs == 1
    assert agent.num_timesteps > 16


def test_several_environments_are_refused(make, toy):
    with pytest.raises(ValueError, match=r"expected a DummyVecEnv of one environment.* of 2"):
        make(env=DummyVecEnv([toy.env] * 2))


# --- evaluate_policy ---


@pytest.mark.parametrize("n_envs", [1, 3])
def test_evaluate_policy_counts_returns_and_lengths(make, toy, n_envs):
    env = make_vec_env(lambda: generous(toy), n_envs=n_envs, seed=0)
    rewards, lengths = evaluate_policy(make(), env, n_eval_episodes=6, return_episode_rewards=True)
    assert rewards == [1.0] * 6
    assert all(1 <= length <= 5 for length in lengths)
    assert evaluate_policy(make(), generous(toy), n_eval_episodes=3) == (1.0, 0.0)


def test_evaluate_policy_raises_below_its_threshold(make, toy):
    with pytest.raises(AssertionError, match="Mean reward below threshold"):
        evaluate_policy(make(), Monitor(toy.env()), n_eval_episodes=2, reward_threshold=0.5)


# --- callbacks ---


def test_callbacks_see_every_action_of_a_finished_iteration(make):
    steps = Steps()
    agent = make().learn(total_timesteps=60, callback=steps)
    assert len(steps.rows) == agent.num_timesteps >= 60
    times, iterations, dones, infos = zip(*steps.rows, strict=True)
    assert sorted(set(iterations)) == list(range(1, agent.iteration + 1))
    # the count rises by an iteration at a time, as it does with many environments
    assert list(times) == sorted(times)
    assert len(set(times)) == agent.iteration
    ended = [info for info, done in zip(infos, dones, strict=True) if done]
    assert len(ended) == 16 * agent.iteration
    assert all({"verdict", "is_success", "episode"} <= set(info) for info in ended)
    assert sum(info["episode"]["l"] for info in ended) == agent.num_timesteps


def test_checkpoints_are_folders_that_load(make, toy, tmp_path):
    agent = make()
    agent.learn(callback=CheckpointCallback(save_freq=60, save_path=str(tmp_path), name_prefix="toy"))
    folders = sorted(tmp_path.iterdir(), key=lambda path: int(path.name.split("_")[1]))
    assert 1 <= len(folders) <= agent.num_timesteps // 60
    assert all(path.is_dir() and path.suffix == "" for path in folders)
    for path in folders:
        steps = int(path.name.split("_")[1])
        assert PSGPO.load(path, toy.env(), device="cpu").num_timesteps == steps
    loaded = PSGPO.load(folders[-1], toy.env(), device="cpu").learn()
    assert weights(loaded) == weights(agent)


def test_eval_callback_writes_its_file_and_saves_the_best_model(make, toy, tmp_path):
    best = tmp_path / "best"
    callback = EvalCallback(
        DummyVecEnv([lambda: generous(toy)]), n_eval_episodes=3, eval_freq=60, verbose=0,
        log_path=str(tmp_path), best_model_save_path=str(best), deterministic=False,
    )  # fmt: skip
    agent = make()
    agent.set_logger(configure(str(tmp_path / "log"), ["json"]))
    agent.learn(callback=callback)
    agent.logger.close()
    with np.load(tmp_path / "evaluations.npz") as file:
        evaluations = dict(file)
    assert evaluations["results"].shape == evaluations["ep_lengths"].shape
    assert evaluations["results"].shape == (callback.n_calls // 60, 3)
    assert (evaluations["results"] == 1).all()
    assert evaluations["successes"].all()
    loaded = PSGPO.load(best / "best_model", toy.env(), device="cpu")
    assert loaded.num_timesteps == evaluations["timesteps"][0]  # the first: no later one was better
    assert "eval/mean_reward" in (tmp_path / "log" / "progress.json").read_text()


def test_an_environment_is_evaluated_as_it_is_without_warning_of_another_kind(make, toy):
    make().learn(callback=EvalCallback(generous(toy), n_eval_episodes=1, eval_freq=50, verbose=0))


def test_training_stops_at_a_reward_threshold(make, toy):
    stop = StopTrainingOnRewardThreshold(reward_threshold=0.9)
    callback = EvalCallback(
        generous(toy), callback_on_new_best=stop, n_eval_episodes=2, eval_freq=10, verbose=0
    )
    assert make().learn(callback=callback).iteration == 1


def test_training_goes_on_below_a_reward_threshold(make, toy):
    stop = StopTrainingOnRewardThreshold(reward_threshold=1.5)
    callback = EvalCallback(
        generous(toy), callback_on_new_best=stop, n_eval_episodes=1, eval_freq=50, verbose=0
    )
    assert make().learn(callback=callback).iteration == 4


def test_training_stops_without_improvement(make, toy):
    stop = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1)
    callback = EvalCallback(
        generous(toy), callback_after_eval=stop, n_eval_episodes=1, eval_freq=10, verbose=0
    )
    # the first evaluation is the best; the second is not counted yet, the third is one too many
    assert make().learn(callback=callback).iteration < 4
    assert callback.n_calls == 30


def test_training_stops_after_a_number_of_episodes(make):
    callback = StopTrainingOnMaxEpisodes(max_episodes=20)
    agent = make().learn(callback=callback)
    assert agent.iteration == 2
    assert callback.n_episodes == 20


def test_every_n_timesteps_fires_when_they_have_passed(make):
    fired = Steps()
    agent = make().learn(callback=EveryNTimesteps(1, fired))
    assert [row[1] for row in fired.rows] == list(range(1, agent.iteration + 1))
    rare = Steps()
    make().learn(callback=EveryNTimesteps(10**6, rare))
    assert not rare.rows


def test_log_every_n_timesteps_dumps(make, tmp_path):
    agent = make()
    agent.set_logger(configure(str(tmp_path), ["json"]))
    agent.learn(log_interval=10**6, callback=[RecordIteration(), LogEveryNTimesteps(1)])
    agent.logger.close()
    assert len((tmp_path / "progress.json").read_text().splitlines()) == 4


class RecordIteration(BaseCallback):
    """Gives the logger something to dump."""

    def _on_step(self):
        self.logger.record("iteration", self.model.iteration)
        return True


@pytest.mark.filterwarnings("ignore:rich is experimental")
@pytest.mark.parametrize("total", [60, None])
def test_the_progress_bar_counts_actions(make, total):
    callback = ProgressBarCallback()
    agent = make().learn(total_timesteps=total, callback=callback)
    assert callback.pbar.n == agent.num_timesteps
    assert callback.pbar.total in (60, None)


@pytest.mark.parametrize("total", [0, -1])
def test_no_timesteps_are_no_training(make, total):
    agent = make().learn(total_timesteps=total)
    assert (agent.iteration, agent.num_timesteps) == (0, 0)
