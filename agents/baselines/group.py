"""GRPO and RLOO: the other programs for the same task take the critic's place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.losses import gae, group_advantages, leave_one_out_advantages
from agents.policy_agent import PolicyAgent
from agents.policy_config import LossMean, PolicyConfig
from agents.rollout import Rollout, place_tokens
from agents.update import Experience


@dataclass(frozen=True, kw_only=True)
class GroupConfig(PolicyConfig):
    """How to train a policy whose programs are compared with others for the same task."""

    samples_per_task: int = 8  # the group's size

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples_per_task < 2:
            raise ValueError(
                f"programs are compared within a task: samples_per_task must be at least 2, "
                f"got {self.samples_per_task}"
            )


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(GroupConfig):
    """How to train with GRPO; Dr. GRPO is `scale_rewards=False, loss_mean="limit"`."""

    loss_mean: LossMean = "program"  # as in the paper: each program weighs the same, however long
    kl_coef: float = 0.04  # β: weight of the KL in the loss, as k3 whatever kl_estimator logs
    scale_rewards: bool = True  # divide by the group's standard deviation
    process_rewards: bool = False  # each line's pay in its group, summed to the end; else the programs' sums


@dataclass(frozen=True, kw_only=True)
class RLOOConfig(GroupConfig):
    """How to train with RLOO."""

    loss_mean: LossMean = "limit"  # a program's log-probability is one sum, divided by a constant


class GRPO(PolicyAgent):
    """Group relative policy optimization (arXiv:2402.03300); arguments as in `PolicyAgent`.

    The advantage of every token of a program is the program's return, normalised within its group (section
    4.1.2); with `process_rewards` that of a token is the sum of the normalised rewards of its line and of
    those that follow (section 4.1.3). The KL to the reference is part of the loss, not of the reward.
    """

    config: GRPOConfig
    config_type: ClassVar[type[GRPOConfig]] = GRPOConfig

    def estimate(self, rollout: Rollout) -> tuple[Experience, dict[str, float]]:
        """Turn returns, or every line's reward, into advantages within each group."""
        config, batch = self.config, rollout.batch
        reference, _, metrics = self.drift(batch)
        mask = self.policy_mask(rollout)
        returns, counted = by_task(batch.rewards.sum(1), config), by_task(mask.any(1), config)
        metrics["train/groups_without_signal"] = groups_without_signal(returns, counted)
        if config.process_rewards:
            steps = normalised_steps(rollout.credits, counted, scale=config.scale_rewards)
            rewards = place_tokens(rollout.completions, steps, self._newlines, batch)
            advantages, _ = gae(rewards, torch.zeros_like(rewards), mask, gamma=1.0, gae_lambda=1.0)
        else:
            relative = group_advantages(returns, counted, scale=config.scale_rewards)
            advantages = relative.flatten()[:, None] * mask
        experience = Experience(
            batch=batch, advantages=advantages, policy_mask=mask, reference_logprobs=reference
        )
        return experience, metrics


class RLOO(PolicyAgent):
    """REINFORCE leave-one-out (arXiv:2402.14740); arguments as in `PolicyAgent`.

    The advantage of every token of a program is the program's return, KL penalty included, minus the mean
    return of the others in its group.
    """

    config: RLOOConfig
    config_type: ClassVar[type[RLOOConfig]] = RLOOConfig

    def estimate(self, rollout: Rollout) -> tuple[Experience, dict[str, float]]:
        """Turn returns into advantages over the others of each group."""
        config, batch = self.config, rollout.batch
        _, kl, metrics = self.drift(batch)
        mask = self.policy_mask(rollout)
        counted = by_task(mask.any(1), config)
        paid = by_task(batch.rewards.sum(1), config)
        metrics["train/groups_without_signal"] = groups_without_signal(paid, counted)
        returns = by_task((batch.rewards - self.kl_coef * kl).sum(1), config)
        advantages = leave_one_out_advantages(returns, counted).flatten()[:, None] * mask
        return Experience(batch=batch, advantages=advantages, policy_mask=mask), metrics


def by_task(values: Tensor, config: PolicyConfig) -> Tensor:
    """One row per task. [B] to [B / samples_per_task, samples_per_task]."""
    return values.view(-1, config.samples_per_task)


def groups_without_signal(returns: Tensor, counted: Tensor) -> float:
    """Share of groups whose counted programs all earned the same: nothing is learnt there. [G, n] each."""
    spread = group_advantages(returns, counted, scale=False).abs().amax(1)
    return float((spread < 1e-6).float().mean())


def normalised_steps(
    credits: Sequence[NDArray[np.float64]], counted: Tensor, *, scale: bool
) -> list[NDArray[np.float64]]:
    """Every action's reward, normalised among all actions of its group (arXiv:2402.03300, section 4.1.3).

    Args:
        credits: One reward per action of each program. [n_actions] each
        counted: Programs that count; the actions of the others get 0. [G, n]
        scale: Whether to divide by the standard deviation.
    """
    lengths = [len(credit) for credit in credits]
    width = max(1, *lengths)  # special tokens alone are no action
    paid = torch.zeros((len(credits), width), dtype=torch.float64)
    taken = torch.zeros((len(credits), width), dtype=torch.bool)
    for row, credit in enumerate(credits):
        paid[row, : len(credit)] = torch.from_numpy(credit)
        taken[row, : len(credit)] = bool(counted.flatten()[row])
    group = counted.shape[1] * width
    relative = group_advantages(paid.view(-1, group), taken.view(-1, group), scale=scale)
    rows = relative.view(len(credits), width).numpy()
    return [rows[row, :length] for row, length in enumerate(lengths)]
