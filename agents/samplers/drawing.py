"""Drawing tokens from logits with one uniform number per row."""

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 32
"""Vocabulary entries that are summed before one of them is looked for."""


def draw(logits: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Draw one token per row by inverting the cumulative distribution.

    One uniform number per row, not one per vocabulary entry: `torch.multinomial` costs more than a small
    model's whole forward pass. Running sums go over blocks of the vocabulary, then over one block.

    Args:
        logits: [B, V]
        uniforms: Numbers in [0, 1), float64. [B]
        temperature: Divides the logits; 0 takes the likeliest token.

    Returns:
        Tokens [B] and their log-probabilities [B].
    """
    if temperature == 0:
        logprobs = logits.float().log_softmax(-1)
        tokens = logprobs.argmax(-1, keepdim=True)
        return tokens[:, 0], logprobs.gather(1, tokens)[:, 0]
    scaled = logits.float() if temperature == 1 else logits.float() / temperature
    probabilities = pad(scaled.softmax(-1), (0, -scaled.shape[1] % BLOCK))
    blocks = probabilities.view(len(logits), -1, BLOCK)
    block, fraction = _invert(blocks.sum(-1), uniforms[:, None])
    within = blocks[torch.arange(len(blocks), device=blocks.device), block[:, 0]]
    token, _ = _invert(within, fraction)
    return (block * BLOCK + token)[:, 0], within.gather(1, token).log()[:, 0]


def _invert(weights: Tensor, fractions: Tensor) -> tuple[Tensor, Tensor]:
    """Find where the running sum of `weights` passes a fraction of their total.

    Args:
        weights: Not negative, with a positive sum. [B, N]
        fractions: In [0, 1]. [B, 1]

    Returns:
        The index, whose weight is positive, and the fraction of it that is left. [B, 1] each.
    """
    sums = weights.cumsum(-1, dtype=torch.float64)
    total = sums[:, -1:]
    # A product rounded up to the total would pass by all weights, the last positive one too.
    target = torch.minimum(fractions * total, total.nextafter(torch.zeros_like(total)))
    index = torch.searchsorted(sums, target, right=True).clamp_(max=weights.shape[1] - 1)
    weight = weights.gather(1, index)
    before = sums.gather(1, index) - weight
    return index, ((target - before) / weight).clamp_(0, 1)
