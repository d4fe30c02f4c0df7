"""Best of n: search in the place of training."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agents import checkpoint
from agents.agent import Agent
from agents.callbacks import MaybeCallback
from agents.models import load_policy, save_policy
from agents.samplers import make_sampler
from agents.writer import LineWriter
from codegym.episode import Episode
from codegym.rewards import LineScorer
from codegym.table import check_name
from codegym.task import Task
from prm.alignment import split_lines
from prm.completion import Completer, Completion
from prm.reranking import AGGREGATES, aggregate


@dataclass(frozen=True, kw_only=True)
class BestOfNConfig:
    """How to search."""

    n: int = 8  # programs written for one that is kept
    aggregate: str = "mean"  # of a program's line scores: an entry of prm.reranking.AGGREGATES
    max_new_tokens: int = 192  # limit per program
    temperature: float = 1.0  # of the sampler
    sampler: str = "transformers"  # an entry of agents.samplers.SAMPLERS

    def __post_init__(self) -> None:
        for name in ("n", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        check_name(self.aggregate, AGGREGATES, "aggregate")


class BestOfN(Agent):
    """Writes n programs and gives the lines of the best; there is nothing to learn.

    It is only told what to write on, so it finds the task among the environment's by the prompt.

    Args:
        policy: A folder of a causal LM, or such a model.
        env: As in `Agent`.
        config: How to search.
        tokenizer: The policy's; read from the folder if None.
        scorer: Says which program is best. None: the tests do, which is the bound of every scorer, and no
            choice that is open to one who has to answer without them.
        seed: Of the draws.
        device: "cpu", "cuda" or "auto".
        settings: Fields of `config` to replace.
    """

    def __init__(
        self,
        policy: str | Path | PreTrainedModel,
        env: gym.Env[str, str] | VecEnv,
        config: BestOfNConfig | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        scorer: LineScorer | None = None,
        seed: int = 0,
        device: torch.device | str = "auto",
        **settings: Any,
    ) -> None:
        super().__init__(env)
        self.config = replace(config or BestOfNConfig(), **settings)
        self.policy, self.tokenizer = load_policy(policy, tokenizer, device=get_device(device))
        self.scorer, self.seed = scorer, seed
        sampler = make_sampler(self.config.sampler, self.policy, self.tokenizer)
        self._writer = _BestWriter(self, sampler)

    def next_lines(self, texts: Sequence[str], deterministic: bool) -> list[str]:
        """The next line of the best program, or END_OF_PROGRAM, after each text.

        `deterministic` fixes the seed: without draws there would be no n programs.
        """
        return self._writer.next_lines(texts, deterministic)

    def best(self, episodes: Sequence[Episode]) -> int:
        """Which of these finished programs is best, the first of equals."""
        return int(np.argmax(self._worth(episodes)))

    def learn(self, total_timesteps: int | None = None, callback: MaybeCallback = None) -> Self:
        """Do nothing."""
        del total_timesteps, callback
        return self

    def save(self, path: str | Path) -> None:
        """Write policy and settings to a folder."""
        with checkpoint.whole_folder(checkpoint.folder_of(path)) as draft:
            save_policy(self.policy, self.tokenizer, draft / "policy")
            checkpoint.write_state(draft, type(self).__name__, config=asdict(self.config), seed=self.seed)

    @classmethod
    def load(cls, path: str | Path, env: gym.Env[str, str] | VecEnv, **options: Any) -> Self:
        """Read what `save` wrote; `scorer` and `device` are the constructor's."""
        folder = checkpoint.folder_of(path)
        state = checkpoint.read_state(folder, cls)
        return cls(folder / "policy", env, BestOfNConfig(**state["config"]), seed=state["seed"], **options)

    def task_of(self, text: str) -> Task:
        """The task that an observation is about: the one with the longest prompt that it begins with.

        Raises:
            ValueError: If there is none.
        """
        found = [task for task in self._base.tasks if text.startswith(task.prompt)]
        if not found:
            raise ValueError(f"no task of the environment has a prompt that {text[:60]!r} begins with")
        return max(found, key=lambda task: len(task.prompt))

    def _worth(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        if self.scorer is None:
            judgements = self._base.judge.judge([(episode.task, episode.source) for episode in episodes])
            return np.array([judgement.tests_passed for judgement in judgements], dtype=np.float64)
        scores = self.scorer.score(episodes)
        rows = zip(scores, episodes, strict=True)
        return np.array([aggregate(self.config.aggregate, row, episode.lines) for row, episode in rows])


class _BestWriter(LineWriter):
    """Foresees the best of several continuations."""

    def __init__(self, agent: BestOfN, sampler: Completer) -> None:
        super().__init__(sampler, agent.tokenizer, agent.config.max_new_tokens)
        self._agent = agent

    def complete(self, texts: Sequence[str], deterministic: bool) -> list[Completion]:
        """The best of n completions of each text."""
        config = self._agent.config
        groups = self.sampler.sample(
            self.tokenizer(list(texts))["input_ids"],
            n=config.n,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seed=self._agent.seed + (0 if deterministic else self.n_drawn),
        )
        return [self._best(text, group) for text, group in zip(texts, groups, strict=True)]

    def _best(self, text: str, group: Sequence[Completion]) -> Completion:
        task = self._agent.task_of(text)
        written = split_lines(text[len(task.prompt) :])
        episodes = [
            Episode(
                task=task,
                lines=(*written, *split_lines(completion.text)),
                terminated=completion.finished,
                truncated=not completion.finished,
            )
            for completion in group
        ]
        return group[self._agent.best(episodes)]
