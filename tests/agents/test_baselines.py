"""GRPO and RLOO: hand-computed advantages, the formulae of TRL, and what one iteration does with them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.baselines.group import (
    GRPO,
    RLOO,
    GRPOConfig,
    RLOOConfig,
    groups_without_signal,
    normalised_steps,
)
from agents.losses import group_advantages, leave_one_out_advantages
from agents.monitor import PhaseTimer
from codegym.rewards.process import ProcessReward
from codegym.rewards.wrapper import RewardWrapper
from codegym.testing import ScriptedScorer

SETTINGS = {
    "rollouts_per_iteration": 16,
    "samples_per_task": 4,
    "max_new_tokens": 5,
    "warmup_iterations": 0,
    "micro_batch_tokens": 64,
    "device": "cpu",
}


def everyone(scores):
    return torch.ones(scores.shape, dtype=torch.bool)


@pytest.fixture
def make(toy):
    def build(kind, env=None, reference=None, **options):
        options = {**SETTINGS, **options}
        env = env or RewardWrapper(toy.env(), odd())
        return kind(toy.model(), env, tokenizer=toy.tokenizer(), reference=reference, **options)

    return build


def odd():
    """Pay that even an untrained policy earns in different amounts."""
    return ProcessReward.from_scorer(ScriptedScorer(lambda e: [1.0 if len(x) % 2 else -1 for x in e.lines]))


# --- advantages by hand ---


def test_grpo_by_hand():
    # mean 1, squares 1 + 1 + 0, deviation sqrt(2 / 2) = 1; then mean 0.25, 3/16 * 4 / 2 ...
    scores = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]])
    advantages = group_advantages(scores, everyone(scores), scale=True)
    torch.testing.assert_close(advantages[0], torch.tensor([1.0, -1.0, 0.0]), atol=2e-4, rtol=0)
    # mean 1, squares 1 + 1 + 4 = 6, deviation sqrt(3)
    expected = torch.tensor([-1.0, -1.0, 2.0]) / 3**0.5
    torch.testing.assert_close(advantages[1], expected, atol=2e-4, rtol=0)


def test_dr_grpo_only_takes_the_mean_off():
    scores = torch.tensor([[2.0, 0.0, 1.0]])
    assert group_advantages(scores, everyone(scores), scale=False).tolist() == [[1.0, -1.0, 0.0]]


def test_rloo_by_hand():
    # 3 - (1 + 2) / 2, 1 - (3 + 2) / 2, 2 - (3 + 1) / 2
    scores = torch.tensor([[3.0, 1.0, 2.0]])
    assert leave_one_out_advantages(scores, everyone(scores)).tolist() == [[1.5, -1.5, 0.0]]


def test_a_group_that_agrees_teaches_nothing():
    scores = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    for advantages in (
        group_advantages(scores, everyone(scores), scale=True),
        group_advantages(scores, everyone(scores), scale=False),
        leave_one_out_advantages(scores, everyone(scores)),
    ):
        assert advantages[0].tolist() == [0, 0]
        assert advantages[1, 0] < 0 < advantages[1, 1]
    assert groups_without_signal(scores, everyone(scores)) == 0.5


def test_what_does_not_count_has_no_part_in_its_groups_statistics():
    scores = torch.tensor([[3.0, 1.0, 50.0], [5.0, 7.0, 9.0]])
    counted = torch.tensor([[True, True, False], [False, True, False]])
    assert leave_one_out_advantages(scores, counted).tolist() == [[2.0, -2.0, 0.0], [0.0, 0.0, 0.0]]
    assert group_advantages(scores, counted, scale=False).tolist() == [[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]
    assert torch.isfinite(group_advantages(scores, counted, scale=True)).all()


ROWS = st.lists(
    st.lists(st.floats(-10, 10, allow_nan=False, width=32), min_size=4, max_size=4), min_size=1, max_size=4
)


@settings(max_examples=100)
@given(ROWS)
def test_they_are_the_formulae_of_trl(rows):
    """As `GRPOTrainer` and `RLOOTrainer` of TRL 1.16 compute them from flat rewards."""
    scores = torch.tensor(rows, dtype=torch.float64)
    n = scores.shape[1]
    flat = scores.view(-1)
    mean = scores.mean(1).repeat_interleave(n)
    deviation = scores.std(1).repeat_interleave(n)
    grpo = (flat - mean) / (deviation + 1e-4)
    torch.testing.assert_close(group_advantages(scores, everyone(scores), scale=True).view(-1), grpo)
    baseline = (scores.sum(1, keepdim=True) - scores) / (n - 1)
    ours = leave_one_out_advantages(scores, everyone(scores))
    torch.testing.assert_close(ours, scores - baseline, atol=1e-9, rtol=1e-9)


@settings(max_examples=50)
@given(ROWS)
def test_rloo_is_dr_grpo_times_n_over_n_minus_1(rows):
    scores = torch.tensor(rows, dtype=torch.float64)
    one = leave_one_out_advantages(scores, everyone(scores))
    other = group_advantages(scores, everyone(scores), scale=False) * 4 / 3
    torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_process_rewards_by_hand():
    # one group: rewards 1, 0 and 2, of two programs; mean 1, deviation 1
    credits = [np.array([1.0, 0.0]), np.array([2.0])]
    first, second = normalised_steps(credits, torch.ones((1, 2), dtype=torch.bool), scale=True)
    np.testing.assert_allclose(first, [0, -1], atol=2e-4)
    np.testing.assert_allclose(second, [1], atol=2e-4)
    centred = normalised_steps(credits, torch.ones((1, 2), dtype=torch.bool), scale=False)
    np.testing.assert_allclose(np.concatenate(centred), [0, -1, 1])


def test_process_rewards_know_their_group():
    credits = [np.array([1.0]), np.array([3.0]), np.array([10.0, 20.0]), np.array([30.0])]
    steps = normalised_steps(credits, torch.ones((2, 2), dtype=torch.bool), scale=False)
    assert [step.tolist() for step in steps] == [[-1], [1], [-10, 0], [10]]


def test_process_rewards_of_a_program_that_does_not_count_are_none():
    credits = [np.array([1.0]), np.array([3.0]), np.array([100.0])]
    steps = normalised_steps(credits, torch.tensor([[True, True, False]]), scale=False)
    assert [step.tolist() for step in steps] == [[-1], [1], [0]]


# --- one iteration ---


def test_every_token_of_a_program_has_its_advantage(make):
    agent = make(GRPO)
    rollout = agent.collect(PhaseTimer())
    experience, metrics = agent.estimate(rollout)
    returns = rollout.batch.rewards.sum(1).view(4, 4)
    expected = group_advantages(returns, everyone(returns), scale=True).flatten()
    for row in range(len(rollout.batch)):
        inside = experience.advantages[row][rollout.batch.mask[row]]
        assert (inside == expected[row]).all()
        assert (experience.advantages[row][~rollout.batch.mask[row]] == 0).all()
    assert experience.values is None
    assert 0 <= metrics["train/groups_without_signal"] < 1
    # programs for one task stand together
    ids = [episode.task.task_id for episode in rollout.episodes]
    assert all(len(set(ids[i : i + 4])) == 1 for i in range(0, 16, 4))


def test_process_advantages_sum_the_lines_that_are_still_to_come(make):
    agent = make(GRPO, process_rewards=True, scale_rewards=False)
    rollout = agent.collect(PhaseTimer())
    advantages = agent.estimate(rollout)[0].advantages
    steps = normalised_steps(rollout.credits, torch.ones((4, 4), dtype=torch.bool), scale=False)
    for row, step in enumerate(steps):
        inside = advantages[row][rollout.batch.mask[row]]
        # the first token has all of them before it; each line's end lowers the sum by that line's
        assert inside[0] == pytest.approx(step.sum(), abs=1e-5)
        assert inside[-1] == pytest.approx(step[-1] if len(step) else 0.0, abs=1e-5)


def test_grpos_kl_is_in_the_loss_and_rloos_in_the_reward(make, toy):
    apart = toy.model(seed=5)
    for kind in (GRPO, RLOO):
        near, far = make(kind, reference=apart, kl_coef=1e-9), make(kind, reference=apart, kl_coef=0.5)
        rollout = near.collect(PhaseTimer())
        one, other = near.estimate(rollout)[0], far.estimate(rollout)[0]
        in_loss = one.reference_logprobs is not None
        assert in_loss == (kind is GRPO)
        assert torch.allclose(one.advantages, other.advantages, atol=1e-5) == in_loss
        metrics = far.iterate(0.0)
        assert ("train/kl_loss" in metrics) == in_loss
        assert metrics["train/kl_per_program"] > 0.01


def test_rloos_penalty_is_the_programs_whole_kl(make, toy):
    agent = make(RLOO, reference=toy.model(seed=5), kl_coef=0.5)
    rollout = agent.collect(PhaseTimer())
    _, kl, _ = agent.drift(rollout.batch)
    returns = (rollout.batch.rewards.sum(1) - 0.5 * kl.sum(1)).view(4, 4)
    expected = returns - (returns.sum(1, keepdim=True) - returns) / 3
    first = rollout.batch.mask.long().argmax(1)
    found = agent.estimate(rollout)[0].advantages[torch.arange(16), first]
    torch.testing.assert_close(found, expected.flatten(), atol=1e-5, rtol=1e-5)


def test_without_a_kl_coefficient_the_reference_is_not_asked(make, monkeypatch):
    agent = make(GRPO, kl_coef=0.0)
    monkeypatch.setattr(agent, "reference", None)
    metrics = agent.iterate(0.0)
    assert "train/kl_to_reference" not in metrics
    assert metrics["train/loss"] == pytest.approx(metrics["train/policy_gradient_loss"])


def test_truncated_programs_can_be_left_out(make):
    agent = make(GRPO, truncated_programs="mask", max_new_tokens=3)
    rollout = agent.collect(PhaseTimer())
    finished = torch.tensor([completion.finished for completion in rollout.completions])
    assert 0 < finished.sum() < 16
    experience, _ = agent.estimate(rollout)
    assert experience.policy_mask.any(1).tolist() == finished.tolist()
    assert (experience.advantages[~finished] == 0).all()


@pytest.mark.parametrize("kind", [GRPOConfig, RLOOConfig])
def test_a_group_needs_two_programs(kind):
    with pytest.raises(ValueError, match="samples_per_task must be at least 2, got 1"):
        kind(samples_per_task=1)
    assert replace(kind(), samples_per_task=2).samples_per_task == 2


def test_the_papers_defaults():
    assert (GRPOConfig().loss_mean, GRPOConfig().kl_coef, GRPOConfig().scale_rewards) == (
        "program",
        0.04,
        True,
    )
    assert (RLOOConfig().loss_mean, RLOOConfig().n_epochs) == ("limit", 1)


def test_programs_without_any_action_have_no_steps_to_normalise():
    steps = normalised_steps([np.zeros(0), np.zeros(0)], torch.ones((1, 2), dtype=torch.bool), scale=True)
    assert [step.shape for step in steps] == [(0,), (0,)]
