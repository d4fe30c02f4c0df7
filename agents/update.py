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

from agents import ranks
from agents.critic import Critic
from agents.losses import entropy, kl_k3, masked_sum, policy_loss, value_loss
from agents.policy_config import PolicyConfig
from agents.rollout import RolloutBatch
from prm.batching import plan_batches


@dataclass(frozen=True, kw_only=True)
class Experience:
    """A rollout with what the update needs to know about it. Tensors are [B, T], aligned to tokens.

    Attributes:
        batch: The rollout.
        advantages: The policy's; whatever baseline was taken off.
        policy_mask: Written tokens that the policy learns from; None: all of them.
        reference_logprobs: If given, the KL to them is part of the policy's loss.
        values: The critic's estimates when it was made; None where there is no critic.
        returns: The critic's targets; None where there is no critic.
    """

    batch: RolloutBatch
    advantages: Tensor
    policy_mask: Tensor | None = None
    reference_logprobs: Tensor | None = None
    values: Tensor | None = None
    returns: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A network with its optimizer."""

    network: nn.Module
    optimizer: Optimizer

    @classmethod
    def of(cls, network: nn.Module) -> "Learner":
        """The network with the optimizer that agents use."""
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        # fused: one pass over the weights, six times as fast at 135 M of them on a CPU
        return cls(network=network, optimizer=torch.optim.AdamW(parameters, weight_decay=0.0, fused=True))

    def set_learning_rate(self, rate: float) -> None:
        """Use this learning rate from now on."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def step(self, max_grad_norm: float) -> float:
        """Take one step along the accumulated gradient; return the gradient's norm before clipping."""
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        if ranks.size() > 1:
            for weight in weights:
                if weight.grad is None:  # this process had no row of the minibatch
                    weight.grad = torch.zeros_like(weight)
            ranks.add_up(weight.grad for weight in weights)
        norm = nn.utils.clip_grad_norm_(weights, max_grad_norm)
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
    """Split rows, or this process's share of them, into groups of like length.

    Yields:
        Rows [b], the first column that one of them wrote, and the column after their last token.
    """
    lengths = batch.lengths.tolist()
    rows = ranks.share_by_cost(rows, lengths.__getitem__)
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
    ranks.add_up([filled])
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
    critic: Learner | None,
    experience: Experience,
    config: PolicyConfig,
    *,
    move_policy: bool = True,
    kl_coef: float = 0.0,
    clip_range_vf: float | None = None,
    seed: Sequence[int],
) -> dict[str, float]:
    """Run PPO's epochs over one rollout.

    However the micro-batches were cut, a minibatch's gradient is that of one mean over all of it: by default
    every token weighs the same. The two networks share nothing: each has its own loss, gradient and
    optimizer.

    Args:
        policy: Learns from the clipped surrogate; its network stays in `eval` mode, without dropout.
        critic: Learns from the returns; None if the advantages came without one.
        experience: The rollout.
        config: The coefficients.
        move_policy: False updates the critic alone.
        kl_coef: Weight of the KL in the policy's loss, where the experience has the reference's numbers.
        clip_range_vf: Of the critic's move; None: not clipped.
        seed: Decides the minibatches.

    Returns:
        Metrics by SB3's names, without the prefix "train/". Those of the policy are missing if it did not
        move. `sampler_logprob_gap` is how far its log-probabilities were from the sampler's before its first
        step, where they should be the same: the mean over tokens and the largest.
    """
    batch, sums = experience.batch, _Sums()
    goal = _PolicyGoal(experience, config, kl_coef)
    random = np.random.default_rng(list(seed))
    for _ in range(config.n_epochs):
        for rows in np.array_split(random.permutation(len(batch)), config.n_minibatches):
            if not len(rows):
                continue
            places = torch.from_numpy(rows).to(batch.mask.device)
            n_tokens, unit = int(batch.mask[places].sum()), goal.unit(places)
            kl_before, n_before = sums.total("approx_kl"), sums.total("policy_tokens")
            for chosen, first, last in micro_batches(batch, rows.tolist(), config.micro_batch_tokens):
                part = _Part(experience, chosen, first, last)
                if move_policy and unit:
                    (goal.loss(policy.network, part, sums) / unit).backward()  # type: ignore[no-untyped-call]
                if critic is not None:
                    (_value_term(critic.network, part, clip_range_vf, sums) / n_tokens).backward()  # type: ignore[no-untyped-call]
            if critic is not None:
                sums.add(critic_grad_norm=critic.step(config.max_grad_norm), critic_steps=1)
            if move_policy and unit:
                seen = ranks.add_up_numbers(
                    {
                        "kl": sums.total("approx_kl") - kl_before,
                        "tokens": sums.total("policy_tokens") - n_before,
                    }
                )
                kl = seen["kl"] / max(seen["tokens"], 1.0)
                if config.target_kl is not None and kl > 1.5 * config.target_kl:
                    policy.optimizer.zero_grad(set_to_none=True)
                    move_policy = False
                else:
                    sums.add(policy_grad_norm=policy.step(config.max_grad_norm), policy_steps=1)
    return sums.means(config.ent_coef, kl_coef)


class _Part:
    """The columns of some rows, from the first written one on. Tensors are [b, t]."""

    def __init__(self, experience: Experience, rows: Tensor, first: int, last: int) -> None:
        self.rows, self.first, self._last = rows, first, last
        self.ids = experience.batch.ids[rows, :last]
        self.tokens = self.ids[:, first:]
        self.mask = self.cut(experience.batch.mask)
        self.logprobs = self.cut(experience.batch.logprobs)
        self.experience = experience

    def cut(self, tensor: Tensor) -> Tensor:
        """These rows' columns of a [B, T] tensor."""
        return tensor[self.rows, self.first : self._last]


class _Sums:
    """Sums over tokens and steps, and the means that are logged."""

    def __init__(self) -> None:
        self._totals: dict[str, float] = {}
        self._largest: dict[str, float] = {}

    def add(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self._totals[name] = self.total(name) + amount

    def top(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self._largest[name] = max(amount, self._largest.get(name, amount))

    def total(self, name: str) -> float:
        return self._totals.get(name, 0.0)

    def means(self, ent_coef: float, kl_coef: float) -> dict[str, float]:
        units = {
            "policy_grad_norm": "policy_steps",
            "critic_grad_norm": "critic_steps",
            "value_loss": "value_tokens",
            "sampler_logprob_gap": "compared_tokens",
        }
        # steps and their norms are those of all processes already
        mine = {name: total for name, total in self._totals.items() if not name.endswith(("_norm", "_steps"))}
        totals = {**self._totals, **ranks.add_up_numbers(mine)}
        means = {
            name: total / max(totals[units.get(name, "policy_tokens")], 1.0)
            for name, total in totals.items()
            if not name.endswith(("_tokens", "_steps"))
        }
        if "policy_gradient_loss" in means:
            parts = means["policy_gradient_loss"], ent_coef * means["entropy_loss"]
            means["loss"] = sum(parts) + means.get("value_loss", 0.0) + kl_coef * means.get("kl_loss", 0.0)
        return means | ranks.largest_numbers(self._largest)


class _PolicyGoal:
    """The policy's loss, and what it is a mean over.

    Args:
        experience: The rollout.
        config: The coefficients.
        kl_coef: Weight of the KL, where the experience has the reference's numbers.
    """

    def __init__(self, experience: Experience, config: PolicyConfig, kl_coef: float) -> None:
        self.config, self.kl_coef = config, kl_coef
        mask = experience.policy_mask
        self.mask = experience.batch.mask if mask is None else mask
        n_tokens = self.mask.sum(1)
        self.weights: Tensor | None = None  # of each row's tokens; None: 1. [B, 1]
        if config.loss_mean == "program":
            self.weights = 1.0 / n_tokens.clamp(min=1)[:, None]
        elif config.loss_mean == "limit":
            self.weights = torch.full_like(n_tokens[:, None], 1.0 / config.max_new_tokens, dtype=torch.float)

    def unit(self, rows: Tensor) -> int:
        """What a minibatch's sum is divided by: its tokens, or its programs that have any."""
        n_tokens = self.mask[rows].sum(1)
        return int(n_tokens.sum() if self.weights is None else (n_tokens > 0).sum())

    def loss(self, policy: Any, part: _Part, sums: _Sums) -> Tensor:
        """Sum over the tokens of a micro-batch, weighted."""
        config, mask = self.config, part.cut(self.mask)
        logits = written_logits(policy, part.ids, part.first, config.temperature)
        logprobs = logprobs_of(logits, part.tokens)
        advantages = part.cut(part.experience.advantages)
        surrogate, clipped = policy_loss(logprobs, part.logprobs, advantages, clip_range=config.clip_range)
        loss = self._sum(surrogate, mask, part)
        spread = -logprobs  # the drawn tokens' surprise estimates the entropy at no cost
        if config.ent_coef:
            spread = entropy(logits)
            loss = loss - config.ent_coef * self._sum(spread, mask, part)
        if part.experience.reference_logprobs is not None and self.kl_coef:
            drift = kl_k3(logprobs, part.cut(part.experience.reference_logprobs))
            loss = loss + self.kl_coef * self._sum(drift, mask, part)
            sums.add(kl_loss=float(masked_sum(drift.detach(), mask)))
        with torch.no_grad():
            sums.add(
                policy_gradient_loss=float(masked_sum(surrogate, mask)),
                entropy_loss=-float(masked_sum(spread, mask)),
                approx_kl=float(masked_sum(kl_k3(part.logprobs, logprobs), mask)),
                clip_fraction=float(masked_sum(clipped, mask)),
                policy_tokens=float(mask.sum()),
            )
            if not sums.total("policy_steps"):
                _compare(logprobs, part, sums)
        return loss

    def _sum(self, values: Tensor, mask: Tensor, part: _Part) -> Tensor:
        return masked_sum(values if self.weights is None else values * self.weights[part.rows], mask)


def _compare(logprobs: Tensor, part: _Part, sums: _Sums) -> None:
    """Note how far a policy that has not moved is from what its sampler reported."""
    gaps = (logprobs - part.logprobs).abs().masked_fill(~part.mask, 0.0)
    sums.add(sampler_logprob_gap=float(gaps.sum()), compared_tokens=float(part.mask.sum()))
    sums.top(sampler_logprob_gap_max=float(gaps.max()))


def _value_term(critic: Any, part: _Part, clip_range_vf: float | None, sums: _Sums) -> Tensor:
    experience = part.experience
    if experience.values is None or experience.returns is None:
        raise ValueError("a critic learns from values and returns: the experience has none")
    values = critic.before_tokens(part.ids)[:, part.first :]
    old_values, returns = part.cut(experience.values), part.cut(experience.returns)
    loss = masked_sum(value_loss(values, old_values, returns, clip_range=clip_range_vf), part.mask)
    sums.add(value_loss=float(loss.detach()), value_tokens=float(part.mask.sum()))
    return loss
