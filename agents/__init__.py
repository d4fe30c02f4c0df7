"""Who acts: PSGPO, its samplers, the pipeline and the `codegym` command.

Names are imported on first use, so that commands which need no model never load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.psgpo import PSGPO, PSGPOConfig
    from agents.samplers import make_sampler

__all__ = ["PSGPO", "PSGPOConfig", "make_sampler"]

_HOMES = {"PSGPO": "agents.psgpo", "PSGPOConfig": "agents.psgpo", "make_sampler": "agents.samplers"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agents' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
