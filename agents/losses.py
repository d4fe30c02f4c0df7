"""The arithmetic of PPO over padded token sequences: pure functions, shapes checked.

Every tensor has one entry per token, [B, T]: B sequences, T tokens. A mask is True on the tokens that the
policy wrote, a contiguous run in each row; everything else neither gives nor receives anything.
"""

import torch
from torch import Tensor


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates (arXiv:1506.02438, equation 16); nothing follows the last token.

    The critic may use another λ than the actor: call it twice.

    Args:
        rewards: Reward for the token at t. [B, T]
        values: Critic's estimate of the state before that token. [B, T]
        mask: True on response tokens. [B, T]
        gamma: Discount per token.
        gae_lambda: 1 sums the rewards to the end, 0 trusts the next value.

    Returns:
        Advantages (not whitened) and returns, zero where `mask` is False. [B, T] each.

    Raises:
        ValueError: If shapes differ, or `gamma` or `gae_lambda` is outside [0, 1].
    """
    _same_shape(rewards=rewards, values=values, mask=mask)
    for name, number in (("gamma", gamma), ("gae_lambda", gae_lambda)):
        if not 0 <= number <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {number}")
    present = mask.to(values.dtype)
    advantages = torch.zeros_like(values)
    following = torch.zeros_like(values[:, 0])  # advantage of the next token
    next_value = torch.zeros_like(following)
    for t in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = (delta + gamma * gae_lambda * following) * present[:, t]
        next_value = values[:, t] * present[:, t]
        advantages[:, t] = following
    return advantages, (advantages + values) * present


def whiten(values: Tensor, mask: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """Shift and scale to mean 0 and variance 1 over the masked entries; zero elsewhere. [B, T].

    With fewer than two entries there is no scale: they become 0.
    """
    _same_shape(values=values, mask=mask)
    chosen = values[mask]
    if chosen.numel() < 2:
        return torch.zeros_like(values)
    scaled = (values - chosen.mean()) / (chosen.std() + epsilon)
    return torch.where(mask, scaled, 0.0)


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over the masked entries; what stands elsewhere does not matter, not even if it is not finite."""
    _same_shape(values=values, mask=mask)
    return torch.where(mask, values, 0.0).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the masked entries; 0 if there are none."""
    return masked_sum(values, mask) / mask.sum().clamp(min=1)


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_range: float
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate (arXiv:1707.06347, equation 7), negated, per token.

    Args:
        logprobs: Log-probability of each token now. [B, T]
        old_logprobs: The same when the token was drawn. [B, T]
        advantages: [B, T]
        clip_range: ε of the paper.

    Returns:
        Loss per token, and 1 where the ratio left [1 - ε, 1 + ε]. [B, T] each.

    Raises:
        ValueError: If shapes differ or `clip_range` is not in (0, 1).
    """
    _same_shape(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    if not 0 < clip_range < 1:
        raise ValueError(f"clip_range must be in (0, 1), got {clip_range}")
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    return loss, ((ratio - 1).abs() > clip_range).to(loss.dtype)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, *, clip_range: float | None = None
) -> Tensor:
    """Half the squared error of the critic, per token. [B, T].

    Args:
        values: The critic's estimates now. [B, T]
        old_values: The same when the rollout was made. [B, T]
        returns: What they should be. [B, T]
        clip_range: If given, moving further than this from `old_values` does not lower the loss.

    Raises:
        ValueError: If shapes differ or `clip_range` is not positive.
    """
    _same_shape(values=values, old_values=old_values, returns=returns)
    loss = 0.5 * (values - returns).square()
    if clip_range is None:
        return loss
    if not clip_range > 0:
        raise ValueError(f"the value function's clip_range must be positive, got {clip_range}")
    near = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return torch.maximum(loss, 0.5 * (near - returns).square())


def kl_k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) from the policy's own tokens: unbiased, may be negative. [B, T]."""
    _same_shape(logprobs=logprobs, reference_logprobs=reference_logprobs)
    return logprobs - reference_logprobs


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) that is never negative and varies less than `kl_k1`. [B, T]."""
    _same_shape(logprobs=logprobs, reference_logprobs=reference_logprobs)
    gap = reference_logprobs - logprobs
    return gap.exp() - 1 - gap


def adapted_kl_coef(kl_coef: float, kl: float, *, target: float, rate: float) -> float:
    """The KL coefficient after a rollout whose KL was `kl` (arXiv:1909.08593, section 2.2).

    A controller in proportion to the relative error, which counts up to 20 % either way.

    Args:
        kl_coef: β before.
        kl: Measured, nats per program.
        target: What it should be.
        rate: K_β of the paper.
    """
    error = min(max((kl - target) / target, -0.2), 0.2)
    return kl_coef * (1.0 + rate * error)


def group_advantages(scores: Tensor, counted: Tensor, *, scale: bool) -> Tensor:
    """How much better than its group each program did (GRPO, arXiv:2402.03300, section 4.1.2).

    Args:
        scores: One return per program, or one reward per step. [G, n]: G groups of n
        counted: False leaves an entry out of its group's statistics; it gets 0. [G, n]
        scale: Whether to divide by the group's standard deviation; Dr. GRPO (arXiv:2503.20783) does not.

    Returns:
        Zero in groups of fewer than two, and where all are equal. [G, n]
    """
    centred, n = _centred(scores, counted)
    if not scale:
        return centred
    deviation = (centred.square().sum(1, keepdim=True) / (n - 1).clamp(min=1)).sqrt()
    return centred / (deviation + 1e-4)


def leave_one_out_advantages(scores: Tensor, counted: Tensor) -> Tensor:
    """Each program's return minus the mean of the others in its group (RLOO, arXiv:2402.14740, equation 8).

    Args:
        scores: One return per program. [G, n]: G groups of n
        counted: As in `group_advantages`. [G, n]
    """
    centred, n = _centred(scores, counted)
    return centred * n / (n - 1).clamp(min=1)


def _centred(scores: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the group's mean, 0 where not counted or alone; and each group's size, [G, 1]."""
    _same_shape(scores=scores, counted=counted)
    n = counted.sum(1, keepdim=True)
    total = torch.where(counted, scores, 0.0).sum(1, keepdim=True)
    return torch.where(counted & (n > 1), scores - total / n.clamp(min=1), 0.0), n


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the distribution over the last axis. [..., V] to [...]."""
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over the masked entries; NaN if the returns do not vary.

    1 is a perfect critic, 0 one that predicts a constant, less than 0 one that is worse than that.
    """
    _same_shape(values=values, returns=returns, mask=mask)
    if mask.sum() < 2:
        return float("nan")
    variance = returns[mask].double().var()
    if variance == 0:
        return float("nan")
    return float(1 - (returns - values)[mask].double().var() / variance)


def _same_shape(**tensors: Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"expected equal shapes, got {', '.join(f'{k} {v}' for k, v in shapes.items())}")
