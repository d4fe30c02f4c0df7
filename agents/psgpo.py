"""PSGPO: token-level PPO whose rewards may be dense and whose critic may start from the reward model.

    r(x, y) = R_UT(x, y) + λ Σ_m share_m(R_φ) - β KL(π || π_ref)        (arXiv:2410.17621, equation 3)

One iteration: write whole programs, judge them, let the environment's reward scheme pay each line, put the
pay on the tokens that ended the lines, and update policy and critic. The dense reward belongs to the
environment (`codegym.RewardWrapper`), the critic's start to the agent (`critic_init`): together they span
the paper's grid of baseline, dense reward, value initialisation and both.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import configure_logger, get_device
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from agents import checkpoint
from agents.critic import Critic
from agents.losses import explained_variance, gae, kl_k1, masked_mean, whiten
from agents.monitor import PhaseTimer, rollout_metrics, speed_metrics
from agents.progress import progress
from agents.psgpo_config import PSGPOConfig
from agents.refresh import Refresh, RefreshQueue
from agents.rollout import Rollout, RolloutBatch, draw_tasks, make_batch, make_episode
from agents.samplers import make_sampler
from agents.update import Experience, Learner, token_logprobs, token_values, update
from agents.writer import LineWriter
from codegym.env import CodeGenEnv
from codegym.rewards import LineScorer, RewardScheme, scheme_after
from codegym.rewards.outcome import PassFail
from codegym.spaces import CodeSpace
from prm.alignment import newlines_per_token
from prm.backbone import without_dropout
from prm.model import ProcessRewardModel

__all__ = ["PSGPO", "PSGPOConfig", "Refresh", "Rollout"]


class PSGPO:
    """The agent, in Stable-Baselines3's vocabulary; a timestep is an action, that is a line.

    All randomness is a function of the seed and the iteration, so a checkpoint needs no generator's state:
    a run that is killed, loaded and continued ends with the same bits on a CPU as one that never stopped.

    Args:
        policy: A folder of a causal LM, or such a model, which is then trained in place.
        env: `CodeGen-v0`; its tasks, its judge, and the scheme of its `RewardWrapper` if it has one. A
            scheme with a schedule moves on with every iteration.
        config: How to train.
        tokenizer: The policy's; read from the folder if None.
        prm: The reward model, or its folder, for `critic_init="prm"`.
        reference: What the KL term pulls towards: a model, which is frozen; a copy of the policy if None.
        scorer: Reward model to watch; the reward scheme's own if None.
        oracle: Exact line labels to watch the policy and the scorer with, if there are any.
        refresh: Called every `config.refresh_every` iterations.
        tensorboard_log: Folder for TensorBoard, as in Stable-Baselines3.
        verbose: 1 prints the logged values.
        seed: Of tasks, samples, minibatches and a scratch critic.
        device: "cpu", "cuda" or "auto".

    Raises:
        TypeError: If `env` is not `CodeGen-v0`, or a wrapper gave it actions that are not lines.
        ValueError: If an argument that another one needs is missing.
    """

    scheme: RewardScheme

    def __init__(
        self,
        policy: str | Path | PreTrainedModel,
        env: gym.Env[str, str],
        config: PSGPOConfig | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        prm: str | Path | ProcessRewardModel | None = None,
        reference: PreTrainedModel | None = None,
        scorer: LineScorer | None = None,
        oracle: LineScorer | None = None,
        refresh: Refresh | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int = 0,
        device: torch.device | str = "auto",
    ) -> None:
        self.config = config or PSGPOConfig()
        self.device = get_device(device)
        self.policy, self.tokenizer = _load_policy(policy, tokenizer, self.device)
        self.set_env(env)
        self.reference = _frozen(reference or deepcopy(self.policy)).to(self.device)
        if isinstance(prm, str | Path):
            prm = ProcessRewardModel.from_pretrained(prm, device=self.device)
        self.critic = Critic.create(self.config.critic_init, self.policy, prm, seed=seed)
        self.scorer, self.oracle = scorer, oracle
        self.refresh = RefreshQueue(refresh, self.config.refresh_every)
        self.seed, self.verbose, self.tensorboard_log = seed, verbose, tensorboard_log
        self.iteration = self.num_timesteps = self.n_updates = 0
        self.sampler = make_sampler(self.config.sampler, self.policy, self.tokenizer)
        self.learners = {
            name: Learner(
                network=network, optimizer=torch.optim.AdamW(network.parameters(), weight_decay=0.0)
            )
            for name, network in (("policy", self.policy), ("critic", self.critic))
        }
        self._newlines = newlines_per_token(self.tokenizer)
        self._writer = LineWriter(self.sampler, self.tokenizer, self.config.max_new_tokens)
        self._logger: Logger | None = None

    # --- one iteration -------------------------------------------------------------------------------------

    def collect(self, timer: PhaseTimer) -> Rollout:
        """Write and judge this iteration's programs, and pay for them."""
        config = self.config
        n_tasks = config.rollouts_per_iteration // config.samples_per_task
        tasks = draw_tasks(self._base.tasks, n_tasks, iteration=self.iteration, seed=self.seed)
        distinct: list[list[int]] = self.tokenizer([task.prompt for task in tasks])["input_ids"]
        with timer.phase("sampling"):
            drawn = self.sampler.sample(
                distinct,
                n=config.samples_per_task,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                seed=self._derived_seed("samples"),
            )
        completions = [completion for group in drawn for completion in group]
        prompts = [prompt for prompt in distinct for _ in range(config.samples_per_task)]
        asked = [task for task in tasks for _ in range(config.samples_per_task)]
        written = [make_episode(task, text) for task, text in zip(asked, completions, strict=True)]
        with timer.phase("judging"):
            judgements = self._base.judge.judge([(episode.task, episode.source) for episode in written])
        episodes = [replace(e, judgement=judgement) for e, judgement in zip(written, judgements, strict=True)]
        with timer.phase("rewards"):
            self.scheme = scheme_after(self.scheme, self.iteration * config.rollouts_per_iteration)
            credit = self.scheme.credit(episodes)
        batch = make_batch(prompts, completions, credit, self._newlines, device=self.device)
        return Rollout(prompts=prompts, completions=completions, episodes=episodes, batch=batch)

    def evaluate_tokens(self, batch: RolloutBatch) -> tuple[Experience, dict[str, float]]:
        """Turn rewards into advantages and returns: KL penalty, values, GAE, whitening."""
        config, limit = self.config, self.config.micro_batch_tokens
        metrics: dict[str, float] = {}
        rewards = batch.rewards
        if config.kl_coef:
            reference = token_logprobs(
                self.reference, batch, temperature=config.temperature, max_tokens=limit
            )
            kl = kl_k1(batch.logprobs, reference)
            rewards = rewards - config.kl_coef * kl
            metrics["train/kl_to_reference"] = float(masked_mean(kl, batch.mask))
            metrics["train/kl_per_program"] = float(kl.sum() / len(batch))
        values = token_values(self.critic, batch, max_tokens=limit)
        if self.iteration == 0 and config.critic_init == "prm":
            values = self._calibrate(batch, rewards, values, metrics)
        mask, gamma = batch.mask, config.gamma
        advantages, returns = gae(rewards, values, mask, gamma=gamma, gae_lambda=config.gae_lambda)
        if config.critic_gae_lambda != config.gae_lambda:
            _, returns = gae(rewards, values, mask, gamma=gamma, gae_lambda=config.critic_gae_lambda)
        metrics["train/explained_variance"] = explained_variance(values, returns, mask)
        whitened = whiten(advantages, mask)
        return Experience(batch=batch, values=values, advantages=whitened, returns=returns), metrics

    def train(self, experience: Experience, progress_done: float) -> dict[str, float]:
        """Update policy and critic on one rollout."""
        policy, critic = self.learners["policy"], self.learners["critic"]
        rates = self.config.learning_rates(self.iteration, progress_done)
        policy.set_learning_rate(rates[0])
        critic.set_learning_rate(rates[1])
        metrics = update(
            policy,
            critic,
            experience,
            self.config,
            move_policy=self.iteration >= self.config.critic_only_iterations,
            seed=(self.seed, self.iteration),
        )
        self.n_updates += self.config.n_epochs
        self._writer.forget()
        return {
            **{f"train/{name}": value for name, value in metrics.items()},
            "train/learning_rate": rates[0],
            "train/clip_range": self.config.clip_range,
            "train/n_updates": self.n_updates,
        }

    def iterate(self, progress_done: float, callback: BaseCallback | None = None) -> dict[str, float]:
        """Run one iteration and return what it measured, by log key.

        Args:
            progress_done: Share of the run that is done, for the learning rates.
            callback: Told when the rollout starts and ends.
        """
        timer = PhaseTimer()
        if callback is not None:
            callback.on_rollout_start()
        rollout = self.collect(timer)
        if callback is not None:
            callback.update_locals({"rollout": rollout})
            callback.on_rollout_end()
        with timer.phase("evaluation"):
            experience, metrics = self.evaluate_tokens(rollout.batch)
        with timer.phase("update"):
            metrics |= self.train(experience, progress_done)
        with timer.phase("monitoring"):
            scorer = self.scorer or getattr(self.scheme, "scorer", None)
            metrics |= rollout_metrics(rollout, scorer, self.oracle)
        self.iteration += 1
        self.num_timesteps += sum(episode.n_actions for episode in rollout.episodes)
        with timer.phase("refresh"):
            metrics |= self.refresh.add(rollout, self.iteration)
        counters = {"time/iterations": self.iteration, "time/total_timesteps": self.num_timesteps}
        return metrics | speed_metrics(rollout, timer, self.config.n_epochs) | counters

    # --- Stable-Baselines3's verbs -------------------------------------------------------------------------

    def learn(
        self,
        total_timesteps: int | None = None,
        callback: BaseCallback | Callable[..., bool] | list[BaseCallback] | None = None,
        log_interval: int = 1,
        tb_log_name: str = "PSGPO",
        reset_num_timesteps: bool = False,
        progress_bar: bool = False,
    ) -> Self:
        """Train; may be called again, also after `load`, and goes on from where it was.

        Callbacks' `on_step` runs once per iteration, after its update: what it saves is a whole iteration.

        Args:
            total_timesteps: Stop once this many actions were taken in all; None: after
                `config.n_iterations` iterations in all.
            callback: As in Stable-Baselines3; one that returns False ends the training.
            log_interval: Iterations between dumps of the logger.
            tb_log_name: Name of the run in TensorBoard.
            reset_num_timesteps: Count timesteps and iterations from 0 again.
            progress_bar: Show one with an ETA.
        """
        if reset_num_timesteps:
            self.num_timesteps = self.iteration = 0
        if self._logger is None:
            self._logger = configure_logger(
                self.verbose, self.tensorboard_log, tb_log_name, reset_num_timesteps or not self.iteration
            )
        called = _as_callback(callback)
        called.init_callback(self)
        called.on_training_start({"self": self, "total_timesteps": total_timesteps}, globals())
        with progress("psgpo", Console(stderr=True, quiet=not progress_bar)) as report:
            while (done := self._progress(total_timesteps)) < 1.0:
                metrics = self.iterate(done, called)
                for key, value in metrics.items():
                    self.logger.record(key, value)
                if self.iteration % log_interval == 0:
                    self.logger.dump(self.num_timesteps)
                shown = {"pass": metrics["rollout/success_rate"]}
                report(
                    self.iteration if total_timesteps is None else self.num_timesteps,
                    self.config.n_iterations if total_timesteps is None else total_timesteps,
                    shown,
                )
                if not called.on_step():
                    break
        called.on_training_end()
        return self

    def predict(
        self,
        observation: str | Sequence[str] | np.ndarray[Any, Any],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Write the next line, or END_OF_PROGRAM, after each observation.

        Args:
            observation: Prompt and lines so far; or an array of such texts.
            state: Passed through.
            episode_start: Not used.
            deterministic: Take the likeliest token each time.

        Returns:
            The action, or an array of actions, and `state`.
        """
        del episode_start
        if isinstance(observation, str):
            return self._writer.next_lines([observation], deterministic)[0], state
        texts = [str(text) for text in np.asarray(observation).ravel()]
        return np.array(self._writer.next_lines(texts, deterministic), dtype=object), state

    def save(self, path: str | Path) -> None:
        """Write the whole agent to a folder, so that a kill at any moment leaves the old or the new one."""
        checkpoint.save_agent(self, Path(path))

    @classmethod
    def load(
        cls, path: str | Path, env: gym.Env[str, str], *, device: torch.device | str = "auto", **options: Any
    ) -> Self:
        """Read what `save` wrote.

        Args:
            path: The folder.
            env: As in the constructor.
            device: As in the constructor.
            options: The constructor's `scorer`, `oracle`, `refresh`, `tensorboard_log` and `verbose`; a
                refresh hook is told to load its state.

        Raises:
            ValueError: If the folder does not hold a checkpoint of this version.
        """
        return checkpoint.load_agent(cls, Path(path), env, device=device, **options)

    def set_env(self, env: gym.Env[str, str]) -> None:
        """Train on another environment from now on."""
        base = env.unwrapped
        if not isinstance(base, CodeGenEnv):
            raise TypeError(f"PSGPO needs CodeGen-v0 (CodeGenEnv), got {env!r}")
        if env.action_space != CodeSpace(one_line=True):
            raise TypeError(
                f"PSGPO writes lines: it needs the action space {CodeSpace(one_line=True)}, "
                f"got {env.action_space} of {env!r}"
            )
        self.env, self._base = env, base
        self.scheme = env.get_wrapper_attr("scheme") if env.has_wrapper_attr("scheme") else PassFail()

    def get_env(self) -> gym.Env[str, str]:
        """The environment."""
        return self.env

    @property
    def logger(self) -> Logger:
        """Stable-Baselines3's logger; silent before `learn` unless one was set."""
        if self._logger is None:
            self._logger = Logger(folder=None, output_formats=[])
        return self._logger

    def set_logger(self, logger: Logger) -> None:
        """Log there from now on."""
        self._logger = logger

    # --- parts ---------------------------------------------------------------------------------------------

    def _progress(self, total_timesteps: int | None) -> float:
        if total_timesteps is None:
            return self.iteration / self.config.n_iterations
        return self.num_timesteps / total_timesteps

    def _derived_seed(self, purpose: str) -> int:
        sequence = np.random.SeedSequence([self.seed, self.iteration, *purpose.encode()])
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _calibrate(
        self, batch: RolloutBatch, rewards: Tensor, values: Tensor, metrics: dict[str, float]
    ) -> Tensor:
        """Bring a critic that was a reward model onto the returns' scale; return its new values."""
        _, returns = gae(rewards, values, batch.mask, gamma=self.config.gamma, gae_lambda=1.0)
        slope, offset = self.critic.calibrate(values, returns, batch.mask)
        fitted = (slope * values + offset) * batch.mask
        metrics["critic/calibration_slope"], metrics["critic/calibration_offset"] = slope, offset
        for name, estimate in (("before", values), ("after", fitted)):
            variance = explained_variance(estimate, returns, batch.mask)
            metrics[f"critic/explained_variance_{name}"] = variance
        return fitted


def _load_policy(
    policy: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, device: torch.device
) -> tuple[Any, Any]:
    """The model in `eval` mode without dropout, and its tokenizer."""
    if isinstance(policy, str | Path):
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(policy)
        policy = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    if tokenizer is None:
        raise ValueError("a policy given as a model needs its tokenizer: pass tokenizer=")
    # With dropout the log-probabilities of the update would not be those of the sampler.
    return without_dropout(policy).to(device).eval(), tokenizer


def _frozen(model: Any) -> Any:
    return model.requires_grad_(False).eval()


def _as_callback(callback: BaseCallback | Callable[..., bool] | list[BaseCallback] | None) -> BaseCallback:
    if isinstance(callback, BaseCallback):
        return callback
    if callback is None or isinstance(callback, list):
        return CallbackList(callback or [])
    return ConvertCallback(callback)
