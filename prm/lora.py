"""LoRA adapters on Hugging Face models (arXiv:2106.09685): small matrices that train, the model does not.

An adapter is put into the model in place: the model keeps its class, `config`, `generate` and `base_model`,
and one frozen model may carry several adapters by name, one of them active at a time.
"""

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import torch
import tyro
from safetensors.torch import load_file

from codegym.errors import MissingExtraError

ALL_LINEAR: Literal["all-linear"] = "all-linear"
ADAPTER = "default"
WEIGHTS, PEFT_PREFIX = "adapter_model.safetensors", "base_model.model."  # of peft's own format


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """The shape of an adapter."""

    rank: int = 16  # columns of A, rows of B: W + (alpha / rank) B A
    alpha: float = 32.0  # scale of what is added, before it is divided by the rank
    dropout: float = 0.0  # of the adapter's input, in training alone
    target_modules: Literal["all-linear"] | tuple[str, ...] = (
        ALL_LINEAR  # ends of module names; all-linear: every linear layer but the vocabulary head
    )

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha must be positive and finite, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        names = self.target_modules
        if names != ALL_LINEAR and (isinstance(names, str) or not names or not all(names)):
            raise ValueError(
                f"target_modules must be {ALL_LINEAR!r} or a tuple of module names, got {names!r}"
            )


def lora_from_options(
    rank: int | None = None,
    alpha: float = LoRAConfig.alpha,
    dropout: float = LoRAConfig.dropout,
    target_modules: tuple[str, ...] = (ALL_LINEAR,),
) -> LoRAConfig | None:
    """The adapter that command-line options ask for: none without a rank.

    Args:
        rank: Of the adapter's matrices; None for no adapter.
        alpha: Scale of what the adapter adds, before it is divided by the rank.
        dropout: Of the adapter's input, in training alone.
        target_modules: Ends of module names, or all-linear.
    """
    if rank is None:
        return None
    chosen: Any = ALL_LINEAR if target_modules == (ALL_LINEAR,) else target_modules
    return LoRAConfig(rank=rank, alpha=alpha, dropout=dropout, target_modules=chosen)


LoRAOption: TypeAlias = Annotated[LoRAConfig | None, tyro.conf.arg(constructor=lora_from_options)]
"""A configuration field with flat options: `--prm.lora.rank 16` asks for an adapter."""


def add_adapter(model: Any, config: LoRAConfig, *, name: str = ADAPTER, seed: int = 0) -> Any:
    """Put a fresh adapter into `model`, in place, and return the model: only the adapter's weights train.

    A fresh adapter changes no output. Its weights are float32 whatever the model's type.

    Args:
        model: A Hugging Face model; adapters that it carries stay, frozen.
        config: The adapter's shape.
        name: Of the adapter, which becomes the active one.
        seed: Of its initial weights; the global random state is left alone.

    Raises:
        MissingExtraError: If peft is not installed.
        ValueError: If the model has an adapter of that name, or none of the target modules.
    """
    peft = _peft()
    targets = config.target_modules
    shape = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
    cuda = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), warnings.catch_warnings():
        # peft warns of a second adapter, which is what was asked for
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        torch.manual_seed(seed)
        model.add_adapter(shape, name)
    import_module("peft.functional").cast_adapter_dtype(model, name)
    return model


def active_name(model: Any) -> str | None:
    """The adapter that `model` computes with; None if it carries none."""
    return model.active_adapters()[0] if getattr(model, "peft_config", None) else None


@contextmanager
def active_adapter(model: Any, name: str | None) -> Iterator[Any]:
    """Compute with another adapter of `model` while the block runs, or with None: the frozen model itself.

    Which weights train stays as it was.
    """
    trains = {id(weight): weight.requires_grad for weight in model.parameters()}
    before = model.active_adapters()
    if name is None:
        model.disable_adapters()
    else:
        model.set_adapter(name)
    try:
        yield model
    finally:
        model.enable_adapters()
        model.set_adapter(before)
        for weight in model.parameters():
            weight.requires_grad_(trains[id(weight)])


def merge_adapter(model: Any, *, name: str = ADAPTER, dtype: torch.dtype = torch.float32) -> Any:
    """A plain copy of `model` with the adapter's change in its weights; `model` itself is not changed.

    Args:
        model: A Hugging Face model with adapters.
        name: Of the adapter to fold in; others are left out.
        dtype: Of the copy. A small change to a bfloat16 weight would be rounded away.

    Raises:
        MissingExtraError: If peft is not installed.
        ValueError: If the model has no adapter of that name.
    """
    layer_type = _tuner_layer()
    adapters = list(getattr(model, "peft_config", {}))
    if name not in adapters:
        raise ValueError(f"no adapter {name!r} to merge; the model has {', '.join(adapters) or 'none'}")
    merged = copy.deepcopy(model).to(dtype)
    layers: list[tuple[str, Any]] = [
        (path, layer) for path, layer in merged.named_modules() if isinstance(layer, layer_type)
    ]
    for path, layer in layers:
        layer.merge(adapter_names=[name])
        merged.set_submodule(path, layer.get_base_layer())
    del merged.peft_config
    merged._hf_peft_config_loaded = False  # transformers asks this whether to save an adapter or a model
    return merged.requires_grad_(True)


def save_adapter(model: Any, folder: Path, *, name: str = ADAPTER) -> None:
    """Write one adapter in peft's own format, which `PeftModel.from_pretrained(base, folder)` reads."""
    with active_adapter(model, name):
        model.save_pretrained(folder)


def load_adapter(model: Any, folder: Path, *, name: str = ADAPTER) -> Any:
    """Put the adapter that `save_adapter` wrote into `model`, in place, as the active one, to be trained.

    Raises:
        MissingExtraError: If peft is not installed.
    """
    peft = _peft()
    model.load_adapter(str(folder), adapter_name=name, is_trainable=True)
    model.set_adapter(name)
    import_module("peft.functional").cast_adapter_dtype(model, name)
    # transformers rounded what it read to the model's type: once more, exactly
    weights = load_file(folder / WEIGHTS, device=str(model.device))
    exact = {path.removeprefix(PEFT_PREFIX): weight for path, weight in weights.items()}
    peft.set_peft_model_state_dict(model, exact, adapter_name=name)
    return model


def _peft() -> Any:
    try:
        return import_module("peft")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "LoRA adapters need peft, which is not installed: pip install 'codegym[lora]'"
        ) from error


def _tuner_layer() -> type:
    _peft()
    layer: type = import_module("peft.tuners.tuners_utils").BaseTunerLayer
    return layer
