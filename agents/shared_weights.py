"""One frozen model under several networks: policy, reference, critic and reward model share its weights.

Each network has modules and an adapter of its own, so it is an ordinary Hugging Face model: nothing has to be
switched before one of them is used, and what one recomputes in its backward pass is its own. What the modules
hold, the frozen tensors, is stored once.
"""

import hashlib
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from prm.lora import load_adapter, merge_adapter

ADAPTER_CONFIG = "adapter_config.json"  # peft's name
BASE_LAYER = ".base_layer"  # what peft puts between the name of an adapted layer and its weight


def copy_trained(model: Any) -> Any:
    """A copy of `model`: of the weights that train, not of those that are frozen, which both then share."""
    return deepcopy(model, {id(weight): weight for weight in model.parameters() if not weight.requires_grad})


def copy_whole(model: Any) -> Any:
    """A copy that shares nothing, in float32, that trains as a whole; an adapter is merged into it."""
    names = adapter_names(model)
    copied = merge_adapter(model, name=names[0]) if names else deepcopy(model).float()
    return copied.requires_grad_(True)


def copy_backbone(model: Any) -> Any:
    """`copy_trained` of a causal LM without its vocabulary head, with the adapter that it has."""
    copied = copy_trained(model)
    backbone = copied.base_model
    if adapter_names(copied):  # noted on the outermost model alone, with module names as it knows them
        for shape in copied.peft_config.values():
            shape.target_modules = {
                name.removeprefix(f"{copied.base_model_prefix}.") for name in shape.target_modules
            }
        backbone.peft_config, backbone._hf_peft_config_loaded = copied.peft_config, True
    return backbone


def adapter_names(model: Any) -> list[str]:
    """Names of the adapters in a model; none for a plain one."""
    return list(getattr(model, "peft_config", {}))


def make_reference(policy: Any) -> Any:
    """The policy as it is now, frozen; of one with an adapter, the model without it, which costs nothing."""
    reference = copy_trained(policy)
    if adapter_names(reference):
        reference.disable_adapters()
    return reference.requires_grad_(False).eval()


def with_adapter(model: Any, folder: Path) -> Any:
    """The frozen weights of `model`, shared, under the adapter of a folder instead of its own."""
    other = copy_trained(model)
    for name in adapter_names(other):
        other.delete_adapter(name)
    return load_adapter(other, folder)


def rests_on(network: Any, source: Any) -> bool:
    """Whether a network is an adapter on weights that `source` has too."""
    theirs = {id(weight) for weight in source.parameters()}
    frozen = [weight for weight in network.parameters() if not weight.requires_grad]
    return bool(adapter_names(network)) and all(id(weight) in theirs for weight in frozen)


def frozen_digest(model: Any, *, n_values: int = 64) -> str:
    """A digest of a model's frozen weights that takes no time: their names, shapes and first values.

    An adapter on another model than the one it was trained on gives nonsense without an error.
    """
    sha = hashlib.sha256()
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            sha.update(f"{name.replace(BASE_LAYER, '')} {tuple(weight.shape)} {weight.dtype}".encode())
            first = weight.detach().flatten()[:n_values].cpu()
            sha.update(first.contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
