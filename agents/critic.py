"""The critic: a language model's backbone that estimates the return from every prefix."""

from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel

from agents.shared_weights import (
    ADAPTER_CONFIG,
    copy_backbone,
    copy_trained,
    copy_whole,
    rests_on,
    with_adapter,
)
from codegym.table import check_name
from prm.backbone import without_dropout
from prm.model import ProcessRewardModel

CriticInit: TypeAlias = Literal["scratch", "policy", "prm"]
HEAD_FILE = "head.safetensors"


class Critic(nn.Module):
    """Estimates, at every token, the return that follows it.

    The value of the state *before* token i is the output at index i - 1: `before_tokens` shifts.

    Args:
        backbone: A causal transformer that returns `last_hidden_state`; taken over, not copied.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = without_dropout(backbone)
        width = backbone.config.hidden_size
        # `skip_init`: a head of zeros (it predicts 0 everywhere) needs nothing from the random generator.
        self.head: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Linear, width, 1, device=backbone.device, dtype=torch.float32
        )
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def create(
        cls, init: CriticInit, policy: Any, prm: ProcessRewardModel | None = None, *, seed: int = 0
    ) -> "Critic":
        """Start a critic.

        Where an adapter trains on the policy's own frozen weights, the critic gets a copy of the adapter and
        shares the weights. A reward model's adapter on other weights is merged into a copy of those.

        Args:
            init: "scratch": random weights in the policy's shape; "policy": the policy's backbone; "prm": the
                reward model's backbone and head (PSGPO's value initialisation), to be calibrated.
            policy: The causal LM that will act.
            prm: The reward model, for "prm".
            seed: Of the random weights.

        Raises:
            UnknownNameError: If `init` is none of the three.
            ValueError: If "prm" comes without a reward model.
        """
        check_name(init, get_args(CriticInit), "critic initialisation")
        if init == "scratch":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                fresh = AutoModel.from_config(policy.base_model.config)
            # in float32 whatever the policy's type: small steps of bfloat16 weights are rounded away
            return cls(fresh.to(policy.device, torch.float32))
        if init == "policy":
            return cls(copy_backbone(policy))
        if prm is None:
            raise ValueError('critic_init="prm" needs the process reward model: pass prm=')
        shared = rests_on(prm.backbone, policy)
        backbone = copy_trained(prm.backbone) if shared else copy_whole(prm.backbone)
        critic = cls(backbone.to(policy.device))
        critic.head.load_state_dict(prm.head.state_dict())
        return critic

    def forward(self, ids: Tensor) -> Tensor:
        """Outputs after every token. Attention is causal: padding on the right needs no mask. [B, T] each."""
        hidden = self.backbone(input_ids=ids, use_cache=False).last_hidden_state
        outputs: Tensor = self.head(hidden.float())
        return outputs.squeeze(-1)

    def before_tokens(self, ids: Tensor) -> Tensor:
        """Value of the state before each token; 0 for the first, which has no state. [B, T] to [B, T]."""
        return nn.functional.pad(self(ids[:, :-1]), (1, 0))

    @torch.no_grad()
    def calibrate(self, values: Tensor, returns: Tensor, mask: Tensor) -> tuple[float, float]:
        """Fold the least-squares line from current outputs to returns into the head.

        A reward model's scores are on a scale of their own; as values they must be on the returns' scale.
        Where either does not vary, only the mean is moved: there is no slope to fit.

        Args:
            values: The critic's present values. [B, T]
            returns: What they should be. [B, T]
            mask: Where they count. [B, T]

        Returns:
            Slope and offset.
        """
        x, y = values[mask].double(), returns[mask].double()
        slope = 1.0
        if len(x) > 1 and x.var() > 0 and y.var() > 0:
            slope = float(((x - x.mean()) * (y - y.mean())).mean() / (x - x.mean()).square().mean())
        offset = float(y.mean() - slope * x.mean()) if len(x) else 0.0
        self.head.weight.mul_(slope)
        self.head.bias.mul_(slope).add_(offset)
        return slope, offset

    def save_pretrained(self, folder: Path) -> None:
        """Write backbone, or its adapter alone if it has one, and head as safetensors."""
        self.backbone.save_pretrained(folder)
        save_file(self.head.state_dict(), folder / HEAD_FILE)

    @classmethod
    def from_pretrained(cls, folder: Path, *, policy: Any) -> "Critic":
        """Read what `save_pretrained` wrote.

        Args:
            folder: Where.
            policy: Whose critic it is. An adapter on the same model shares the model's weights with it.
        """
        if (folder / ADAPTER_CONFIG).is_file():
            backbone = with_adapter(copy_backbone(policy), folder)
        else:
            backbone = AutoModel.from_pretrained(folder, dtype=torch.float32).to(policy.device)
        critic = cls(backbone)
        critic.head.load_state_dict(load_file(folder / HEAD_FILE, device=str(policy.device)))
        return critic
