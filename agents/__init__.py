"""Who acts: PSGPO and what it is compared with, their samplers, the pipeline and the `codegym` command.

Names are imported on first use, so that commands which need no model never load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.baselines.best_of_n import BestOfN
    from agents.baselines.group import GRPO, RLOO, GRPOConfig, RLOOConfig
    from agents.psgpo import PSGPO, PSGPOConfig
    from agents.samplers import make_sampler
    from agents.table import AGENTS, load_agent, make_agent

__all__ = [
    "AGENTS",
    "GRPO",
    "PSGPO",
    "RLOO",
    "BestOfN",
    "GRPOConfig",
    "PSGPOConfig",
    "RLOOConfig",
    "load_agent",
    "make_agent",
    "make_sampler",
]

_HOMES = {
    "AGENTS": "agents.table",
    "BestOfN": "agents.baselines.best_of_n",
    "GRPO": "agents.baselines.group",
    "GRPOConfig": "agents.baselines.group",
    "PSGPO": "agents.psgpo",
    "PSGPOConfig": "agents.psgpo",
    "RLOO": "agents.baselines.group",
    "RLOOConfig": "agents.baselines.group",
    "load_agent": "agents.table",
    "make_agent": "agents.table",
    "make_sampler": "agents.samplers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agents' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
