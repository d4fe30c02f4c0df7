"""Does a sampler's engine compute what training computes?"""

from dataclasses import dataclass
from typing import Any

from agents.rollout import RolloutBatch
from agents.update import token_logprobs


@dataclass(frozen=True, kw_only=True)
class LogprobGap:
    """How far a sampler's log-probabilities are from those of the training forward.

    Attributes:
        max: Largest difference of a token.
        mean: Mean absolute difference over tokens.
    """

    max: float
    mean: float


def logprob_gap(
    model: Any, batch: RolloutBatch, *, temperature: float = 1.0, max_tokens: int = 2048
) -> LogprobGap:
    """Compare what the sampler reported for its tokens with a forward pass over the same tokens.

    A gap makes the first ratio of an update differ from 1, although the policy has not moved.

    Args:
        model: The policy, with the weights that the tokens were drawn with.
        batch: What the sampler drew.
        temperature: That they were drawn at.
        max_tokens: Padded tokens per forward pass.

    Raises:
        ValueError: If nothing was drawn.
    """
    if not batch.n_tokens:
        raise ValueError("the batch holds no drawn token to compare")
    trained = token_logprobs(model, batch, temperature=temperature, max_tokens=max_tokens)
    gaps = (trained - batch.logprobs)[batch.mask].abs()
    return LogprobGap(max=float(gaps.max()), mean=float(gaps.mean()))
