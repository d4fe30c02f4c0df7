"""PSGPO's settings."""

from dataclasses import dataclass

from agents.critic import CriticInit


@dataclass(frozen=True, kw_only=True)
class PSGPOConfig:
    """How to train."""

    n_iterations: int = 26  # length of a whole run; the learning rates' schedule ends there
    rollouts_per_iteration: int = 128  # programs written and judged per iteration
    samples_per_task: int = 1  # programs per drawn task; they share one reading of the prompt
    max_new_tokens: int = 192  # a program that needs more is cut, judged as it is and not bootstrapped
    temperature: float = 1.0  # of the sampler, and of the log-probabilities in the loss
    sampler: str = "transformers"  # an entry of agents.samplers.SAMPLERS
    n_epochs: int = 1  # passes over a rollout
    n_minibatches: int = 2  # optimizer steps per pass
    micro_batch_tokens: int = 2048  # padded tokens per forward and backward pass
    learning_rate: float = 7e-4  # of the policy, at its peak
    critic_learning_rate: float = 2e-3  # of the critic, at its peak
    warmup_iterations: int = 5  # iterations in which the policy's learning rate rises
    final_learning_rate: float = 0.2  # share of the peaks that is left at the end of the linear decay
    critic_only_iterations: int = 2  # first iterations, in which the policy does not move
    clip_range: float = 0.2  # of the policy's ratio
    clip_range_vf: float | None = None  # of the critic's move per update; None: not clipped
    gamma: float = 1.0  # discount per token
    gae_lambda: float = 1.0  # of the actor's advantages
    critic_gae_lambda: float = 1.0  # of the critic's targets
    kl_coef: float = 0.01  # β: pay for drifting from the reference, per token (k1 estimate)
    ent_coef: float = 0.0  # bonus for entropy
    max_grad_norm: float = 1.0  # longer gradients are scaled down; each network by itself
    target_kl: float | None = (
        None  # the policy skips the rest of an update once its KL exceeds 1.5 times this
    )
    critic_init: CriticInit = "policy"  # "scratch", "policy" or "prm"
    refresh_every: int = 5  # iterations between calls of the refresh hook, if there is one

    def __post_init__(self) -> None:
        counts = ("n_iterations", "rollouts_per_iteration", "samples_per_task", "max_new_tokens", "n_epochs")
        for name in (*counts, "n_minibatches", "micro_batch_tokens", "refresh_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("temperature", "learning_rate", "critic_learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("warmup_iterations", "critic_only_iterations", "kl_coef", "ent_coef"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("final_learning_rate", "gamma", "gae_lambda", "critic_gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not 0 < self.clip_range < 1:
            raise ValueError(f"clip_range must be in (0, 1), got {self.clip_range}")
        if self.rollouts_per_iteration % self.samples_per_task:
            raise ValueError(
                f"rollouts_per_iteration must be a multiple of samples_per_task, "
                f"got {self.rollouts_per_iteration} and {self.samples_per_task}"
            )

    def learning_rates(self, iteration: int, progress: float) -> tuple[float, float]:
        """Learning rates of policy and critic.

        Both decay linearly; the policy's first rises, from the first iteration in which the policy moves.

        Args:
            iteration: Iterations done.
            progress: Share of the run that is done, in [0, 1].
        """
        decay = 1.0 - (1.0 - self.final_learning_rate) * min(max(progress, 0.0), 1.0)
        moved = iteration - self.critic_only_iterations + 1
        rise = min(max(moved, 0) / self.warmup_iterations, 1.0) if self.warmup_iterations else 1.0
        return self.learning_rate * decay * rise, self.critic_learning_rate * decay
