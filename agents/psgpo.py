"""PSGPO: token-level PPO whose rewards may be dense and whose critic may start from the reward model.

    r(x, y) = R_UT(x, y) + λ Σ_m share_m(R_φ) - β KL(π || π_ref)        (arXiv:2410.17621, equation 3)

One iteration: write whole programs, judge them, let the environment's reward scheme pay each line, put the
pay on the tokens that ended the lines, and update policy and critic. The dense reward belongs to the
environment (`codegym.RewardWrapper`), the critic's start to the agent (`critic_init`): together they span
the paper's grid of baseline, dense reward, value initialisation and both. What is here is what a critic
adds; programs are written, judged and paid for in `PolicyAgent`.
"""

from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from transformers import PreTrainedModel

from agents.critic import Critic
from agents.losses import explained_variance, gae, whiten
from agents.models import checkpoint_gradients, load_prm
from agents.policy_agent import PolicyAgent
from agents.psgpo_config import PSGPOConfig
from agents.refresh import Refresh
from agents.rollout import Rollout, RolloutBatch
from agents.update import Experience, Learner, token_values
from prm.model import ProcessRewardModel

__all__ = ["PSGPO", "PSGPOConfig", "Refresh", "Rollout"]


class PSGPO(PolicyAgent):
    """The agent, in Stable-Baselines3's vocabulary; a timestep is an action, that is a line.

    Args:
        policy: As in `PolicyAgent`, like all arguments that are not named here.
        env: As in `PolicyAgent`.
        config: How to train.
        prm: The reward model, or its folder, for `critic_init="prm"`.
        critic: The critic itself, or its folder; made as `config.critic_init` says if None.
        options: The other arguments of `PolicyAgent`, and fields of `config` to replace.
    """

    config: PSGPOConfig
    config_type: ClassVar[type[PSGPOConfig]] = PSGPOConfig

    def __init__(
        self,
        policy: str | Path | PreTrainedModel,
        env: gym.Env[str, str] | VecEnv,
        config: PSGPOConfig | None = None,
        *,
        prm: str | Path | ProcessRewardModel | None = None,
        critic: Critic | str | Path | None = None,
        **options: Any,
    ) -> None:
        super().__init__(policy, env, config, **options)
        if isinstance(prm, str | Path):
            prm = load_prm(prm, self.policy)
        if isinstance(critic, str | Path):
            critic = Critic.from_pretrained(Path(critic), policy=self.policy)
        if critic is None and prm is not None and self.config.critic_init == "prm":
            prm.check_same_tokenizer(self.tokenizer)
        self.critic = critic or Critic.create(self.config.critic_init, self.policy, prm, seed=self.seed)
        if self.config.gradient_checkpointing:
            checkpoint_gradients(self.critic.backbone)
        self.learners["critic"] = Learner.of(self.critic)

    def estimate(self, rollout: Rollout) -> tuple[Experience, dict[str, float]]:
        """Turn rewards into advantages and returns: KL penalty, values, GAE, whitening."""
        config, batch, mask = self.config, rollout.batch, rollout.batch.mask
        _, kl, metrics = self.drift(batch)
        rewards = batch.rewards - self.kl_coef * kl
        values = token_values(self.critic, batch, max_tokens=config.micro_batch_tokens)
        if self.iteration == 0:
            values = self._calibrated(batch, rewards, values, metrics)
        advantages, returns = gae(rewards, values, mask, gamma=config.gamma, gae_lambda=config.gae_lambda)
        if config.critic_gae_lambda != config.gae_lambda:
            _, returns = gae(rewards, values, mask, gamma=config.gamma, gae_lambda=config.critic_gae_lambda)
        metrics["train/explained_variance"] = explained_variance(values, returns, mask)
        if self.iteration == config.critic_only_iterations:
            metrics["critic/explained_variance_at_start"] = metrics["train/explained_variance"]
        policy_mask = self.policy_mask(rollout)
        if config.normalize_advantage:
            advantages = whiten(advantages, policy_mask)
        experience = Experience(
            batch=batch, advantages=advantages, policy_mask=policy_mask, values=values, returns=returns
        )
        return experience, metrics

    def train(self, experience: Experience, progress_done: float) -> dict[str, float]:
        """Update policy and critic on one rollout; the critic alone in the first iterations."""
        return self._update(
            experience,
            progress_done,
            move_policy=self.iteration >= self.config.critic_only_iterations,
            clip_range_vf=self.config.clip_range_vf,
        )

    def _calibrated(
        self, batch: RolloutBatch, rewards: Tensor, values: Tensor, metrics: dict[str, float]
    ) -> Tensor:
        """Values of the first rollout, brought onto the returns' scale if the critic was a reward model."""
        _, returns = gae(rewards, values, batch.mask, gamma=self.config.gamma, gae_lambda=1.0)
        metrics["critic/explained_variance_before"] = explained_variance(values, returns, batch.mask)
        if self.config.critic_init != "prm":
            return values
        slope, offset = self.critic.calibrate(values, returns, batch.mask)
        fitted = (slope * values + offset) * batch.mask
        metrics["critic/calibration_slope"], metrics["critic/calibration_offset"] = slope, offset
        metrics["critic/explained_variance_after"] = explained_variance(fitted, returns, batch.mask)
        return fitted

    def save_networks(self, folder: Path) -> None:
        """Write policy, reference and critic."""
        super().save_networks(folder)
        self.critic.save_pretrained(folder / "critic")

    @classmethod
    def load_networks(cls, folder: Path) -> dict[str, Any]:
        """Read the reference, and say where the critic is."""
        return {**super().load_networks(folder), "critic": folder / "critic"}
