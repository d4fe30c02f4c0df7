"""Samplers: who writes completions. Every one of them is a `prm.completion.Completer`."""

from inspect import signature
from typing import Any

from codegym.table import check_name, resolve
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
        UnknownNameError: If `name` is not in `SAMPLERS`, or the sampler has no such option.
        MissingExtraError: If the sampler's package is not installed.
    """
    kind = resolve(SAMPLERS, name, "sampler")
    known = list(signature(kind).parameters)[2:]
    for option in options:
        check_name(option, known, f"option of sampler {name!r}")
    sampler: Completer = kind(model, tokenizer, **options)
    return sampler
