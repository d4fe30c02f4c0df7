"""PSGPO's settings."""

from dataclasses import dataclass

from agents.critic import CriticInit
from agents.policy_config import PolicyConfig


@dataclass(frozen=True, kw_only=True)
class PSGPOConfig(PolicyConfig):
    """How to train policy and critic."""

    critic_init: CriticInit = "policy"  # "scratch", "policy" or "prm"
    critic_learning_rate: float = 2e-3  # of the critic, at its peak
    critic_only_iterations: int = 2  # first iterations, in which the policy does not move
    clip_range_vf: float | None = None  # of the critic's move per update; None: not clipped
    gamma: float = 1.0  # discount per token
    gae_lambda: float = 1.0  # of the actor's advantages
    critic_gae_lambda: float = 1.0  # of the critic's targets
    normalize_advantage: bool = True  # to mean 0 and variance 1 over the rollout's tokens

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("critic_learning_rate")
        self._check_not_negative("critic_only_iterations")
        self._check_shares("gamma", "gae_lambda", "critic_gae_lambda")
        if self.clip_range_vf is not None:
            self._check_positive("clip_range_vf")

    def learning_rates(self, iteration: int, progress: float) -> tuple[float, float]:
        """Learning rates of policy and critic; the policy's rises from the first iteration it moves in."""
        decay = self._decay(progress)
        rise = self._rise(iteration - self.critic_only_iterations + 1)
        return self.learning_rate * decay * rise, self.critic_learning_rate * decay
