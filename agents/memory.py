"""How much memory a training run will need, before anything is loaded."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from stable_baselines3.common.utils import get_device
from transformers import AutoModelForCausalLM, PreTrainedConfig

from agents import ranks
from agents.policy_config import PolicyConfig
from agents.psgpo_config import PSGPOConfig
from codegym.errors import CodegymError
from prm.lora import LoRAConfig, add_adapter

GIB = 2**30
FLOAT32 = 4  # bytes; what trains, its gradient and its optimizer's moments are float32
FLOAT64 = 8
MOMENTS = 2  # numbers that AdamW keeps per weight
PROMPT_TOKENS = 512  # assumed where no tokenizer has been read yet
log = logging.getLogger(__name__)


class NotEnoughMemoryError(CodegymError):
    """A run that would need more memory than it may have."""


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """What the memory of a decoder-only transformer follows from.

    Attributes:
        n_weights: Of the causal LM.
        n_backbone: Of it without its vocabulary head.
        n_adapter: Of an adapter on it; 0 for none.
        n_layers: Transformer blocks.
        hidden: Width of the residual stream.
        kv_width: Width of one layer's keys, and of its values.
        intermediate: Width of the gated MLP.
        vocabulary: Tokens.
    """

    n_weights: int
    n_backbone: int
    n_adapter: int
    n_layers: int
    hidden: int
    kv_width: int
    intermediate: int
    vocabulary: int

    @classmethod
    def of(cls, config: PreTrainedConfig, lora: LoRAConfig | None = None) -> Self:
        """Measured on a model without storage."""
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
        n_weights, n_backbone = (sum(w.numel() for w in m.parameters()) for m in (model, model.base_model))
        if lora is not None:
            add_adapter(model, lora)
        heads = config.num_attention_heads
        head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(
            n_weights=n_weights,
            n_backbone=n_backbone,
            n_adapter=sum(w.numel() for w in model.parameters() if w.requires_grad) if lora else 0,
            n_layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            kv_width=head_size * (getattr(config, "num_key_value_heads", None) or heads),
            intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
            vocabulary=config.vocab_size,
        )


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes by what they hold. Sampling and updating take turns, so the larger of the two counts.

    Attributes:
        resident: What is there all the time.
        sampling: What sampling needs besides.
        updating: What a forward and backward pass needs besides.
    """

    resident: dict[str, int]
    sampling: dict[str, int]
    updating: dict[str, int]

    @property
    def peak(self) -> int:
        """Bytes at the worst moment, without the libraries' own."""
        return sum(self.resident.values()) + max(sum(self.sampling.values()), sum(self.updating.values()))

    def table(self) -> str:
        """One line per item, in GiB."""
        rows = [*self.resident.items(), *self.sampling.items(), *self.updating.items(), ("peak", self.peak)]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}} {size / GIB:9.2f} GiB" for name, size in rows)


def estimate_memory(
    size: ModelSize,
    config: PolicyConfig,
    *,
    prompt_tokens: int,
    batch_size: int = 256,
    prm: str | None = None,
) -> MemoryEstimate:
    """Add up what policy, reference, critic and reward model need.

    Args:
        size: Of the policy's model.
        config: How it is trained.
        prompt_tokens: Of the longest prompt.
        batch_size: Rows that the sampler decodes together.
        prm: "shared": an adapter on the policy's frozen weights; "whole": a model of the policy's size in
            float32; None: no reward model.
    """
    weight = torch.finfo(getattr(torch, config.dtype)).bits // 8
    resident, trained = _weights(size, config, weight, prm)
    resident["gradients"] = FLOAT32 * trained
    resident["optimizers"] = MOMENTS * FLOAT32 * trained
    rows = min(batch_size, config.rollouts_per_iteration)
    columns = prompt_tokens + config.max_new_tokens
    # logits, log-softmax and its exponential; that again and its running sum in float64
    per_logit = weight + 2 * FLOAT32 + 2 * FLOAT64
    sampling = {
        "sampling: keys and values": 2 * weight * rows * columns * size.n_layers * size.kv_width,
        "sampling: logits": per_logit * rows * size.vocabulary,
    }
    # at least one row is computed at once, however long
    tokens = max(config.micro_batch_tokens, columns)
    updating = {
        "update: activations": tokens * _activation_bytes(size, config, weight),
        # logits as computed, tempered, log-softmax; its gradient takes the place of what is done with
        "update: logits": tokens * size.vocabulary * (weight + 3 * FLOAT32),
    }
    return MemoryEstimate(resident=resident, sampling=sampling, updating=updating)


def _weights(
    size: ModelSize, config: PolicyConfig, weight: int, prm: str | None
) -> tuple[dict[str, int], int]:
    """Bytes of weights by role, and how many weights train."""
    has_critic = isinstance(config, PSGPOConfig)
    if config.lora is None:
        n_policy, n_critic = size.n_weights, size.n_backbone + size.hidden + 1
        roles = {"policy": FLOAT32 * n_policy, "reference": FLOAT32 * size.n_weights}
    else:
        n_policy, n_critic = size.n_adapter, size.n_adapter + size.hidden + 1
        if isinstance(config, PSGPOConfig) and config.critic_init == "scratch":
            n_critic = size.n_backbone + size.hidden + 1
        roles = {"frozen weights, shared": weight * size.n_weights, "policy": FLOAT32 * n_policy}
    if has_critic:
        roles["critic"] = FLOAT32 * n_critic
    if prm is not None:
        shared = prm == "shared" and config.lora is not None
        roles["reward model"] = FLOAT32 * (size.n_adapter if shared else size.n_backbone)
    return roles, n_policy + (n_critic if has_critic else 0)


def _activation_bytes(size: ModelSize, config: PolicyConfig, weight: int) -> int:
    """What one token leaves for the backward pass, in all layers.

    Per layer: each norm keeps its input in float32, what it normalised and its output; attention its queries,
    keys, values, and its output twice; the gated MLP four of its widths (after arXiv:2205.05198, section
    4.1, for gated MLPs, grouped queries and fused attention). Adapters on bfloat16 weights keep their inputs
    in float32.
    """
    layer = weight * (9 * size.hidden + 2 * size.kv_width + 4 * size.intermediate)
    layer += 2 * (FLOAT32 - weight) * size.hidden
    if config.lora is not None and weight < FLOAT32:
        layer += FLOAT32 * (6 * size.hidden + size.intermediate)
    if config.gradient_checkpointing:
        return layer + size.n_layers * weight * size.hidden
    return layer * size.n_layers


def available_memory(device: torch.device | str) -> int:
    """Bytes of a GPU's memory, or of this machine's."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(
    estimate: MemoryEstimate, *, available: int, max_memory_gb: float | None = None
) -> Sequence[str]:
    """What should be said about an estimate before the run starts.

    Args:
        estimate: What is needed.
        available: Bytes that the device has.
        max_memory_gb: GiB that the run may take; None: only warn, if there is less than it needs.

    Raises:
        NotEnoughMemoryError: If more than `max_memory_gb` is needed; says what would help.
    """
    needed = estimate.peak / GIB
    if max_memory_gb is not None and needed > max_memory_gb:
        raise NotEnoughMemoryError(
            f"the run needs about {needed:.1f} GiB, more than the {max_memory_gb:g} GiB it may take; smaller "
            f"micro_batch_tokens, gradient_checkpointing, or lora with bfloat16 help\n{estimate.table()}"
        )
    if estimate.peak > available:
        return [f"the run needs about {needed:.1f} GiB, but the device has {available / GIB:.1f} GiB"]
    return []


def announce_memory(
    shape: PreTrainedConfig,
    config: PolicyConfig,
    *,
    what: str,
    prm: str | None = None,
    max_memory_gb: float | None = None,
) -> None:
    """Log what a process of a run will need, and warn or refuse where it is too much.

    Args:
        shape: Of the policy's model.
        config: How it is trained.
        what: Name of the run.
        prm: As in `estimate_memory`.
        max_memory_gb: As in `check_memory`.

    Raises:
        NotEnoughMemoryError: If it is more than `max_memory_gb`.
    """
    try:
        size = ModelSize.of(shape, config.lora)
    except (AttributeError, ValueError) as error:  # no transformer, or not one that lora fits
        log.warning("memory of %s is not estimated: %s", what, error)
        return
    estimate = estimate_memory(size, config, prompt_tokens=PROMPT_TOKENS, prm=prm)
    available = available_memory(get_device("auto"))
    warnings = check_memory(estimate, available=available, max_memory_gb=max_memory_gb)
    if ranks.rank() == 0:
        log.info("memory of %s, estimated:\n%s", what, estimate.table())
        for warning in warnings:
            log.warning("%s", warning)
