"""The floor: lines drawn at random."""

from binascii import crc32
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from agents import checkpoint
from agents.agent import Agent
from agents.callbacks import MaybeCallback
from codegym.episode import END_OF_PROGRAM


class RandomAgent(Agent):
    """Draws lines from the action space; there is nothing to learn.

    Args:
        policy: Not used; agents are made alike.
        env: As in `Agent`.
        end_probability: Chance that the program ends instead.
        seed: Of the draws; with `deterministic` an observation always gets the same line.

    Raises:
        ValueError: If `end_probability` is not in (0, 1].
    """

    def __init__(
        self,
        policy: object,
        env: gym.Env[str, str] | VecEnv,
        *,
        end_probability: float = 0.2,
        seed: int = 0,
    ) -> None:
        del policy
        super().__init__(env)
        if not 0 < end_probability <= 1:
            raise ValueError(f"end_probability must be in (0, 1], got {end_probability}")
        self.end_probability, self.seed = end_probability, seed
        self._rng = np.random.default_rng(seed)
        self._lines = deepcopy(self.env.action_space)

    def next_lines(self, texts: Sequence[str], deterministic: bool) -> list[str]:
        """A random line, or END_OF_PROGRAM, after each text."""
        return [self._line(text if deterministic else None) for text in texts]

    def learn(self, total_timesteps: int | None = None, callback: MaybeCallback = None) -> Self:
        """Do nothing."""
        del total_timesteps, callback
        return self

    def save(self, path: str | Path) -> None:
        """Write the settings to a folder."""
        settings = {"end_probability": self.end_probability, "seed": self.seed}
        with checkpoint.whole_folder(checkpoint.folder_of(path)) as draft:
            checkpoint.write_state(draft, type(self).__name__, config=settings)

    @classmethod
    def load(cls, path: str | Path, env: gym.Env[str, str] | VecEnv, **options: Any) -> Self:
        """Read what `save` wrote."""
        return cls(
            None, env, **{**checkpoint.read_state(checkpoint.folder_of(path), cls)["config"], **options}
        )

    def _line(self, text: str | None) -> str:
        rng = self._rng
        if text is not None:
            rng = np.random.default_rng([self.seed, crc32(text.encode(errors="backslashreplace"))])
        if rng.random() < self.end_probability:
            return END_OF_PROGRAM
        self._lines.seed(int(rng.integers(2**31)))
        return self._lines.sample()
