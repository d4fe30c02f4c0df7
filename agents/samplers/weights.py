"""A model's weights on their way to an engine that is not in this process."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prm.lora import active_name, merge_adapter


def weights_checksum(model: Any) -> tuple[int, ...]:
    """One number per tensor that tells whether training has changed it.

    PyTorch counts the changes of a tensor itself (`_version`), but not those of a fused optimizer nor those
    through `.data`. The bits are added up as integers modulo 2^64, which is exact on every device and takes
    as long as reading the weights once. What it cannot see is a change that leaves the sum as it was: values
    that trade places, or a chance of about 2^-64 per tensor.
    """
    return tuple(_sum_of_bits(weight) for weight in model.state_dict().values())


def export_weights(model: Any, folder: Path) -> None:
    """Write configuration and weights for an engine to load, and leave the model as it is.

    The active LoRA adapter is merged, in a copy. Tied weights are written once for each of their uses, for
    an engine that was told `tie_word_embeddings=False`.

    Args:
        model: A Hugging Face model.
        folder: Where the safetensors go; what an earlier call wrote is replaced.
    """
    adapter = active_name(model)
    if adapter is not None:
        # added in float32 and rounded once, to the type of the frozen weights
        model = merge_adapter(model, name=adapter).to(model.dtype)
    model.save_pretrained(folder, state_dict=_untied(model.state_dict()))


def _untied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    seen: set[int] = set()
    apart = {}
    for name, weight in state.items():
        apart[name] = weight.clone() if weight.data_ptr() in seen else weight
        seen.add(weight.data_ptr())
    return apart


def _sum_of_bits(weight: Tensor) -> int:
    flat = weight.detach().contiguous().flatten()
    n_bytes = flat.numel() * flat.element_size()
    whole_words = n_bytes % 8 == 0 and flat.storage_offset() * flat.element_size() % 8 == 0
    return int(flat.view(torch.int64 if whole_words else torch.uint8).sum())
