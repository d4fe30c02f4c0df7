"""Options of the policy's training: each changes what it says, and by default nothing."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from agents.critic import Critic
from agents.losses import adapted_kl_coef, kl_k1, kl_k3
from agents.monitor import PhaseTimer
from agents.policy_config import PolicyConfig
from agents.psgpo import PSGPO, PSGPOConfig
from agents.rollout import RolloutBatch
from agents.update import Experience, Learner, token_logprobs, update
from codegym.rewards.process import ProcessReward
from codegym.rewards.wrapper import RewardWrapper
from codegym.testing import ScriptedScorer
from prm.model import ProcessRewardModel

CONFIG = PSGPOConfig(
    n_iterations=4,
    rollouts_per_iteration=16,
    max_new_tokens=5,
    critic_only_iterations=0,
    warmup_iterations=0,
    micro_batch_tokens=64,
)


@pytest.fixture
def make(toy):
    def build(config=CONFIG, **options):
        odd = ScriptedScorer(lambda e: [1.0 if len(line) % 2 else -1.0 for line in e.lines])
        env = RewardWrapper(toy.env(), ProcessReward.from_scorer(odd))
        options = {"tokenizer": toy.tokenizer(), "device": "cpu", **options}
        return PSGPO(toy.model(), env, config, **options)

    return build


# --- adaptive KL ---


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.2),  # on target
        (6.6, 0.2 * 1.01),  # a tenth above: 1 + 0.1 * 0.1
        (3.0, 0.2 * 0.98),  # half, counted as a fifth: 1 - 0.1 * 0.2
        (600.0, 0.2 * 1.02),
        (-1.0, 0.2 * 0.98),
    ],
)
def test_the_kl_controller_by_hand(kl, expected):
    assert adapted_kl_coef(0.2, kl, target=6.0, rate=0.1) == pytest.approx(expected)


def test_the_kl_controller_finds_a_coefficient_that_holds_the_target():
    coefficient = 0.1
    for _ in range(2000):
        coefficient = adapted_kl_coef(coefficient, 3.0 / coefficient, target=10.0, rate=0.1)
    assert coefficient == pytest.approx(0.3, rel=1e-3)


def test_the_coefficient_moves_after_each_iteration_and_is_what_is_paid(make, toy):
    agent = make(replace(CONFIG, kl_coef=0.5, adaptive_kl_target=1.0), reference=toy.model(seed=3))
    expected = 0.5
    for _ in range(3):
        metrics = agent.iterate(0.0)
        assert metrics["train/kl_coef"] == expected
        expected = adapted_kl_coef(expected, metrics["train/kl_per_program"], target=1.0, rate=0.1)
    assert agent.kl_coef == expected != 0.5
    rollout = agent.collect(PhaseTimer())
    cheap = make(replace(CONFIG, kl_coef=0.0))
    cheap.critic, agent.critic = silent(cheap), silent(agent)
    returns = [each.estimate(rollout)[0].returns for each in (cheap, agent)]
    _, kl, _ = agent.drift(rollout.batch)
    first = rollout.batch.mask.long().argmax(1)
    paid = (returns[0] - returns[1])[torch.arange(16), first]
    torch.testing.assert_close(paid, expected * kl.sum(1), atol=1e-4, rtol=1e-4)


def silent(agent):
    return Critic.create("policy", agent.policy)


def test_without_a_target_the_coefficient_stays(make):
    agent = make()
    agent.iterate(0.0)
    assert agent.kl_coef == CONFIG.kl_coef


# --- k1 and k3 ---


@pytest.mark.parametrize(("name", "estimate"), [("k1", kl_k1), ("k3", kl_k3)])
def test_the_penalty_uses_the_estimator_that_was_asked_for(make, toy, name, estimate):
    agent = make(replace(CONFIG, kl_estimator=name), reference=toy.model(seed=3))
    batch = agent.collect(PhaseTimer()).batch
    reference, kl, metrics = agent.drift(batch)
    ours = token_logprobs(agent.reference, batch, temperature=1.0, max_tokens=64)
    torch.testing.assert_close(reference, ours)
    torch.testing.assert_close(kl, estimate(batch.logprobs, ours))
    assert metrics["train/kl_per_program"] == pytest.approx(float(kl.sum() / 16))
    assert bool((kl < -1e-6).any()) == (name == "k1")


# --- truncated programs ---


def test_masked_programs_teach_the_critic_alone(make):
    agent = make(replace(CONFIG, truncated_programs="mask", max_new_tokens=3))
    rollout = agent.collect(PhaseTimer())
    finished = torch.tensor([completion.finished for completion in rollout.completions])
    assert 0 < finished.sum() < 16
    experience, _ = agent.estimate(rollout)
    assert experience.policy_mask.any(1).tolist() == finished.tolist()
    assert experience.batch.mask.any(1).all()
    inside = experience.advantages[experience.policy_mask]
    assert inside.mean() == pytest.approx(0, abs=1e-5)
    assert (experience.advantages[~finished] == 0).all()
    assert (experience.returns[~finished] != 0).any()


def test_if_all_programs_are_masked_the_policy_does_not_move_and_the_critic_does(make):
    agent = make(replace(CONFIG, truncated_programs="mask", max_new_tokens=1))
    rollout = agent.collect(PhaseTimer())
    cut = replace(rollout, completions=[replace(c, finished=False) for c in rollout.completions])
    experience, _ = agent.estimate(cut)
    noise = torch.randn(cut.batch.rewards.shape, generator=torch.Generator().manual_seed(0))
    experience = replace(experience, returns=noise * cut.batch.mask)
    before = [
        parameter.clone() for parameter in (*agent.policy.parameters(), *agent.critic.head.parameters())
    ]
    metrics = agent.train(experience, 0.0)
    after = [*agent.policy.parameters(), *agent.critic.head.parameters()]
    same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert all(same[:-2])
    assert not all(same[-2:])
    assert "train/approx_kl" not in metrics
    assert np.isfinite(list(metrics.values())).all()


# --- the loss's mean ---


def gradient(toy, loss_mean, policy_mask=None):
    """Gradient of the policy at ratio 1, for advantages of one per token of two unequal programs."""
    policy = toy.model()
    ids = torch.tensor([[3, 2, 4, 5, 6, 0], [4, 2, 7, 0, 1, 1]])
    mask = torch.tensor([[False, False, True, True, True, True], [False, False, True, True, False, False]])
    batch = RolloutBatch(
        ids=ids,
        mask=mask,
        logprobs=torch.zeros(2, 6),
        rewards=torch.zeros(2, 6),
        prompt_lengths=torch.tensor([2, 2]),
        lengths=torch.tensor([6, 4]),
    )
    drawn = token_logprobs(policy, batch, temperature=1.0, max_tokens=64)
    experience = Experience(
        batch=replace(batch, logprobs=drawn), advantages=mask.float(), policy_mask=policy_mask
    )
    config = PolicyConfig(loss_mean=loss_mean, n_minibatches=1, max_new_tokens=8, max_grad_norm=1e9)
    before = torch.nn.utils.parameters_to_vector(policy.parameters()).detach().clone()
    learner = Learner(network=policy, optimizer=torch.optim.SGD(policy.parameters(), lr=1.0))
    update(learner, None, experience, config, seed=(0,))
    return torch.nn.utils.parameters_to_vector(policy.parameters()).detach() - before


def test_means_over_tokens_over_programs_and_over_the_limit_by_hand(toy):
    only = torch.zeros(2, 6, dtype=torch.bool)
    first, second = only.clone(), only.clone()
    first[0, 2:6] = second[1, 2:4] = True
    # gradients of each program's sum: 4 and 2 tokens, taken as means over tokens
    one, two = gradient(toy, "token", first) * 4, gradient(toy, "token", second) * 2
    for loss_mean, expected in (
        ("token", (one + two) / 6),
        ("program", (one / 4 + two / 2) / 2),
        ("limit", (one / 8 + two / 8) / 2),
    ):
        torch.testing.assert_close(gradient(toy, loss_mean), expected, atol=1e-6, rtol=1e-4)


def test_a_masked_program_is_not_counted_in_the_mean(toy):
    first = torch.zeros(2, 6, dtype=torch.bool)
    first[0, 2:6] = True
    token, program = gradient(toy, "token", first), gradient(toy, "program", first)
    torch.testing.assert_close(token, program, atol=1e-7, rtol=1e-5)


# --- whitening and what is logged about the critic ---


def test_advantages_can_be_left_as_they_are(make):
    whitened, plain = make(), make(replace(CONFIG, normalize_advantage=False))
    rollout = plain.collect(PhaseTimer())
    experience = plain.estimate(rollout)[0]
    # a critic that says 0, λ 1: the advantage is what is still to be paid
    torch.testing.assert_close(experience.advantages, experience.returns)
    assert whitened.estimate(rollout)[0].advantages[rollout.batch.mask].std() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("critic_init", ["scratch", "policy", "prm"])
def test_every_critics_fit_is_logged_before_the_policy_moves(make, toy, critic_init):
    prm = ProcessRewardModel.from_backbone(toy.model(seed=4), toy.tokenizer(), head="newline")
    agent = make(replace(CONFIG, critic_init=critic_init, critic_only_iterations=1), prm=prm)
    first, second, third = (agent.iterate(0.0) for _ in range(3))
    assert "critic/explained_variance_before" in first
    assert ("critic/explained_variance_after" in first) == (critic_init == "prm")
    if critic_init != "prm":
        assert first["critic/explained_variance_before"] == pytest.approx(0, abs=1e-6)
    # the second iteration is the first in which the policy moves, after this was measured
    assert second["critic/explained_variance_at_start"] == second["train/explained_variance"]
    assert "train/approx_kl" not in first
    assert "train/approx_kl" in second
    assert not [key for key in third if key.startswith("critic/")]


# --- the configuration ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kl_estimator": "k2"}, "unknown kl_estimator 'k2'.*choose from k1, k3"),
        ({"truncated_programs": "drop"}, "unknown truncated_programs 'drop'.*judge, mask"),
        ({"loss_mean": "sum"}, "unknown loss_mean 'sum'.*limit, program, token"),
        ({"adaptive_kl_target": 0.0}, "adaptive_kl_target must be positive, got 0.0"),
        ({"adaptive_kl_target": 6.0, "kl_coef": 0.0}, "needs a kl_coef to start from, got kl_coef 0"),
        ({"adaptive_kl_rate": -1.0}, "adaptive_kl_rate must be positive, got -1.0"),
        ({"learning_rate": float("inf")}, "learning_rate must be positive, got inf"),
        ({"clip_range_vf": 0.0}, "clip_range_vf must be positive, got 0.0"),
    ],
)
def test_a_bad_option_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        PSGPOConfig(**changes)


def test_names_that_stable_baselines_has_mean_the_same_here():
    ours = {field.name for field in fields(PSGPOConfig)}
    assert {
        "learning_rate", "n_epochs", "gamma", "gae_lambda", "clip_range", "clip_range_vf",
        "normalize_advantage", "ent_coef", "max_grad_norm", "target_kl",
    } <= ours  # fmt: skip


def test_a_critic_without_targets_is_an_error(toy):
    policy = toy.model()
    critic = Critic.create("policy", policy)
    mask = torch.tensor([[False, True, True]])
    batch = RolloutBatch(
        ids=torch.tensor([[3, 2, 0]]),
        mask=mask,
        logprobs=torch.zeros(1, 3),
        rewards=torch.zeros(1, 3),
        prompt_lengths=torch.tensor([1]),
        lengths=torch.tensor([3]),
    )
    experience = Experience(batch=batch, advantages=mask.float())
    with pytest.raises(ValueError, match="the experience has none"):
        update(Learner.of(policy), Learner.of(critic), experience, PolicyConfig(), seed=(0,))
