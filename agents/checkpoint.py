"""An agent as a folder that is whole or not there: safetensors and JSON, no pickle."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium as gym
import torch
from safetensors.torch import load_file, save_file
from stable_baselines3.common.vec_env import VecEnv
from torch.optim import Optimizer

from agents.shared_weights import frozen_digest
from codegym.storage import write_json

if TYPE_CHECKING:
    from agents.policy_agent import PolicyAgent

FORMAT_VERSION = 1
STATE, HISTORY = "state.json", "history.jsonl"
COUNTERS = ("seed", "iteration", "num_timesteps", "n_updates", "kl_coef")
Agent = TypeVar("Agent", bound="PolicyAgent")


def folder_of(path: str | Path) -> Path:
    """Where an agent that is called `path` is: there is no zip file, whatever the name says."""
    path = Path(path)
    return path.with_suffix("") if path.suffix == ".zip" else path


def save_agent(agent: "PolicyAgent", folder: Path) -> None:
    """Write networks, optimizers, counters, what the refresh hook waits for and what alarms look back on."""
    with whole_folder(folder) as draft:
        agent.save_networks(draft)
        for name, learner in agent.learners.items():
            save_optimizer(learner.optimizer, draft / f"{name}_optimizer.safetensors")
        agent.refresh.save(draft / "refresh")
        agent.alarms.save(draft / HISTORY)
        counters = {name: getattr(agent, name) for name in COUNTERS}
        write_state(
            draft,
            type(agent).__name__,
            config=asdict(agent.config),
            frozen=frozen_digest(agent.policy),
            **counters,
        )


def load_agent(
    kind: type[Agent],
    folder: Path,
    env: gym.Env[str, str] | VecEnv,
    *,
    device: torch.device | str,
    **options: Any,
) -> Agent:
    """Read what `save_agent` wrote.

    Raises:
        ValueError: If the folder does not hold a checkpoint of this version and this kind of agent, or the
            model under its adapter is another one now.
    """
    settle(folder)
    state = read_state(folder, kind)
    config = kind.config_type.from_row(state["config"])
    options |= kind.load_networks(folder)
    agent = kind(folder / "policy", env, config, seed=state["seed"], device=device, **options)
    if state.get("frozen", found := frozen_digest(agent.policy)) != found:
        raise ValueError(f"{folder}: the model under its adapter is not the one that it was trained on")
    for name in COUNTERS:
        setattr(agent, name, state[name])
    for name, learner in agent.learners.items():
        load_optimizer(learner.optimizer, folder / f"{name}_optimizer.safetensors")
    agent.refresh.load(folder / "refresh")
    agent.alarms.load(folder / HISTORY)
    return agent


def write_state(folder: Path, agent: str, *, config: Mapping[str, Any], **rest: float | str) -> None:
    """Write what `read_state` reads: the agent's class, its settings and its counters."""
    write_json(folder / STATE, {"version": FORMAT_VERSION, "agent": agent, "config": config, **rest})


def read_state(folder: Path, kind: type | None = None) -> dict[str, Any]:
    """The settings and counters of a checkpoint; `agent` names its class.

    Raises:
        ValueError: If the folder does not hold a checkpoint of this version, and of `kind` if one is given.
    """
    if not (folder / STATE).is_file():
        raise ValueError(f"{folder} is not an agent's checkpoint: it has no {STATE}")
    state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if state.get("version") != FORMAT_VERSION:
        raise ValueError(f"{folder / STATE}: expected version {FORMAT_VERSION}, got {state.get('version')!r}")
    # The first agents were all PSGPO, and their KL coefficient did not move.
    state = {"agent": "PSGPO", "kl_coef": state["config"].get("kl_coef"), **state}
    if kind is not None and state["agent"] != kind.__name__:
        raise ValueError(f"{folder} holds an agent of kind {state['agent']}, not {kind.__name__}")
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
