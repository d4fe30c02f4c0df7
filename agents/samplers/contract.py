"""What all samplers agree on: which requests they take, what ends a text, and what they hand back."""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prm.completion import Completer, Completion

OnFinished: TypeAlias = Callable[[Sequence[tuple[int, Completion]]], None]
"""Told of completions that are complete while others still are being written: each one's place, that of its
prompt times `n` plus that among the prompt's samples, and the completion as `sample` will return it. It may
be called from several threads, and need not be told of every completion."""


def tells_finished(sampler: Completer) -> bool:
    """Whether the sampler's `sample` takes an `on_finished` (`OnFinished`), which is optional."""
    return "on_finished" in inspect.signature(sampler.sample).parameters


def check_request(prompts: Sequence[Sequence[int]], n: int, max_new_tokens: int, temperature: float) -> None:
    """Raise `ValueError` if a prompt is empty or a number is out of range."""
    for position, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise ValueError(f"prompt {position} has no tokens")
    if n < 1 or max_new_tokens < 1:
        raise ValueError(
            f"n and max_new_tokens must be at least 1, got n={n}, max_new_tokens={max_new_tokens}"
        )
    if not temperature >= 0:
        raise ValueError(f"temperature must be 0 or more, got {temperature}")


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a text, sorted: the tokenizer's and all that the model's configuration names."""
    found = {tokenizer.eos_token_id}
    for config in (model.config, model.generation_config):
        tokens = getattr(config, "eos_token_id", None)
        found |= set(tokens if isinstance(tokens, list | tuple) else [tokens])
    ends = sorted(token for token in found if token is not None)
    if not ends:
        raise ValueError("neither the tokenizer nor the model names an end-of-text token (eos_token_id)")
    return ends


def make_completion(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], logprobs: Sequence[float], finished: bool
) -> Completion:
    """The completion of these tokens; the last of them is the end-of-text token if `finished`."""
    written = tokens[: len(tokens) - finished]
    text = tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Completion(token_ids=tuple(tokens), logprobs=tuple(logprobs), text=text, finished=finished)


def weights_identity(model: PreTrainedModel) -> str:
    """The model's class and a digest of its weights."""
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return f"{type(model).__name__}-{digest.hexdigest()[:12]}"
