"""Attention for decoding on a CPU, where each row adds one token to its cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "codegym_decode"


@contextmanager
def decoding_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, a CPU model that uses PyTorch's fused attention decodes with `attend_to_cache`.

    The fused kernel splits its work over blocks of queries; with one query per row there is nothing to split,
    and two batched matrix products take half of its time. Elsewhere the model is left as it is.
    """
    if model.device.type != "cpu" or model.config._attn_implementation != "sdpa":
        yield
        return
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


def attend_to_cache(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend from one token per row; longer queries go to PyTorch's fused attention.

    Args:
        module: The layer that asks.
        query: [B, heads, tokens, head size]
        key: [B, key heads, columns, head size]; heads are a multiple of key heads.
        value: Like `key`.
        attention_mask: What may be attended to; None: everything. Boolean. [B, 1, tokens, columns]
        dropout: Share of weights to drop.
        scaling: Factor of the scores; None: the inverse root of the head size.
        options: Those of transformers' attention functions.

    Returns:
        [B, tokens, heads, head size], and no weights.
    """
    batch, heads, tokens, size = query.shape
    if tokens != 1 or dropout or options.get("position_bias") is not None:
        fused: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return fused
    key_heads = key.shape[1]
    grouped = (query * (size**-0.5 if scaling is None else scaling)).view(batch, key_heads, -1, size)
    scores = torch.matmul(grouped, key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    return torch.matmul(scores.softmax(-1), value).view(batch, 1, heads, size), None


AttentionInterface.register(NAME, attend_to_cache)
AttentionMaskInterface.register(NAME, sdpa_mask)
