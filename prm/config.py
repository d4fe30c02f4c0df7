"""How a process reward model is trained: its settings, and what follows from them alone."""

import hashlib
import math
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, get_args

import tyro

from codegym.table import check_name
from prm.heads import make_head
from prm.lora import LoRAOption

Train: TypeAlias = Literal["all", "head"]
DType: TypeAlias = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class PRMConfig:
    """How a process reward model is trained."""

    head: str = "token_sum"  # one of prm.heads.HEADS
    train: Train = "all"  # head: the backbone stays as it is
    lora: LoRAOption = None  # adapters that train in the backbone's place
    keep_adapter: bool = False  # write the adapter too, besides the backbone that it is merged into
    dtype: DType = "float32"  # of the backbone; the head and all that trains: float32
    gradient_checkpointing: bool = False  # compute activations twice, keep few: slower, in less memory
    balance: bool = False  # right lines weigh as much as wrong ones, however many there are of each
    learning_rate: float = 2e-3  # peak
    epochs: float = 3.0  # passes over the training programs; may be a fraction
    batch_size: int = 32  # programs per optimizer step
    micro_batch_tokens: int = 4096  # padded tokens per forward pass; changes memory and speed alone
    warmup_fraction: float = 0.05  # of all steps, linear from 0
    final_lr_fraction: float = 0.1  # of the peak, reached by a cosine at the last step
    weight_decay: float = 0.01  # AdamW's
    max_grad_norm: float = 1.0  # gradients longer than this are scaled down
    validation_fraction: float = 0.1  # of the TASKS; their programs are never trained on; 0 for none
    n_validations: int = 4  # evenly spaced; the weights with the best local AUC are kept
    patience: int = 0  # validations without a better one before training stops; 0: it never stops early
    checkpoint_every: int = 25  # optimizer steps between checkpoints
    # of the split and of the order of programs; the command line has one seed, the run's
    seed: Annotated[int, tyro.conf.Suppress] = 0

    def __post_init__(self) -> None:
        make_head(self.head)
        for name in ("learning_rate", "epochs", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in ("batch_size", "micro_batch_tokens", "n_validations", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_fraction", "final_lr_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must be in [0, 1), got {self.validation_fraction}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")
        check_name(self.train, get_args(Train), "part to train")
        check_name(self.dtype, get_args(DType), "dtype")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.patience < 0:
            raise ValueError(f"patience must not be negative, got {self.patience}")
        if self.patience and not self.validation_fraction:
            raise ValueError(f"patience={self.patience} needs held-out tasks, got validation_fraction=0")
        if self.train == "head" and self.lora is not None:
            raise ValueError("lora trains the backbone, which train='head' leaves as it is: choose one")
        if self.train == "head" and self.gradient_checkpointing:
            raise ValueError("gradient_checkpointing saves nothing with train='head': nothing is kept")
        if self.keep_adapter and self.lora is None:
            raise ValueError("keep_adapter needs an adapter to keep: set lora")

    @property
    def backbone_is_frozen(self) -> bool:
        """Whether the backbone's own weights stay as they are."""
        return self.train == "head" or self.lora is not None


def in_validation(task_id: str, *, fraction: float, seed: int) -> bool:
    """Whether a task is held out: a hash of seed and id, so the answer never depends on the other tasks."""
    digest = hashlib.sha256(f"{seed}:{task_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def learning_rate_at(step: int, n_steps: int, config: PRMConfig) -> float:
    """Learning rate of a step (0-based): a linear warm-up, then a cosine down to its final share."""
    n_warmup = math.ceil(config.warmup_fraction * n_steps)
    if step < n_warmup:
        return config.learning_rate * (step + 1) / n_warmup
    progress = (step - n_warmup) / max(n_steps - 1 - n_warmup, 1)
    share = config.final_lr_fraction + (1 - config.final_lr_fraction) * (1 + math.cos(math.pi * progress)) / 2
    return config.learning_rate * share
