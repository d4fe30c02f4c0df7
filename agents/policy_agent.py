"""Training a policy on programs that it wrote itself: what PSGPO and the critic-free baselines share."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from agents import checkpoint, ranks
from agents.alarms import AlarmWatch
from agents.early_judging import EarlyJudging
from agents.iterative_agent import IterativeAgent
from agents.losses import adapted_kl_coef, kl_k1, kl_k3, masked_mean
from agents.models import checkpoint_gradients, load_policy, save_policy
from agents.monitor import PhaseTimer, rollout_metrics, speed_metrics
from agents.policy_config import PolicyConfig
from agents.refresh import Refresh, RefreshQueue
from agents.rollout import Rollout, RolloutBatch, draw_tasks, make_batch, make_episode
from agents.samplers import make_sampler
from agents.samplers.agreement import logprob_gap
from agents.samplers.contract import tells_finished
from agents.shared_weights import adapter_names, make_reference
from agents.update import Experience, Learner, token_logprobs, update
from agents.writer import LineWriter
from codegym.rewards import LineScorer, scheme_after
from prm.alignment import newlines_per_token
from prm.completion import Completion

COMPARED_PROGRAMS = 8
"""Programs whose log-probabilities are checked in an iteration whose update does not do so by itself."""


class PolicyAgent(IterativeAgent):
    """Writes whole programs, judges them, pays for them and updates; a subclass says with what credit.

    All randomness is a function of the seed and the iteration, so a checkpoint needs no generator's state:
    a run that is killed, loaded and continued ends with the same bits on a CPU as one that never stopped.
    Started by `torchrun` or `accelerate launch`, processes share the work of each iteration (`agents.ranks`);
    callbacks run in all of them, the first one logs and saves.

    Args:
        policy: A folder or hub name of a causal LM, or such a model, which is then trained in place. The
            folder of an adapter, or a model that has one, goes on with it.
        env: `CodeGen-v0`; its tasks, its judge, and the scheme of its `RewardWrapper` if it has one. A
            scheme with a schedule moves on with every iteration.
        config: How to train.
        tokenizer: The policy's; read from the folder if None.
        base: The model under the adapter of a folder, if it is not where the adapter says.
        reference: What the KL term pulls towards: a model, which is frozen. If None, a copy of the policy;
            under an adapter, the model without it.
        scorer: Reward model to watch; the reward scheme's own if None.
        oracle: Exact line labels to watch the policy and the scorer with, if there are any.
        refresh: Called every `config.refresh_every` iterations.
        tensorboard_log: Folder for TensorBoard, as in Stable-Baselines3.
        verbose: 1 prints the logged values.
        seed: Of tasks, samples and minibatches.
        device: "cpu", "cuda" or "auto".
        settings: Fields of `config` to replace: `learning_rate=1e-4`.

    Raises:
        TypeError: If `env` is not `CodeGen-v0`, a wrapper gave it actions that are not lines, or a setting is
            unknown.
        ValueError: If an argument that another one needs is missing.
    """

    config_type: ClassVar[type[PolicyConfig]]

    def __init__(
        self,
        policy: str | Path | PreTrainedModel,
        env: gym.Env[str, str] | VecEnv,
        config: PolicyConfig | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        base: str | Path | PreTrainedModel | None = None,
        reference: PreTrainedModel | None = None,
        scorer: LineScorer | None = None,
        oracle: LineScorer | None = None,
        refresh: Refresh | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int = 0,
        device: torch.device | str = "auto",
        **settings: Any,
    ) -> None:
        config = replace(config or self.config_type(), **settings)
        super().__init__(env, config, tensorboard_log=tensorboard_log, verbose=verbose)
        self.device = get_device(device)
        ranks.join(self.device)
        n_tasks = self.config.rollouts_per_iteration // self.config.samples_per_task
        if n_tasks < ranks.size():
            raise ValueError(f"{ranks.size()} processes cannot share {n_tasks} tasks per iteration")
        self.policy, self.tokenizer = load_policy(
            policy,
            tokenizer,
            base=base,
            lora=self.config.lora,
            dtype=getattr(torch, self.config.dtype),
            attention=self.config.attention,
            device=self.device,
            seed=seed,
        )
        # the model under an adapter needs no storing: the adapter says where it is
        self._stores_reference = reference is not None or not adapter_names(self.policy)
        self.reference = make_reference(self.policy) if reference is None else _frozen(reference)
        self.reference.to(self.device)
        if self.config.gradient_checkpointing:
            checkpoint_gradients(self.policy)
        self.scorer, self.oracle = scorer, oracle
        self.refresh = RefreshQueue(refresh, self.config.refresh_every, name=type(self).__name__.lower())
        self.alarms = AlarmWatch()
        self.seed = seed
        self.n_updates = 0
        self.kl_coef = self.config.kl_coef
        self.sampler = make_sampler(
            self.config.sampler, self.policy, self.tokenizer, **self.config.sampler_options
        )
        self.learners = {"policy": Learner.of(self.policy)}
        self._newlines = newlines_per_token(self.tokenizer)
        self._writer = LineWriter(
            self.sampler, self.tokenizer, self.config.max_new_tokens, temperature=self.config.temperature
        )

    # --- one iteration -------------------------------------------------------------------------------------

    @abstractmethod
    def estimate(self, rollout: Rollout) -> tuple[Experience, dict[str, float]]:
        """Turn what was paid into the policy's advantages; also what is to be logged about it."""

    def collect(self, timer: PhaseTimer) -> Rollout:
        """Write and judge this iteration's programs, and pay for them."""
        config = self.config
        n, n_tasks = config.samples_per_task, config.rollouts_per_iteration // config.samples_per_task
        tasks = draw_tasks(self._base.tasks, n_tasks, iteration=self.iteration, seed=self.seed)
        distinct: list[list[int]] = self.tokenizer([task.prompt for task in tasks])["input_ids"]
        prompts = [prompt for prompt in distinct for _ in range(n)]
        asked = [task for task in tasks for _ in range(n)]
        mine = [task for task in ranks.share(tasks) for _ in range(n)]
        with EarlyJudging(self._base.judge, mine) as judging:
            with timer.phase("sampling"):
                drawn = self._sample(ranks.share(distinct), judging)
                completions = ranks.gather(drawn)
            with timer.phase("judging"):
                judgements = ranks.gather(judging.judgements(drawn))
            timer.hide("judging", judging.seconds)
        written = [make_episode(task, text) for task, text in zip(asked, completions, strict=True)]
        episodes = [replace(e, judgement=judgement) for e, judgement in zip(written, judgements, strict=True)]
        with timer.phase("rewards"):
            self.scheme = scheme_after(self.scheme, self.iteration * config.rollouts_per_iteration)
            credits = self.scheme.credit(episodes)
        batch = make_batch(prompts, completions, credits, self._newlines, device=self.device)
        return Rollout(
            prompts=prompts, completions=completions, episodes=episodes, credits=credits, batch=batch
        )

    def _sample(self, prompts: Sequence[Sequence[int]], judging: EarlyJudging) -> list[Completion]:
        early = self.config.judge_early and tells_finished(self.sampler)
        drawn = self.sampler.sample(
            prompts,
            n=self.config.samples_per_task,
            max_new_tokens=self.config.max_new_tokens,
            temperature=self.config.temperature,
            seed=self._derived_seed(f"samples {ranks.rank()}" if ranks.rank() else "samples"),
            **({"on_finished": judging.tell} if early else {}),
        )
        return [completion for group in drawn for completion in group]

    def drift(self, batch: RolloutBatch) -> tuple[Tensor | None, Tensor, dict[str, float]]:
        """How far the policy is from the reference.

        Returns:
            The reference's log-probabilities, None if β is 0; the estimated KL per token, both [B, T]; and
            its means to log.
        """
        config = self.config
        if not config.kl_coef:
            return None, torch.zeros_like(batch.rewards), {}
        reference = token_logprobs(
            self.reference, batch, temperature=config.temperature, max_tokens=config.micro_batch_tokens
        )
        kl = {"k1": kl_k1, "k3": kl_k3}[config.kl_estimator](batch.logprobs, reference)
        metrics = {
            "train/kl_to_reference": float(masked_mean(kl, batch.mask)),
            "train/kl_per_program": float(kl.sum() / len(batch)),
            "train/kl_coef": self.kl_coef,
        }
        return reference, kl, metrics

    def policy_mask(self, rollout: Rollout) -> Tensor:
        """Tokens that the policy learns from. [B, T]."""
        mask = rollout.batch.mask
        if self.config.truncated_programs == "judge":
            return mask
        finished = torch.tensor([completion.finished for completion in rollout.completions])
        return mask & finished.to(mask.device)[:, None]

    def train(self, experience: Experience, progress_done: float) -> dict[str, float]:
        """Update the networks on one rollout."""
        return self._update(experience, progress_done)

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
            experience, metrics = self.estimate(rollout)
        with timer.phase("update"):
            metrics |= self.train(experience, progress_done)
        self._adapt_kl_coef(metrics)
        with timer.phase("monitoring"):
            scorer = self.scorer or getattr(self.scheme, "scorer", None)
            metrics |= rollout_metrics(rollout, scorer, self.oracle)
            metrics |= self.alarms.add(metrics, rollout.episodes, progress_done)
        self.iteration += 1
        self.num_timesteps += sum(episode.n_actions for episode in rollout.episodes)
        with timer.phase("refresh"):
            metrics |= self.refresh.add(rollout, self.iteration)
        counters = {"time/iterations": self.iteration, "time/total_timesteps": self.num_timesteps}
        return metrics | speed_metrics(rollout, timer, self.config.n_epochs) | counters

    def restart(self) -> None:
        """Count timesteps and iterations from 0 again, and forget what raised alarms."""
        super().restart()
        self.alarms.clear()

    # --- Stable-Baselines3's verbs -------------------------------------------------------------------------

    def next_lines(self, texts: Sequence[str], deterministic: bool) -> list[str]:
        """The next line, or END_OF_PROGRAM, after each text."""
        return self._writer.next_lines(texts, deterministic)

    def save(self, path: str | Path) -> None:
        """Write the whole agent to a folder, so that a kill at any moment leaves the old or the new one.

        The suffix ".zip", which callbacks of Stable-Baselines3 add, is left off.
        """
        if ranks.rank() == 0:
            checkpoint.save_agent(self, checkpoint.folder_of(path))
        ranks.wait_for_all()

    def save_policy(self, path: str | Path, *, merge: bool = False) -> None:
        """Write the policy alone, for `AutoModelForCausalLM.from_pretrained`, with its tokenizer.

        Args:
            path: The folder.
            merge: Write a whole model where the policy is an adapter.
        """
        if ranks.rank() == 0:
            save_policy(self.policy, self.tokenizer, Path(path), merge=merge)
        ranks.wait_for_all()

    @classmethod
    def load(
        cls,
        path: str | Path,
        env: gym.Env[str, str] | VecEnv,
        *,
        device: torch.device | str = "auto",
        **options: Any,
    ) -> Self:
        """Read what `save` wrote.

        Args:
            path: The folder.
            env: As in the constructor.
            device: As in the constructor.
            options: The constructor's `base`, `scorer`, `oracle`, `refresh`, `tensorboard_log` and `verbose`;
                a refresh hook is told to load its state.

        Raises:
            ValueError: If the folder does not hold a checkpoint of this version and this agent, or the model
                under its adapter is another one now.
        """
        return checkpoint.load_agent(cls, checkpoint.folder_of(path), env, device=device, **options)

    # --- parts ---------------------------------------------------------------------------------------------

    def save_networks(self, folder: Path) -> None:
        """Write what is trained or compared with, as Hugging Face folders."""
        save_policy(self.policy, self.tokenizer, folder / "policy")
        if self._stores_reference:
            self.reference.save_pretrained(folder / "reference")

    @classmethod
    def load_networks(cls, folder: Path) -> dict[str, Any]:
        """Read what `save_networks` wrote, but for the policy, as arguments of the constructor."""
        if not (folder / "reference").exists():
            return {}
        return {"reference": AutoModelForCausalLM.from_pretrained(folder / "reference", dtype="auto")}

    def _update(
        self,
        experience: Experience,
        progress_done: float,
        *,
        move_policy: bool = True,
        clip_range_vf: float | None = None,
    ) -> dict[str, float]:
        rates = self.config.learning_rates(self.iteration, progress_done)
        for learner, rate in zip(self.learners.values(), rates, strict=True):
            learner.set_learning_rate(rate)
        metrics = update(
            self.learners["policy"],
            self.learners.get("critic"),
            experience,
            self.config,
            move_policy=move_policy,
            kl_coef=self.kl_coef,
            clip_range_vf=clip_range_vf,
            seed=(self.seed, self.iteration),
        )
        if "sampler_logprob_gap" not in metrics:  # the policy stood still, so this is what it drew with
            metrics |= self._sampler_gap(experience.batch)
        self.n_updates += self.config.n_epochs
        self._writer.forget()
        return {
            **{f"train/{name}": value for name, value in metrics.items()},
            "train/learning_rate": rates[0],
            "train/clip_range": self.config.clip_range,
            "train/n_updates": self.n_updates,
        }

    def _sampler_gap(self, batch: RolloutBatch) -> dict[str, float]:
        config = self.config
        gap = logprob_gap(
            self.policy,
            batch.some(COMPARED_PROGRAMS),
            temperature=config.temperature,
            max_tokens=config.micro_batch_tokens,
        )
        return {"sampler_logprob_gap": gap.mean, "sampler_logprob_gap_max": gap.max}

    def _adapt_kl_coef(self, metrics: dict[str, float]) -> None:
        target = self.config.adaptive_kl_target
        if target is not None:
            kl, rate = metrics["train/kl_per_program"], self.config.adaptive_kl_rate
            self.kl_coef = adapted_kl_coef(self.kl_coef, kl, target=target, rate=rate)

    def _derived_seed(self, purpose: str) -> int:
        sequence = np.random.SeedSequence([self.seed, self.iteration, *purpose.encode()])
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _frozen(model: Any) -> Any:
    return model.requires_grad_(False).eval()
