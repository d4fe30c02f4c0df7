"""Settings that every agent with a policy to train has."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias, get_args

from codegym.table import check_name
from prm.lora import LoRAConfig, LoRAOption

KLEstimator: TypeAlias = Literal["k1", "k3"]
LossMean: TypeAlias = Literal["token", "program", "limit"]
Truncated: TypeAlias = Literal["judge", "mask"]
Precision: TypeAlias = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """How to train a policy."""

    n_iterations: int = 26  # length of a whole run; the learning rates' schedule ends there
    rollouts_per_iteration: int = 128  # programs written and judged per iteration
    samples_per_task: int = 1  # programs per drawn task; they share one reading of the prompt
    max_new_tokens: int = 192  # a program that needs more is cut, judged as it is and not bootstrapped
    truncated_programs: Truncated = "judge"  # a cut program's part in the policy's loss: as judged, or none
    temperature: float = 1.0  # of the sampler, and of the log-probabilities in the loss
    sampler: str = "transformers"  # an entry of agents.samplers.SAMPLERS
    sampler_options: dict[str, int | float | str | bool] = field(default_factory=dict)  # of its constructor
    judge_early: bool = True  # judge programs while others are written, if the sampler tells; same results
    n_epochs: int = 1  # passes over a rollout
    n_minibatches: int = 2  # optimizer steps per pass
    micro_batch_tokens: int = 2048  # padded tokens per forward and backward pass
    loss_mean: LossMean = "token"  # over a minibatch's tokens; its programs' means; or sums / max_new_tokens
    learning_rate: float = 7e-4  # of the policy, at its peak
    warmup_iterations: int = 5  # iterations in which the policy's learning rate rises
    final_learning_rate: float = 0.2  # share of the peaks that is left at the end of the linear decay
    clip_range: float = 0.2  # of the policy's ratio
    kl_coef: float = 0.01  # β: pay for drifting from the reference, per token
    kl_estimator: KLEstimator = "k1"  # of that drift: "k1" is unbiased, "k3" never negative
    adaptive_kl_target: float | None = None  # nats per program that β is steered to; None: β stays
    adaptive_kl_rate: float = 0.1  # most of β's relative change per iteration is a fifth of this
    ent_coef: float = 0.0  # bonus for entropy
    max_grad_norm: float = 1.0  # longer gradients are scaled down; each network by itself
    target_kl: float | None = (
        None  # the policy skips the rest of an update once its KL exceeds 1.5 times this
    )
    refresh_every: int = 5  # iterations between calls of the refresh hook, if there is one
    lora: LoRAOption = None  # an adapter that trains while policy, reference and critic share the rest
    dtype: Precision = "float32"  # of weights that are read; bfloat16 for frozen ones alone: it needs lora
    attention: str | None = None  # one of transformers' implementations; None: its own choice
    gradient_checkpointing: bool = False  # less memory for updates, which then take a third longer

    def __post_init__(self) -> None:
        counts = ("n_iterations", "rollouts_per_iteration", "samples_per_task", "max_new_tokens", "n_epochs")
        self._check_at_least_1(*counts, "n_minibatches", "micro_batch_tokens", "refresh_every")
        self._check_positive("temperature", "learning_rate", "max_grad_norm", "adaptive_kl_rate")
        self._check_not_negative("warmup_iterations", "kl_coef", "ent_coef")
        self._check_shares("final_learning_rate")
        for name, kind in (
            ("truncated_programs", Truncated),
            ("loss_mean", LossMean),
            ("kl_estimator", KLEstimator),
            ("dtype", Precision),
        ):
            check_name(getattr(self, name), get_args(kind), name)
        if not 0 < self.clip_range < 1:
            raise ValueError(f"clip_range must be in (0, 1), got {self.clip_range}")
        if self.rollouts_per_iteration % self.samples_per_task:
            raise ValueError(
                f"rollouts_per_iteration must be a multiple of samples_per_task, "
                f"got {self.rollouts_per_iteration} and {self.samples_per_task}"
            )
        if self.adaptive_kl_target is not None:
            self._check_positive("adaptive_kl_target")
            if self.kl_coef == 0:
                raise ValueError("adaptive_kl_target needs a kl_coef to start from, got kl_coef 0")
        if self.lora is None and self.dtype != "float32":
            raise ValueError(f"small steps of {self.dtype} weights are rounded away: train an adapter (lora)")
        if self.lora is not None and self.lora.dropout:
            raise ValueError(
                f"a policy must not have dropout, which its sampler is without: got lora.dropout "
                f"{self.lora.dropout}"
            )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` and JSON made of the settings."""
        lora = row.get("lora")
        if lora is None:
            return cls(**row)
        names = lora["target_modules"]
        targets: Any = names if isinstance(names, str) else tuple(names)
        return cls(**{**row, "lora": LoRAConfig(**{**lora, "target_modules": targets})})

    def learning_rates(self, iteration: int, progress: float) -> tuple[float, ...]:
        """Learning rate of each network that is trained, the policy's first; all decay linearly.

        Args:
            iteration: Iterations done.
            progress: Share of the run that is done, in [0, 1].
        """
        return (self.learning_rate * self._decay(progress) * self._rise(iteration + 1),)

    def _decay(self, progress: float) -> float:
        return 1.0 - (1.0 - self.final_learning_rate) * min(max(progress, 0.0), 1.0)

    def _rise(self, n_moves: int) -> float:
        """Share of the peak at the policy's move number `n_moves`."""
        return min(max(n_moves, 0) / self.warmup_iterations, 1.0) if self.warmup_iterations else 1.0

    def _check_at_least_1(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    def _check_not_negative(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def _check_shares(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
