import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from agents.monitor import PhaseTimer
from agents.psgpo import PSGPO, PSGPOConfig
from agents.update import token_values
from codegym.rewards.process import ProcessReward
from codegym.rewards.wrapper import RewardWrapper
from codegym.testing import ScriptedScorer
from codegym.wrappers.programs import ProgramActions
from codegym.wrappers.tokens import TokenActions
from prm.model import ProcessRewardModel

CONFIG = PSGPOConfig(
    n_iterations=4,
    rollouts_per_iteration=16,
    max_new_tokens=5,
    critic_only_iterations=1,
    warmup_iterations=1,
    learning_rate=3e-3,
    micro_batch_tokens=64,
)


def right_prefix(episode):
    """Exact labels of the toy task: only the first line can be right."""
    return [1.0 if lines == [episode.task.task_id] else -1.0 for lines in prefixes(episode)]


def odd_lines(episode):
    """Scores that even an untrained policy earns in different amounts."""
    return [1.0 if len(line) % 2 else -1.0 for line in episode.lines]


def prefixes(episode):
    return [list(episode.lines[: m + 1]) for m in range(len(episode.lines))]


@pytest.fixture
def make_agent(toy):
    def make(config=CONFIG, env=None, **options):
        options = {"tokenizer": toy.tokenizer(), "device": "cpu", **options}
        return PSGPO(options.pop("policy", None) or toy.model(), env or toy.env(), config, **options)

    return make


def digest(agent):
    sha = hashlib.sha256()
    for network in (agent.policy, agent.critic):
        for name, tensor in sorted(network.state_dict().items()):
            sha.update(name.encode() + tensor.numpy().tobytes())
    for learner in agent.learners.values():
        for _, slots in sorted(learner.optimizer.state_dict()["state"].items()):
            for name, tensor in sorted(slots.items()):
                sha.update(name.encode() + tensor.numpy().tobytes())
    return sha.hexdigest()


class Liar:
    """A sampler that is off by a tenth in every log-probability it reports."""

    def __init__(self, sampler):
        self.sampler, self.identity = sampler, "liar"

    def sample(self, prompts, **options):
        return [
            [replace(c, logprobs=tuple(number + 0.1 for number in c.logprobs)) for c in group]
            for group in self.sampler.sample(prompts, **options)
        ]


class Recorder(BaseCallback):
    """Keeps what it is told, the first of the steps of an iteration; stops after some iterations."""

    def __init__(self, stop_after=10**9):
        super().__init__()
        self.stop_after, self.events = stop_after, []

    def _on_training_start(self):
        self.events.append("training start")

    def _on_rollout_start(self):
        self.events.append("rollout start")

    def _on_rollout_end(self):
        self.events.append(f"rollout end: {len(self.locals['rollout'].episodes)}")

    def _on_step(self):
        if not self.events[-1].startswith("step"):
            self.events.append(f"step {self.model.iteration}")
        return self.model.iteration < self.stop_after

    def _on_training_end(self):
        self.events.append("training end")


class CountingRefresh:
    """A hook whose answers depend on all it has seen."""

    def __init__(self):
        self.seen = []

    def __call__(self, programs):
        self.seen += [program.program_id for program in programs]
        return {"n_seen": len(self.seen)}

    def save(self, folder):
        (folder / "seen.json").write_text(json.dumps(self.seen))

    def load(self, folder):
        self.seen = json.loads((folder / "seen.json").read_text())


# --- correctness of an iteration ---


def test_before_the_first_update_the_kl_is_zero_and_the_ratio_one(make_agent):
    metrics = make_agent(replace(CONFIG, critic_only_iterations=0, n_minibatches=1)).iterate(0.0)
    assert metrics["train/kl_to_reference"] == pytest.approx(0, abs=1e-6)
    assert metrics["train/approx_kl"] == pytest.approx(0, abs=1e-9)
    assert metrics["train/clip_fraction"] == 0


@pytest.mark.parametrize("critic_only", [0, 1])
def test_a_sampler_that_is_off_is_seen_in_the_log(make_agent, critic_only):
    config = replace(CONFIG, critic_only_iterations=critic_only, temperature=0.8)
    honest, lying = make_agent(config), make_agent(config)
    lying.sampler = Liar(lying.sampler)
    for index in range(2):
        assert honest.iterate(index / 4)["train/sampler_logprob_gap_max"] < 1e-4
        metrics = lying.iterate(index / 4)
        assert metrics["train/sampler_logprob_gap"] == pytest.approx(0.1, abs=1e-4)
        assert metrics["train/sampler_logprob_gap_max"] == pytest.approx(0.1, abs=1e-4)


def test_the_kl_penalty_is_paid_per_token(make_agent, toy):
    agent = make_agent(replace(CONFIG, kl_coef=0.5), reference=toy.model(seed=3))
    rollout = agent.collect(PhaseTimer())
    batch = rollout.batch
    experience, metrics = agent.estimate(rollout)
    plain, _ = make_agent(replace(CONFIG, kl_coef=0.0)).estimate(rollout)
    # lambda 1: the first token's return holds the whole penalty of its program
    first = batch.mask.long().argmax(1)
    rows = torch.arange(len(batch))
    paid = (plain.returns - experience.returns)[rows, first].mean()
    assert paid == pytest.approx(0.5 * metrics["train/kl_per_program"], rel=1e-3)
    assert metrics["train/kl_per_program"] > 0.01


def test_the_reward_scheme_decides_what_is_paid(make_agent, toy):
    scheme = ProcessReward.from_scorer(ScriptedScorer(odd_lines))
    agent = make_agent(env=RewardWrapper(toy.env(), scheme))
    rollout = agent.collect(PhaseTimer())
    paid = rollout.batch.rewards.sum(1).numpy()
    expected = [credit.sum() for credit in scheme.credit(rollout.episodes)]
    np.testing.assert_allclose(paid, expected, atol=1e-6)
    assert len(np.unique(paid)) > 1


def test_without_a_wrapper_only_a_pass_is_paid(make_agent, toy):
    rollout = make_agent().collect(PhaseTimer())
    passed = [episode.judgement.passed for episode in rollout.episodes]
    assert rollout.batch.rewards.sum(1).tolist() == [float(one) for one in passed]


def test_programs_are_judged_in_one_batch_once_all_are_written(make_agent):
    agent = make_agent(replace(CONFIG, judge_early=False))
    agent.collect(PhaseTimer())
    assert [len(batch) for batch in agent.env.unwrapped.judge.batches] == [16]


def test_several_samples_of_a_task_stand_together(make_agent):
    rollout = make_agent(replace(CONFIG, samples_per_task=4)).collect(PhaseTimer())
    ids = [episode.task.task_id for episode in rollout.episodes]
    assert len(ids) == 16
    assert all(len(set(ids[i : i + 4])) == 1 for i in range(0, 16, 4))
    assert len(set(ids)) == 4


def test_the_critic_moves_first(make_agent):
    agent = make_agent(replace(CONFIG, critic_only_iterations=2))
    before = digest_of(agent.policy)
    for _ in range(2):
        metrics = agent.iterate(0.0)
        assert "train/approx_kl" not in metrics
        assert digest_of(agent.policy) == before
    agent.iterate(0.0)
    assert digest_of(agent.policy) != before


def digest_of(network):
    return [parameter.sum().item() for parameter in network.parameters()]


def test_the_reference_stays(make_agent):
    agent = make_agent()
    before = digest_of(agent.reference)
    agent.learn()
    assert digest_of(agent.reference) == before
    assert digest_of(agent.policy) != before


def test_advantages_are_whitened_and_zero_outside_the_programs(make_agent):
    agent = make_agent()
    experience, _ = agent.estimate(noisy(agent.collect(PhaseTimer())))
    inside = experience.advantages[experience.batch.mask]
    assert inside.mean() == pytest.approx(0, abs=1e-5)
    assert inside.std() == pytest.approx(1, abs=1e-4)
    assert (experience.advantages[~experience.batch.mask] == 0).all()


def noisy(rollout):
    noise = torch.randn(rollout.batch.rewards.shape, generator=torch.Generator().manual_seed(0))
    return replace(rollout, batch=replace(rollout.batch, rewards=noise * rollout.batch.mask))


def test_the_critics_own_lambda_changes_its_targets_alone(make_agent):
    same, other = (make_agent(replace(CONFIG, critic_gae_lambda=number)) for number in (1.0, 0.5))
    for agent in (same, other):
        torch.nn.init.normal_(agent.critic.head.weight, generator=torch.Generator().manual_seed(1))
    rollout = same.collect(PhaseTimer())
    one, two = same.estimate(rollout)[0], other.estimate(rollout)[0]
    assert torch.equal(one.advantages, two.advantages)
    assert not torch.allclose(one.returns, two.returns)


def test_a_critic_from_a_reward_model_is_calibrated_on_the_first_rollout(make_agent, toy):
    prm = ProcessRewardModel.from_backbone(toy.model(seed=4), toy.tokenizer(), head="newline")
    torch.nn.init.normal_(prm.head.weight, generator=torch.Generator().manual_seed(2), std=5.0)
    scheme = ProcessReward.from_scorer(ScriptedScorer(odd_lines))
    agent = make_agent(replace(CONFIG, critic_init="prm"), prm=prm, env=RewardWrapper(toy.env(), scheme))
    rollout = agent.collect(PhaseTimer())
    experience, metrics = agent.estimate(rollout)
    assert metrics["critic/explained_variance_before"] < 0 <= metrics["critic/explained_variance_after"]
    after = metrics["critic/explained_variance_after"]
    assert metrics["train/explained_variance"] == pytest.approx(after, abs=1e-4)
    again = token_values(agent.critic, rollout.batch, max_tokens=64)
    torch.testing.assert_close(experience.values, again, atol=1e-4, rtol=1e-4)
    agent.iterate(0.0)
    assert "critic/calibration_slope" not in agent.iterate(0.1)


def test_a_reward_model_can_be_a_folder(make_agent, toy, tmp_path):
    ProcessRewardModel.from_backbone(toy.model(seed=4), toy.tokenizer()).save_pretrained(tmp_path / "prm")
    agent = make_agent(replace(CONFIG, critic_init="prm"), prm=tmp_path / "prm")
    assert "critic/calibration_slope" in agent.iterate(0.0)


# --- Stable-Baselines3's vocabulary ---


def test_learn_runs_the_configured_iterations_and_tells_the_callbacks(make_agent):
    recorder = Recorder()
    agent = make_agent(replace(CONFIG, n_iterations=2)).learn(callback=recorder)
    assert agent.iteration == 2
    assert recorder.events == [
        "training start",
        *("rollout start", "rollout end: 16", "step 1"),
        *("rollout start", "rollout end: 16", "step 2"),
        "training end",
    ]
    assert recorder.num_timesteps == recorder.n_calls == agent.num_timesteps


def test_timesteps_are_actions(make_agent):
    agent = make_agent()
    rollout = agent.collect(PhaseTimer())
    agent.iterate(0.0)
    assert agent.num_timesteps == sum(episode.n_actions for episode in rollout.episodes)
    before = agent.iteration
    agent.learn(total_timesteps=agent.num_timesteps + 1)
    assert agent.iteration == before + 1
    agent.learn(total_timesteps=1)
    assert agent.iteration == before + 1
    agent.learn(total_timesteps=1, reset_num_timesteps=True)
    assert agent.iteration == 1


def test_a_callback_can_stop_the_training(make_agent):
    assert make_agent().learn(callback=Recorder(stop_after=2)).iteration == 2
    assert make_agent().learn(callback=lambda _locals, _globals: False).iteration == 1
    assert make_agent().learn(callback=[Recorder(), Recorder(stop_after=3)]).iteration == 3


def test_the_log_has_stable_baselines_keys_and_ours(make_agent, toy, tmp_path):
    scheme = ProcessReward.from_scorer(ScriptedScorer(lambda e: [0.5] * len(e.lines)))
    agent = make_agent(
        env=RewardWrapper(toy.env(), scheme), oracle=ScriptedScorer(right_prefix), refresh=CountingRefresh()
    )
    agent.set_logger(configure(str(tmp_path), ["json"]))
    agent.learn()
    agent.logger.close()
    rows = [json.loads(line) for line in (tmp_path / "progress.json").read_text().splitlines()]
    assert len(rows) == 4
    expected = {
        "rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/success_rate", "train/approx_kl",
        "train/clip_fraction", "train/clip_range", "train/entropy_loss", "train/explained_variance",
        "train/policy_gradient_loss", "train/value_loss", "train/loss", "train/learning_rate",
        "train/n_updates", "train/sampler_logprob_gap", "train/sampler_logprob_gap_max",
        "time/fps", "time/iterations", "time/total_timesteps",
        "time/sampled_tokens_per_second", "time/updated_tokens_per_second", "time/verdicts_per_second",
        "time/judging_wait_share", "time/share_sampling", "time/share_judging", "time/share_update",
        "time/share_other",
        "codegen/lines_per_program", "codegen/has_return", "codegen/steps_addressed",
        "codegen/prefix_correct", "codegen/pass_horizon_1", "prm/score_on_failing", "prm/gap",
    }  # fmt: skip
    assert expected <= set(rows[-1])
    shares = [value for key, value in rows[-1].items() if key.startswith("time/share_")]
    assert sum(shares) == pytest.approx(1, abs=0.01)
    assert [row["train/n_updates"] for row in rows] == [1, 2, 3, 4]


def test_predict_writes_line_by_line(make_agent, toy):
    agent = make_agent()
    env = toy.env()
    text, _ = env.reset(seed=0)
    for _ in range(10):
        action, state = agent.predict(text, deterministic=True)
        assert state is None
        text, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            break
    batch, _ = agent.predict(np.array(["a\n", "b\n"]))
    assert batch.shape == (2,)
    assert all(isinstance(line, str) and "\n" not in line for line in batch)


def test_another_environment_can_be_set(make_agent, toy):
    agent = make_agent()
    env = RewardWrapper(toy.env(), "pass_fail")
    agent.set_env(env)
    assert agent.get_env().envs == [env]
    assert agent.scheme is env.scheme


def test_a_foreign_environment_is_refused(make_agent):
    with pytest.raises(TypeError, match="needs CodeGen-v0"):
        make_agent(env=gym.make("CartPole-v1"))


@pytest.mark.parametrize(
    ("wrapper", "actions"), [(TokenActions, r"Discrete\(257\)"), (ProgramActions, "is_source=True")]
)
def test_actions_that_are_not_lines_are_refused(make_agent, toy, wrapper, actions):
    with pytest.raises(
        TypeError, match=rf"needs the action space CodeSpace\(one_line=True\), got .*{actions}"
    ):
        make_agent(env=wrapper(toy.env()))


def test_a_model_without_its_tokenizer_is_refused(make_agent):
    with pytest.raises(ValueError, match="pass tokenizer="):
        make_agent(tokenizer=None)


# --- settings ---


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("n_iterations", 0, "at least 1, got 0"),
        ("learning_rate", 0.0, "must be positive, got 0.0"),
        ("temperature", math.nan, "must be positive, got nan"),
        ("kl_coef", -0.1, "must not be negative, got -0.1"),
        ("gae_lambda", 1.5, r"in \[0, 1\], got 1.5"),
        ("clip_range", 2, r"clip_range must be in \(0, 1\), got 2"),
        ("samples_per_task", 7, "multiple of samples_per_task, got 128 and 7"),
    ],
)
def test_a_bad_setting_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        PSGPOConfig(**{field: value})


def test_an_unknown_setting_is_an_error():
    with pytest.raises(TypeError, match="learnin_rate"):
        PSGPOConfig(learnin_rate=1.0)


def test_learning_rates_rise_and_decay():
    config = PSGPOConfig(
        learning_rate=1.0, critic_learning_rate=2.0, warmup_iterations=4, critic_only_iterations=2
    )
    rates = [config.learning_rates(iteration, 0.0)[0] for iteration in range(8)]
    assert rates == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert config.learning_rates(20, 0.5) == pytest.approx((0.6, 1.2))
    assert config.learning_rates(26, 1.0) == pytest.approx((0.2, 0.4))
    assert config.learning_rates(26, 7.0) == pytest.approx((0.2, 0.4))
    assert replace(config, warmup_iterations=0).learning_rates(2, 0.0) == (1.0, 2.0)


# --- checkpoints ---


def test_stopping_saving_and_going_on_is_never_having_stopped(make_agent, toy, tmp_path):
    config = replace(CONFIG, n_iterations=6, refresh_every=4)
    straight = make_agent(config, refresh=CountingRefresh()).learn()
    stopped = make_agent(config, refresh=CountingRefresh()).learn(callback=Recorder(stop_after=3))
    stopped.save(tmp_path / "agent")
    resumed = PSGPO.load(tmp_path / "agent", toy.env(), refresh=CountingRefresh(), device="cpu")
    assert (resumed.iteration, resumed.num_timesteps) == (stopped.iteration, stopped.num_timesteps)
    assert resumed.config == config
    resumed.learn()
    assert digest(resumed) == digest(straight)
    assert resumed.num_timesteps == straight.num_timesteps
    assert resumed.refresh.hook.seen == straight.refresh.hook.seen
    assert resumed.refresh.waiting == straight.refresh.waiting


def scheduled():
    """The pay per line falls from all to nothing over three iterations."""
    n_programs = 3 * CONFIG.rollouts_per_iteration
    return ProcessReward.from_scorer(
        ScriptedScorer(odd_lines), gate="schedule", schedule=(1.0, 0.0, n_programs)
    )


def test_a_scheduled_reward_moves_on_with_the_programs_paid_and_after_a_resume(make_agent, toy, tmp_path):
    def paid(agent):
        rollout = agent.collect(PhaseTimer())
        agent.iterate(0.0)
        return [credit.tolist() for credit in agent.scheme.credit(rollout.episodes)], rollout.episodes

    agent = make_agent(env=RewardWrapper(toy.env(), scheduled()))
    for n_paid in (0, 16):
        credits, episodes = paid(agent)
        assert agent.scheme.n_programs == n_paid
        assert credits == [credit.tolist() for credit in scheduled().after(n_paid).credit(episodes)]
    agent.save(tmp_path / "agent")
    resumed = PSGPO.load(tmp_path / "agent", RewardWrapper(toy.env(), scheduled()), device="cpu")
    for each in (agent, resumed):
        each.iterate(0.0)
        assert each.scheme.n_programs == 32
    assert digest(resumed) == digest(agent)
    unscheduled = ProcessReward.from_scorer(ScriptedScorer(odd_lines))
    resumed.set_env(RewardWrapper(toy.env(), unscheduled))
    resumed.iterate(0.0)
    assert resumed.scheme is unscheduled


def test_going_on_keeps_a_prm_initialised_critic(make_agent, toy, tmp_path):
    prm = ProcessRewardModel.from_backbone(toy.model(seed=4), toy.tokenizer())
    agent = make_agent(replace(CONFIG, critic_init="prm"), prm=prm)
    agent.iterate(0.0)
    agent.save(tmp_path / "agent")
    loaded = PSGPO.load(tmp_path / "agent", toy.env(), device="cpu")
    assert digest(loaded) == digest(agent)
    assert loaded.config.critic_init == "prm"
    assert "critic/calibration_slope" not in loaded.iterate(0.1)


def test_the_saved_policy_is_a_hugging_face_folder(make_agent, toy, tmp_path):
    agent = make_agent().learn(callback=Recorder(stop_after=2))
    agent.save(tmp_path / "agent")
    again = PSGPO(tmp_path / "agent" / "policy", toy.env(), CONFIG, device="cpu")
    assert digest_of(again.policy) == digest_of(agent.policy)
    assert not list((tmp_path / "agent").rglob("*.bin"))
    assert not list((tmp_path / "agent").rglob("*.pt"))


def test_saving_twice_replaces(make_agent, toy, tmp_path):
    agent = make_agent()
    agent.save(tmp_path / "agent")
    agent.iterate(0.0)
    agent.save(tmp_path / "agent")
    assert PSGPO.load(tmp_path / "agent", toy.env(), device="cpu").iteration == 1
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]


def test_a_folder_that_is_no_checkpoint_is_refused(toy, tmp_path):
    with pytest.raises(ValueError, match=r"has no state\.json"):
        PSGPO.load(tmp_path, toy.env())
    (tmp_path / "state.json").write_text('{"version": 99}')
    with pytest.raises(ValueError, match="expected version 1, got 99"):
        PSGPO.load(tmp_path, toy.env())


def test_the_same_seed_gives_the_same_run_and_another_one_another(make_agent):
    config = replace(CONFIG, n_iterations=2)
    runs = [digest(make_agent(config, seed=seed).learn()) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_the_refresh_hook_sees_every_program_once(make_agent):
    hook = CountingRefresh()
    make_agent(replace(CONFIG, n_iterations=5, refresh_every=2), refresh=hook).learn()
    assert len(hook.seen) == len(set(hook.seen)) == 4 * 16
    assert hook.seen[0] == "psgpo/iteration-1/0"


# --- learning ---

LEARNING = PSGPOConfig(
    n_iterations=40,
    rollouts_per_iteration=256,
    max_new_tokens=5,
    n_minibatches=4,
    learning_rate=5e-3,
    critic_learning_rate=5e-3,
    kl_coef=0.0,
)


@pytest.mark.slow
@pytest.mark.parametrize("critic_init", ["scratch", "policy", "prm"])
def test_it_learns_from_dense_rewards_with_every_critic(make_agent, toy, critic_init):
    scheme = ProcessReward.from_scorer(ScriptedScorer(right_prefix))
    prm = ProcessRewardModel.from_backbone(toy.model(seed=4), toy.tokenizer())
    agent = make_agent(
        replace(LEARNING, critic_init=critic_init), prm=prm, env=RewardWrapper(toy.env(), scheme)
    )
    agent.learn()
    assert agent.iterate(1.0)["rollout/success_rate"] > 0.7


# --- kill -9 ---

CHILD = """
import importlib.util, sys
from types import SimpleNamespace
import torch
torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("toy", sys.argv[1])
toy = importlib.util.module_from_spec(spec); spec.loader.exec_module(toy)
from pathlib import Path
from agents.psgpo import PSGPO, PSGPOConfig
from agents.checkpoint import settle
from stable_baselines3.common.callbacks import ConvertCallback, EveryNTimesteps
folder = Path(sys.argv[2]); settle(folder)
config = PSGPOConfig(n_iterations=25, rollouts_per_iteration=32, max_new_tokens=5, critic_only_iterations=1,
                     warmup_iterations=1, learning_rate=3e-3)
if folder.exists():
    agent = PSGPO.load(folder, toy.make_env(), device="cpu")
else:
    agent = PSGPO(toy.make_model(), toy.make_env(), config, tokenizer=toy.make_tokenizer(), device="cpu")
agent.learn(callback=EveryNTimesteps(1, ConvertCallback(lambda *_: agent.save(folder) or True)))
"""


def train_in_a_child(folder, kill_after=None):
    toy = Path(__file__).with_name("conftest.py")
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(toy), str(folder)],
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
    )
    if kill_after is None:
        assert child.wait(timeout=240) == 0
        return True
    deadline = time.monotonic() + 120
    while not folder.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(kill_after)
    finished = child.poll() is not None
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=30)
    return finished


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bits(tmp_path, toy):
    train_in_a_child(tmp_path / "straight")
    kills = 0
    for delay in (0.03, 0.31, 0.17, 0.59, 0.08):
        kills += not train_in_a_child(tmp_path / "killed", kill_after=delay)
    train_in_a_child(tmp_path / "killed")
    assert kills >= 2
    one, other = (PSGPO.load(tmp_path / name, toy.env(), device="cpu") for name in ("straight", "killed"))
    assert one.iteration == other.iteration == 25
    assert digest(one) == digest(other)
