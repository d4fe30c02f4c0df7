"""Pairs of prompt and completion as batches of tokens: who shares a step, and what each token weighs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prm.batching import plan_batches

_BATCHES_PER_WINDOW = 16


@dataclass(frozen=True, kw_only=True)
class Example:
    """Tokens of prompt, completion and end-of-text together, and how many of them are prompt."""

    token_ids: NDArray[np.int64]
    n_prompt: int


def collate(batch: Sequence[Example], *, pad_id: int, prompt_weight: float) -> tuple[Tensor, Tensor]:
    """Token ids padded on the right [B, T], and the loss weight of each but the first [B, T - 1]."""
    longest = max(len(example.token_ids) for example in batch)
    input_ids = np.full((len(batch), longest), pad_id, dtype=np.int64)
    weights = np.zeros((len(batch), longest), dtype=np.float32)
    for row, example in enumerate(batch):
        input_ids[row, : len(example.token_ids)] = example.token_ids
        weights[row, : example.n_prompt] = prompt_weight
        weights[row, example.n_prompt : len(example.token_ids)] = 1
    return torch.from_numpy(input_ids), torch.from_numpy(weights[:, 1:])


def tokenize(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> list[Example]:
    """Tokenise all pairs, prompt and completion apart, so a prompt has the same tokens as when sampling.

    Raises:
        ValueError: If there are no pairs or the tokenizer has no end-of-text token.
    """
    if not pairs:
        raise ValueError("there are no pairs to train on")
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-text token, so completions could not end")
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    completions = tokenizer([completion for _, completion in pairs], add_special_tokens=False)["input_ids"]
    return [
        Example(
            token_ids=np.array([*prompt, *completion, tokenizer.eos_token_id], dtype=np.int64),
            n_prompt=len(prompt),
        )
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def check_lengths(examples: Sequence[Example], context: int | None) -> None:
    """Raise a ValueError that names the longest example if it does not fit the model's context."""
    longest = max(range(len(examples)), key=lambda index: len(examples[index].token_ids))
    n_tokens = len(examples[longest].token_ids)
    if context is not None and n_tokens > context:
        raise ValueError(f"pair {longest} has {n_tokens} tokens but the model's context is {context}")


def plan_steps(
    examples: Sequence[Example], *, batch_tokens: int, n_epochs: int, curriculum: float, seed: int
) -> list[list[int]]:
    """Which examples each step sees. Like lengths share a batch, but only among neighbours in training order.

    Args:
        examples: What to train on.
        batch_tokens: Padded tokens per step at most; a longer example has a step of its own.
        n_epochs: Passes over all examples.
        curriculum: In the first epoch, an example does not come before this share of the epoch times its
            length over the longest one: short examples come first.
        seed: Of the order.
    """
    lengths = np.array([len(example.token_ids) for example in examples])
    window = max(1, round(_BATCHES_PER_WINDOW * batch_tokens / lengths.mean()))
    batches: list[list[int]] = []
    for epoch in range(n_epochs):
        rng = np.random.default_rng([seed, epoch])
        moments = rng.random(len(examples))
        if epoch == 0:
            moments = np.maximum(moments, curriculum * lengths / lengths.max())
        # a stable sort would leave all examples of one length in the order in which they were given
        order = np.lexsort((rng.random(len(examples)), moments))
        for start in range(0, len(order), window):
            chosen = order[start : start + window]
            planned = plan_batches(lengths[chosen].tolist(), batch_tokens)
            batches += [chosen[planned[place]].tolist() for place in rng.permutation(len(planned))]
    return batches
