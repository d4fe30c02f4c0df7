"""Samplers: who writes completions. Every one of them is a `prm.completion.Completer`."""

from typing import Any

from codegym.table import resolve
from prm.completion import Completer

SAMPLERS = {
    "transformers": "agents.samplers.transformers:TransformersSampler",
    "vllm": "agents.samplers.vllm:VLLMSampler",
}


def make_sampler(name: str, model: Any, tokenizer: Any, **options: Any) -> Completer:
    """Build a sampler by name.

    Args:
        name: An entry of `SAMPLERS`.
        model: What the sampler samples from: a loaded causal LM.
        tokenizer: The model's tokenizer.
        options: What the sampler's constructor documents.

    Raises:
        UnknownNameError: If `name` is not in `SAMPLERS`.
        MissingExtraError: If the sampler's package is not installed.
    """
    sampler: Completer = resolve(SAMPLERS, name, "sampler")(model, tokenizer, **options)
    return sampler
