"""The state of an unfinished training run in one file that survives kill -9. No pickle."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from prm.backbone import load_trained_weights, trained_weights


@dataclass(kw_only=True)
class TrainingState:
    """What a run needs to go on as if it had never stopped.

    Attributes:
        step: Optimizer steps done.
        best_step: The step of the best weights so far; 0 before the first validation.
        best: Those weights.
        history: One row per validation.
        losses: The loss of every step, where a run keeps them.
    """

    step: int = 0
    best_step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def write_checkpoint(
    path: Path, state: TrainingState, model: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str
) -> None:
    """Write weights, optimizer and state to one safetensors file, atomically.

    Args:
        path: The file.
        state: Counters, history and best weights.
        model: Those of its weights that train are stored as they are now.
        optimizer: Its tensors are stored too.
        fingerprint: Of the run and of the weights that do not train, to refuse another run's checkpoint.
    """
    tensors = {
        **{f"model.{name}": tensor for name, tensor in trained_weights(model).items()},
        **{f"best.{name}": tensor for name, tensor in state.best.items()},
        **{
            f"optimizer.{index}.{name}": tensor
            for index, slots in optimizer.state_dict()["state"].items()
            for name, tensor in slots.items()
        },
    }
    names = ("step", "best_step", "history", "losses")
    about = {name: getattr(state, name) for name in names}
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    save_file(
        {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()},
        draft,
        metadata={"fingerprint": fingerprint, "state": json.dumps(about)},
    )
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)


def read_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str
) -> TrainingState:
    """Load a checkpoint into `model` and `optimizer` and return the rest.

    Raises:
        ValueError: If the file is damaged or belongs to another run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a training checkpoint: {error}") from error
    if about.get("fingerprint") != fingerprint:
        raise ValueError(
            f"{path} belongs to another run (other labels, configuration or backbone); "
            "choose another folder, or delete the file to start again"
        )
    load_trained_weights(model, _below(tensors, "model."))
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer.").items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    return TrainingState(best=_below(tensors, "best."), **json.loads(about["state"]))


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
