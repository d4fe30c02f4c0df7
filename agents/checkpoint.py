"""An agent as a folder that is whole or not there: safetensors and JSON, no pickle."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium as gym
import torch
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer
from transformers import AutoModelForCausalLM

from agents.critic import Critic
from agents.psgpo_config import PSGPOConfig
from codegym.storage import write_json

if TYPE_CHECKING:
    from agents.psgpo import PSGPO

FORMAT_VERSION = 1
STATE = "state.json"
COUNTERS = ("seed", "iteration", "num_timesteps", "n_updates")
Agent = TypeVar("Agent", bound="PSGPO")


def save_agent(agent: "PSGPO", folder: Path) -> None:
    """Write policy, critic, reference, optimizers, counters and what the refresh hook waits for."""
    with whole_folder(folder) as draft:
        agent.policy.save_pretrained(draft / "policy")
        agent.tokenizer.save_pretrained(draft / "policy")
        agent.reference.save_pretrained(draft / "reference")
        agent.critic.save_pretrained(draft / "critic")
        for name, learner in agent.learners.items():
            save_optimizer(learner.optimizer, draft / f"{name}_optimizer.safetensors")
        agent.refresh.save(draft / "refresh")
        counters = {name: getattr(agent, name) for name in COUNTERS}
        write_json(draft / STATE, {"version": FORMAT_VERSION, "config": asdict(agent.config), **counters})


def load_agent(
    kind: type[Agent], folder: Path, env: gym.Env[str, str], *, device: torch.device | str, **options: Any
) -> Agent:
    """Read what `save_agent` wrote.

    Raises:
        ValueError: If the folder does not hold a checkpoint of this version.
    """
    settle(folder)
    state = _read_state(folder)
    # Made from the policy whatever it was made from: its weights are read below.
    config = PSGPOConfig(**state["config"])
    agent = kind(
        folder / "policy",
        env,
        replace(config, critic_init="policy"),
        reference=AutoModelForCausalLM.from_pretrained(folder / "reference", dtype=torch.float32),
        seed=state["seed"],
        device=device,
        **options,
    )
    agent.config = config
    saved = Critic.from_pretrained(folder / "critic", dtype=torch.float32, device=agent.device)
    agent.critic.load_state_dict(saved.state_dict())
    for name in COUNTERS:
        setattr(agent, name, state[name])
    for name, learner in agent.learners.items():
        load_optimizer(learner.optimizer, folder / f"{name}_optimizer.safetensors")
    agent.refresh.load(folder / "refresh")
    return agent


def _read_state(folder: Path) -> dict[str, Any]:
    if not (folder / STATE).is_file():
        raise ValueError(f"{folder} is not an agent's checkpoint: it has no {STATE}")
    state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if state.get("version") != FORMAT_VERSION:
        raise ValueError(f"{folder / STATE}: expected version {FORMAT_VERSION}, got {state.get('version')!r}")
    return state


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a draft folder to write to; it takes the place of `folder` when the block ends without error.

    A kill at any moment leaves the old folder, the new one, or (between two renames) the old one beside its
    place, from where `settle` fetches it back.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    settle(folder)
    draft, old = _beside(folder, "draft"), _beside(folder, "old")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    yield draft
    if folder.exists():
        os.rename(folder, old)
    os.rename(draft, folder)
    shutil.rmtree(old, ignore_errors=True)


def settle(folder: Path) -> None:
    """Put back what a kill left beside its place."""
    old = _beside(folder, "old")
    if old.exists():
        if folder.exists():
            shutil.rmtree(old)
        else:
            os.rename(old, folder)


def save_optimizer(optimizer: Optimizer, path: Path) -> None:
    """Write an optimizer's tensors."""
    tensors = {
        f"{index}.{name}": tensor.detach().contiguous()
        for index, slots in optimizer.state_dict()["state"].items()
        for name, tensor in slots.items()
    }
    save_file(tensors, path)


def load_optimizer(optimizer: Optimizer, path: Path) -> None:
    """Read an optimizer's tensors back; its settings stay as they are."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(path).items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}")
