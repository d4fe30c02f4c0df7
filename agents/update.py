"""One PPO update of policy and critic: minibatches, micro-batches of like length, exact token weights."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from agents.critic import Critic
from agents.losses import entropy, kl_k3, masked_sum, policy_loss, value_loss
from agents.psgpo_config import PSGPOConfig
from agents.rollout import RolloutBatch
from prm.batching import plan_batches


@dataclass(frozen=True, kw_only=True)
class Experience:
    """A rollout with what the update needs to know about it. Tensors are [B, T], aligned to tokens.

    Attributes:
        batch: The rollout.
        values: The critic's estimates when it was made.
        advantages: Whitened.
        returns: The critic's targets.
    """

    batch: RolloutBatch
    values: Tensor
    advantages: Tensor
    returns: Tensor


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A network with its optimizer."""

    network: nn.Module
    optimizer: Optimizer

    def set_learning_rate(self, rate: float) -> None:
        """Use this learning rate from now on."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def step(self, max_grad_norm: float) -> float:
        """Take one step along the accumulated gradient; return the gradient's norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)


def written_logits(model: Any, ids: Tensor, first: int, temperature: float) -> Tensor:
    """Logits of the tokens from index `first` on, tempered as they were when sampled. [B, T - first, V].

    Padding on the right needs no attention mask: attention is causal, nothing written looks at it.
    """
    kept = ids.shape[1] - first
    options = (
        {"logits_to_keep": kept} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    )
    logits: Tensor = model(input_ids=ids[:, :-1], use_cache=False, **options).logits
    return logits[:, -kept:].float() / temperature


def logprobs_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of each token under its logits. [B, T, V] and [B, T] to [B, T]."""
    losses = functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
    return -losses.view(tokens.shape)


def micro_batches(
    batch: RolloutBatch, rows: Sequence[int], max_tokens: int
) -> Iterator[tuple[Tensor, int, int]]:
    """Split rows into groups of like length.

    Yields:
        Rows [b], the first column that one of them wrote, and the column after their last token.
    """
    lengths = batch.lengths.tolist()
    for plan in plan_batches([lengths[row] for row in rows], max_tokens):
        chosen = torch.tensor([rows[place] for place in plan], device=batch.ids.device)
        yield chosen, int(batch.prompt_lengths[chosen].min()), int(batch.lengths[chosen].max())


@torch.no_grad()
def each_token(batch: RolloutBatch, max_tokens: int, compute: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Fill a [B, T] tensor from `compute(ids, first)`, micro-batch by micro-batch; 0 outside the mask.

    Args:
        batch: The rollout.
        max_tokens: Padded tokens per micro-batch.
        compute: Returns one number per token from column `first` on. [b, t] to [b, t - first].
    """
    filled = torch.zeros_like(batch.logprobs)
    for rows, first, last in micro_batches(batch, range(len(batch)), max_tokens):
        filled[rows, first:last] = compute(batch.ids[rows, :last], first)
    return filled.masked_fill(~batch.mask, 0.0)


def token_logprobs(model: Any, batch: RolloutBatch, *, temperature: float, max_tokens: int) -> Tensor:
    """Log-probability of every written token, without gradient. [B, T]."""
    return each_token(
        batch,
        max_tokens,
        lambda ids, first: logprobs_of(written_logits(model, ids, first, temperature), ids[:, first:]),
    )


def token_values(critic: Critic, batch: RolloutBatch, *, max_tokens: int) -> Tensor:
    """The critic's value of the state before every written token, without gradient. [B, T]."""
    return each_token(batch, max_tokens, lambda ids, first: critic.before_tokens(ids)[:, first:])


def update(
    policy: Learner,
    critic: Learner,
    experience: Experience,
    config: PSGPOConfig,
    *,
    move_policy: bool,
    seed: Sequence[int],
) -> dict[str, float]:
    """Run PPO's epochs over one rollout.

    Every token weighs the same within its minibatch, however the micro-batches were cut. The two networks
    share nothing: each has its own loss, gradient and optimizer.

    Args:
        policy: Learns from the clipped surrogate; its network stays in `eval` mode, without dropout.
        critic: Learns from the returns.
        experience: The rollout.
        config: The coefficients.
        move_policy: False updates the critic alone.
        seed: Decides the minibatches.

    Returns:
        Metrics by SB3's names, without the prefix "train/". Those of the policy are missing if it did not
        move.
    """
    batch, sums = experience.batch, _Sums()
    random = np.random.default_rng(list(seed))
    for _ in range(config.n_epochs):
        for rows in np.array_split(random.permutation(len(batch)), config.n_minibatches):
            if not len(rows):
                continue
            n_tokens = int(batch.mask[torch.from_numpy(rows)].sum())
            kl_before = sums.totals.get("approx_kl", 0.0)
            for chosen, first, last in micro_batches(batch, rows.tolist(), config.micro_batch_tokens):
                part = _Part(experience, chosen, first, last)
                if move_policy:
                    (_policy_term(policy.network, part, config, sums) / n_tokens).backward()  # type: ignore[no-untyped-call]
                (_value_term(critic.network, part, config, sums) / n_tokens).backward()  # type: ignore[no-untyped-call]
            sums.add(critic_grad_norm=critic.step(config.max_grad_norm), critic_steps=1)
            if move_policy:
                kl = (sums.totals["approx_kl"] - kl_before) / max(n_tokens, 1)
                if config.target_kl is not None and kl > 1.5 * config.target_kl:
                    policy.optimizer.zero_grad(set_to_none=True)
                    move_policy = False
                else:
                    sums.add(policy_grad_norm=policy.step(config.max_grad_norm), policy_steps=1)
    return sums.means(config.ent_coef)


class _Part:
    """The columns of some rows, from the first written one on. Tensors are [b, t]."""

    def __init__(self, experience: Experience, rows: Tensor, first: int, last: int) -> None:
        batch = experience.batch
        self.first = first
        self.ids = batch.ids[rows, :last]
        self.tokens = self.ids[:, first:]
        self.mask = batch.mask[rows, first:last]
        self.logprobs = batch.logprobs[rows, first:last]
        self.values = experience.values[rows, first:last]
        self.advantages = experience.advantages[rows, first:last]
        self.returns = experience.returns[rows, first:last]


class _Sums:
    """Sums over tokens and steps, and the means that are logged."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}

    def add(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self.totals[name] = self.totals.get(name, 0.0) + amount

    def means(self, ent_coef: float) -> dict[str, float]:
        units = {
            "policy_grad_norm": "policy_steps",
            "critic_grad_norm": "critic_steps",
            "value_loss": "value_tokens",
        }
        means = {
            name: total / max(self.totals[units.get(name, "policy_tokens")], 1.0)
            for name, total in self.totals.items()
            if not name.endswith(("_tokens", "_steps"))
        }
        if "policy_gradient_loss" in means:
            means["loss"] = (
                means["policy_gradient_loss"] + ent_coef * means["entropy_loss"] + means["value_loss"]
            )
        return means


def _policy_term(policy: Any, part: _Part, config: PSGPOConfig, sums: _Sums) -> Tensor:
    logits = written_logits(policy, part.ids, part.first, config.temperature)
    logprobs = logprobs_of(logits, part.tokens)
    surrogate, clipped = policy_loss(logprobs, part.logprobs, part.advantages, clip_range=config.clip_range)
    loss = masked_sum(surrogate, part.mask)
    if config.ent_coef:
        spread = masked_sum(entropy(logits), part.mask)
        loss = loss - config.ent_coef * spread
    else:
        spread = -masked_sum(logprobs, part.mask)  # the drawn tokens' surprise estimates it at no cost
    with torch.no_grad():
        sums.add(
            policy_gradient_loss=float(masked_sum(surrogate, part.mask)),
            entropy_loss=-float(spread),
            approx_kl=float(masked_sum(kl_k3(part.logprobs, logprobs), part.mask)),
            clip_fraction=float(masked_sum(clipped, part.mask)),
            policy_tokens=float(part.mask.sum()),
        )
    return loss


def _value_term(critic: Any, part: _Part, config: PSGPOConfig, sums: _Sums) -> Tensor:
    values = critic.before_tokens(part.ids)[:, part.first :]
    losses = value_loss(values, part.values, part.returns, clip_range=config.clip_range_vf)
    loss = masked_sum(losses, part.mask)
    sums.add(value_loss=float(loss.detach()), value_tokens=float(part.mask.sum()))
    return loss
