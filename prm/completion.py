"""What a model writes after a prompt, and who writes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One sampled token sequence.

    Attributes:
        token_ids: The sampled tokens in order; ends with the end-of-text token if `finished`.
        logprobs: Log-probability of each token under the distribution it was drawn from.
        text: The tokens decoded, without the end-of-text token.
        finished: Whether the model ended the text itself; False if the token limit cut it.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finished: bool


class Completer(Protocol):
    """Continues prompts. Every sampler of `agents.samplers` is one; labelling needs no more than this."""

    @property
    def identity(self) -> str:
        """Names the model and its weights, for labels that say who completed them."""
        ...

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        n: int = 1,
        max_new_tokens: int,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[Completion]]:
        """Draw `n` completions of each prompt.

        Args:
            prompts: Token ids, at least one each.
            n: Completions per prompt.
            max_new_tokens: Limit; a completion that reaches it is not `finished`.
            temperature: Divides the logits; 0 takes the likeliest token.
            seed: Same prompts and seed, same draws.

        Returns:
            For each prompt its completions. Log-probabilities are those of the tempered distribution (of the
            untempered one at temperature 0).

        Raises:
            ValueError: If a prompt is empty or a number is out of range; names it.
        """
        ...
