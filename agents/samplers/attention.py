"""Attention for decoding, where each row adds one token to what its cache holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from agents.samplers.cache import SharedPrefixCache, has_full_attention

NAME = "codegym_decode"
_decoding: ContextVar[SharedPrefixCache | None] = ContextVar("decoding", default=None)
_n_blocks: WeakKeyDictionary[PreTrainedModel, int] = WeakKeyDictionary()
_counting = Lock()


def shares_prefixes(model: PreTrainedModel) -> bool:
    """Whether a model can decode with a `SharedPrefixCache`.

    It must call its attention through transformers' `AttentionInterface`, use PyTorch's fused attention, and
    attend to all earlier tokens in all layers.
    """
    return (
        bool(getattr(model, "_supports_attention_backend", False))
        and model.config._attn_implementation == "sdpa"
        and has_full_attention(model.config)
    )


@contextmanager
def decoding_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, a model that `shares_prefixes` asks `attend`; another is left as it is.

    Threads may decode with the same model: it gets its own attention back when the last of them is done.
    """
    with _counting:
        applies = is_decoding(model) or shares_prefixes(model)
        if applies:
            _n_blocks[model] = _n_blocks.get(model, 0) + 1
            model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        if applies:
            with _counting:
                _n_blocks[model] -= 1
                if not _n_blocks[model]:
                    model.set_attn_implementation("sdpa")


def is_decoding(model: PreTrainedModel) -> bool:
    """Whether the model is within a block of `decoding_attention` that applies to it."""
    return bool(model.config._attn_implementation == NAME)


@contextmanager
def attending_to(cache: SharedPrefixCache) -> Iterator[None]:
    """Within the block, and in this thread only, one token per row attends to what `cache` holds."""
    token = _decoding.set(cache)
    try:
        yield
    finally:
        _decoding.reset(token)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend to the cache of `attending_to`; outside of such a block, PyTorch's fused attention.

    Args:
        module: The layer that asks; its `layer_idx` says which of the cache's layers is meant.
        query: [B, heads, tokens, head size]
        key: [B, key heads, tokens, head size]; heads are a multiple of key heads.
        value: Like `key`.
        attention_mask: Only used outside of a block: the cache knows what a row may attend to.
        dropout: Share of weights to drop; likewise.
        scaling: Factor of the scores; None: the inverse root of the head size.
        options: Those of transformers' attention functions.

    Returns:
        [B, tokens, heads, head size], and no weights.

    Raises:
        NotImplementedError: If the layer adds a bias to its scores.
    """
    cache = _decoding.get()
    if cache is None:
        fused: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return fused
    if options.get("position_bias") is not None:
        raise NotImplementedError(
            f"{type(module).__name__} adds a position bias, which decoding leaves out; "
            'load the model with attn_implementation="eager" to sample without a shared cache'
        )
    batch, heads, _, size = query.shape
    grouped = (query * (size**-0.5 if scaling is None else scaling)).view(batch, key.shape[1], -1, size)
    layer: int = module.layer_idx  # type: ignore[assignment]  # every layer that caches has one
    return cache.attend(layer, grouped).reshape(batch, 1, heads, value.shape[3]), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
