import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer

from agents.losses import (
    entropy,
    explained_variance,
    gae,
    kl_k1,
    kl_k3,
    masked_mean,
    masked_sum,
    policy_loss,
    value_loss,
    whiten,
)


def row(*numbers):
    return torch.tensor([numbers], dtype=torch.float64)


def everywhere(like):
    return torch.ones_like(like, dtype=torch.bool)


def test_gae_by_hand():
    rewards, values = row(0.0, 1.0, 2.0), row(0.5, 0.25, 1.0)
    advantages, returns = gae(rewards, values, everywhere(values), gamma=0.5, gae_lambda=0.5)
    # deltas from the right: 2 - 1 = 1;  1 + .5*1 - .25 = 1.25;  0 + .5*.25 - .5 = -.375
    # advantages: 1;  1.25 + .25*1 = 1.5;  -.375 + .25*1.5 = 0
    assert advantages.tolist() == [[0.0, 1.5, 1.0]]
    assert returns.tolist() == [[0.5, 1.75, 2.0]]


def test_lambda_one_gives_the_sum_of_what_follows_minus_the_value():
    rewards, values = row(1.0, -2.0, 5.0), row(0.3, 0.2, 0.1)
    advantages, returns = gae(rewards, values, everywhere(values), gamma=1.0, gae_lambda=1.0)
    assert torch.allclose(returns, row(4.0, 3.0, 5.0))
    assert torch.allclose(advantages, row(3.7, 2.8, 4.9))


def test_lambda_zero_trusts_the_next_value():
    rewards, values = row(1.0, 2.0), row(10.0, 20.0)
    advantages, _ = gae(rewards, values, everywhere(values), gamma=1.0, gae_lambda=0.0)
    assert advantages.tolist() == [[1.0 + 20.0 - 10.0, 2.0 - 20.0]]


def test_padding_neither_gives_nor_passes_on_credit():
    rewards, values = row(9.0, 1.0, 2.0, 7.0), row(9.0, 0.5, 0.25, 7.0)
    mask = torch.tensor([[False, True, True, False]])
    advantages, returns = gae(rewards, values, mask, gamma=0.9, gae_lambda=0.8)
    alone = gae(row(1.0, 2.0), row(0.5, 0.25), torch.ones(1, 2, dtype=torch.bool), gamma=0.9, gae_lambda=0.8)
    assert torch.equal(advantages[:, 1:3], alone[0])
    assert torch.equal(returns[:, 1:3], alone[1])
    assert advantages[0, [0, 3]].tolist() == returns[0, [0, 3]].tolist() == [0.0, 0.0]


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_gae_equals_stable_baselines(lengths, gamma, gae_lambda, seed):
    random = np.random.default_rng(seed)
    n_steps = sum(lengths)
    buffer = RolloutBuffer(
        n_steps, gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2), gae_lambda=gae_lambda, gamma=gamma
    )
    rows = torch.zeros(3, len(lengths), max(lengths), dtype=torch.float32)
    for i, length in enumerate(lengths):
        rows[0, i, :length] = torch.from_numpy(random.normal(size=length).astype(np.float32))
        rows[1, i, :length] = torch.from_numpy(random.normal(size=length).astype(np.float32))
        rows[2, i, :length] = 1
        for t in range(length):
            buffer.add(
                np.zeros((1, 1)),
                np.zeros((1, 1)),
                np.array([rows[0, i, t]]),
                np.array([t == 0]),
                rows[1, i, t : t + 1],
                torch.zeros(1),
            )
    buffer.compute_returns_and_advantage(last_values=torch.zeros(1), dones=np.array([True]))
    mask = rows[2].bool()
    advantages, returns = gae(rows[0], rows[1], mask, gamma=gamma, gae_lambda=gae_lambda)
    np.testing.assert_allclose(advantages[mask].numpy(), buffer.advantages.ravel(), atol=1e-5)
    np.testing.assert_allclose(returns[mask].numpy(), buffer.returns.ravel(), atol=1e-5)


def test_policy_loss_by_hand():
    old = torch.zeros(1, 4)
    new = torch.log(torch.tensor([[1.5, 1.5, 0.5, 0.5]]))
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    loss, clipped = policy_loss(new, old, advantages, clip_range=0.2)
    assert torch.allclose(loss, torch.tensor([[-1.2, 1.5, -0.5, 0.8]]))
    assert clipped.tolist() == [[1.0, 1.0, 1.0, 1.0]]


def test_policy_loss_at_ratio_one_is_the_policy_gradient():
    logprobs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    advantages = torch.tensor([[3.0, -0.5]])
    loss, clipped = policy_loss(logprobs, logprobs.detach(), advantages, clip_range=0.2)
    loss.sum().backward()
    assert torch.equal(loss.detach(), -advantages)
    assert torch.equal(logprobs.grad, -advantages)
    assert clipped.sum() == 0


def test_a_clipped_token_has_no_gradient():
    logprobs = torch.tensor([[math.log(1.5), math.log(0.5)]], requires_grad=True)
    loss, _ = policy_loss(logprobs, torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]), clip_range=0.2)
    loss.sum().backward()
    assert logprobs.grad.tolist() == [[0.0, 0.0]]


def test_value_loss_is_half_the_squared_error():
    assert value_loss(row(1.0, 3.0), row(0.0, 0.0), row(2.0, 1.0)).tolist() == [[0.5, 2.0]]


def test_clipped_value_loss_does_not_reward_leaping():
    values, old, returns = row(1.0, 0.1), row(0.0, 0.0), row(1.0, 1.0)
    loss = value_loss(values, old, returns, clip_range=0.2)
    # the first leapt onto the return: it is still charged as if it had gone 0.2; the second is inside
    assert torch.allclose(loss, row(0.5 * 0.8**2, 0.5 * 0.9**2))


def test_kl_estimators_by_hand():
    new, reference = torch.log(row(0.5, 0.2)), torch.log(row(0.25, 0.4))
    assert torch.allclose(kl_k1(new, reference), row(math.log(2), -math.log(2)))
    assert torch.allclose(kl_k3(new, reference), row(0.5 - 1 + math.log(2), 2 - 1 - math.log(2)))


def test_kl_estimators_agree_with_the_exact_kl_in_expectation():
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    exact = float((p * (p / q).log()).sum())
    for estimator in (kl_k1, kl_k3):
        assert float((p * estimator(p.log(), q.log())).sum()) == pytest.approx(exact, abs=1e-6)


@given(st.lists(st.floats(-5, 0), min_size=1, max_size=8), st.lists(st.floats(-5, 0), min_size=8, max_size=8))
def test_k3_is_never_negative(new, reference):
    values = kl_k3(row(*new), row(*reference[: len(new)]))
    assert (values >= -1e-12).all()


def test_whitening_has_mean_zero_and_variance_one_inside_the_mask():
    values = torch.tensor([[1.0, 5.0, 100.0], [3.0, -100.0, 7.0]])
    mask = torch.tensor([[True, True, False], [True, False, True]])
    white = whiten(values, mask)
    assert white[mask].mean() == pytest.approx(0, abs=1e-6)
    assert white[mask].std() == pytest.approx(1, abs=1e-6)
    assert white[~mask].tolist() == [0, 0]
    assert white[mask].argsort().tolist() == values[mask].argsort().tolist()


def test_whitening_equal_values_gives_zeros():
    assert whiten(row(2.0, 2.0, 2.0), everywhere(row(1.0, 1.0, 1.0))).tolist() == [[0, 0, 0]]


def test_whitening_a_single_token_gives_zero_not_nan():
    assert whiten(row(4.0, 1.0), torch.tensor([[True, False]])).tolist() == [[0, 0]]


def test_masked_reductions_ignore_even_what_is_not_finite():
    values, mask = row(1.0, float("nan"), 3.0, float("inf")), torch.tensor([[True, False, True, False]])
    assert masked_sum(values, mask) == 4
    assert masked_mean(values, mask) == 2
    assert masked_mean(values, torch.zeros_like(mask)) == 0


def test_entropy_of_known_distributions():
    logits = torch.stack([torch.zeros(8), torch.tensor([50.0, *[0.0] * 7])])
    assert torch.allclose(entropy(logits), torch.tensor([math.log(8), 0.0]), atol=1e-6)


def test_explained_variance_of_perfect_constant_and_wrong_critics():
    returns, mask = row(1.0, 2.0, 3.0), everywhere(row(1.0, 2.0, 3.0))
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(row(5.0, 5.0, 5.0), returns, mask) == pytest.approx(0)
    assert explained_variance(-returns, returns, mask) == pytest.approx(-3)


def test_explained_variance_without_variance_is_undefined():
    assert math.isnan(explained_variance(row(1.0, 2.0), row(3.0, 3.0), everywhere(row(1.0, 2.0))))
    assert math.isnan(explained_variance(row(1.0, 2.0), row(3.0, 4.0), torch.tensor([[True, False]])))


def test_shapes_that_differ_are_named():
    with pytest.raises(ValueError, match=r"rewards \(1, 2\), values \(1, 3\)"):
        gae(row(1.0, 2.0), row(1.0, 2.0, 3.0), everywhere(row(1.0, 2.0)), gamma=1.0, gae_lambda=1.0)
    with pytest.raises(ValueError, match="equal shapes"):
        policy_loss(row(1.0), row(1.0, 2.0), row(1.0), clip_range=0.2)
    with pytest.raises(ValueError, match="equal shapes"):
        kl_k3(row(1.0), row(1.0, 2.0))


@pytest.mark.parametrize("clip_range", [0, 1, 2, -0.1])
def test_a_clip_range_outside_its_interval_is_refused(clip_range):
    with pytest.raises(ValueError, match=f"clip_range must be in \\(0, 1\\), got {clip_range}"):
        policy_loss(row(1.0), row(1.0), row(1.0), clip_range=clip_range)


def test_a_discount_or_lambda_outside_its_interval_is_refused():
    one = row(1.0)
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], got 1.1"):
        gae(one, one, everywhere(one), gamma=1.1, gae_lambda=1.0)
    with pytest.raises(ValueError, match=r"gae_lambda must be in \[0, 1\], got -1"):
        gae(one, one, everywhere(one), gamma=1.0, gae_lambda=-1)
    with pytest.raises(ValueError, match="must be positive, got 0"):
        value_loss(one, one, one, clip_range=0)
