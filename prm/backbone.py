"""Backbones: any Hugging Face causal language model without its vocabulary head, and without dropout."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer


def load_backbone(
    source: str | Path | Any, tokenizer: Any = None, *, dtype: torch.dtype = torch.float32
) -> tuple[Any, Any]:
    """Return a backbone of its own and its tokenizer.

    Args:
        source: A folder or hub name of a causal language model, or such a model, which is copied.
        tokenizer: The model's tokenizer; read from the folder if None.
        dtype: Of the weights.

    Raises:
        ValueError: If `source` is a model and no tokenizer is given, or the tokenizer has more tokens than
            the backbone embeds.
    """
    if isinstance(source, str | Path):
        backbone = AutoModel.from_pretrained(source, dtype=dtype)
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(source)
    elif tokenizer is None:
        raise ValueError("a model object needs its tokenizer: pass tokenizer=")
    else:
        backbone = copy.deepcopy(source.base_model).to(dtype)
    if len(tokenizer) > backbone.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, but the backbone embeds {backbone.config.vocab_size}"
        )
    return backbone, tokenizer


def without_dropout(backbone: Any) -> Any:
    """Switch dropout off in the configuration, so that it stays off when saved, and in every module."""
    for name, value in backbone.config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(backbone.config, name, 0.0)
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)  # attention layers keep their rate as a plain number
    return backbone


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of `model` that training moves, by name; weights that are tied appear once."""
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}


@torch.no_grad()
def load_trained_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put the values of `trained_weights` back, in place.

    Raises:
        ValueError: If they are not those of this model.
    """
    mine = trained_weights(model)
    odd = {name for name in mine.keys() & weights.keys() if mine[name].shape != weights[name].shape}
    if odd := odd | (mine.keys() ^ weights.keys()):
        raise ValueError(f"the weights are not of this model: {min(odd)!r} does not fit")
    for name, weight in mine.items():
        weight.copy_(weights[name])
