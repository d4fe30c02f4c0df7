"""Which weights of a reward model train, and in which arithmetic."""

from pathlib import Path
from typing import Any

import torch

from prm.config import PRMConfig
from prm.lora import add_adapter
from prm.model import ProcessRewardModel


def trainable_model(
    backbone: str | Path | Any, tokenizer: Any, config: PRMConfig, device: torch.device | str
) -> ProcessRewardModel:
    """A reward model on `backbone`, ready to be trained as `config` asks; what trains is float32.

    With `dtype="bfloat16"` a frozen backbone is kept in bfloat16. One that trains is kept in float32, because
    small steps on bfloat16 weights are rounded away, and computes in bfloat16.

    Args:
        backbone: A folder or hub name of a causal language model, or such a model, which is copied.
        tokenizer: The tokenizer that wrote the programs; read from the folder if None.
        config: How to train.
        device: Where to train.

    Raises:
        MissingExtraError: If an adapter is asked for and peft is not installed.
        ValueError: If the backbone cannot recompute activations and is asked to.
    """
    dtype = getattr(torch, config.dtype)
    model = ProcessRewardModel.from_backbone(
        backbone,
        tokenizer,
        head=config.head,
        dtype=dtype if config.backbone_is_frozen else torch.float32,
        device=device,
    )
    if dtype != torch.float32 and not config.backbone_is_frozen:
        model.autocast_dtype = dtype
    if config.lora is not None:
        add_adapter(model.backbone, config.lora, seed=config.seed)
    elif config.train == "head":
        model.backbone.requires_grad_(False)
    if config.gradient_checkpointing:
        recompute_activations(model.backbone)
    return model


def recompute_activations(backbone: Any) -> None:
    """Let `backbone` keep few activations for the backward pass and compute the others again.

    Raises:
        ValueError: If it cannot.
    """
    if not getattr(backbone, "supports_gradient_checkpointing", False):
        raise ValueError(f"{type(backbone).__name__} cannot recompute its activations")
    # the library is changing the name: the new one where it is there, since the old one warns
    enable = getattr(backbone, "activation_checkpointing_enable", None)
    (enable or backbone.gradient_checkpointing_enable)()


def finish_training(model: ProcessRewardModel) -> None:
    """Make the model what `ProcessRewardModel.from_pretrained` gives back: plain, in float32."""
    model.merge_adapter()
    model.float().eval()
    model.autocast_dtype = None
