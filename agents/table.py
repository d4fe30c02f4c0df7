"""The agents by name."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from codegym.table import resolve

if TYPE_CHECKING:
    from agents.agent import Agent

AGENTS = {
    "psgpo": "agents.psgpo:PSGPO",
    "grpo": "agents.baselines.group:GRPO",
    "rloo": "agents.baselines.group:RLOO",
    "best_of_n": "agents.baselines.best_of_n:BestOfN",
    "random": "agents.baselines.random_agent:RandomAgent",
}


def make_agent(name: str, policy: Any, env: Any, **options: Any) -> "Agent":
    """Build an agent by name.

    Args:
        name: An entry of `AGENTS`.
        policy: A folder of a causal LM, or such a model with `tokenizer=` among the options.
        env: `CodeGen-v0`.
        options: What the agent's constructor documents.

    Raises:
        UnknownNameError: If `name` is not in `AGENTS`.
    """
    agent: Agent = resolve(AGENTS, name, "agent")(policy, env, **options)
    return agent


def load_agent(path: str | Path, env: Any, **options: Any) -> "Agent":
    """Load whatever agent was saved there; options go to its `load`.

    Raises:
        ValueError: If the folder holds no checkpoint of an agent in `AGENTS`.
    """
    from agents.checkpoint import folder_of, read_state

    wanted = read_state(folder_of(path))["agent"]
    for name, entry in AGENTS.items():
        if entry.endswith(f":{wanted}"):
            agent: Agent = resolve(AGENTS, name, "agent").load(path, env, **options)
            return agent
    raise ValueError(f"{path} holds an agent {wanted!r}, which is none of {', '.join(AGENTS)}")
