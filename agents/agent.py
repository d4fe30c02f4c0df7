"""What every agent does: Stable-Baselines3's verbs over `CodeGen-v0`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from agents.callbacks import MaybeCallback
from codegym.env import CodeGenEnv
from codegym.rewards import RewardScheme
from codegym.rewards.outcome import PassFail
from codegym.spaces import CodeSpace


class Agent(ABC):
    """Writes programs line by line; a timestep is an action, that is a line or the end of the program.

    Callbacks and `evaluate_policy` of Stable-Baselines3 take it for one of their own.

    Args:
        env: `CodeGen-v0`, or a Stable-Baselines3 vector environment of one.

    Raises:
        TypeError: If `env` is not `CodeGen-v0`, or a wrapper gave it actions that are not lines.
        ValueError: If a vector environment holds several.
    """

    scheme: RewardScheme

    def __init__(self, env: gym.Env[str, str] | VecEnv) -> None:
        self.set_env(env)
        self.num_timesteps = 0
        self._logger: Logger | None = None

    @abstractmethod
    def next_lines(self, texts: Sequence[str], deterministic: bool) -> list[str]:
        """The next line, or END_OF_PROGRAM, after each text."""

    @abstractmethod
    def learn(self, total_timesteps: int | None = None, callback: MaybeCallback = None) -> Self:
        """Train; returns the agent itself."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write the agent to a folder."""

    @classmethod
    @abstractmethod
    def load(cls, path: str | Path, env: gym.Env[str, str] | VecEnv, **options: Any) -> Self:
        """Read what `save` wrote."""

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
            return self.next_lines([observation], deterministic)[0], state
        texts = [str(text) for text in np.asarray(observation).ravel()]
        return np.array(self.next_lines(texts, deterministic), dtype=object), state

    def set_env(self, env: gym.Env[str, str] | VecEnv) -> None:
        """Train on another environment from now on."""
        if isinstance(env, VecEnv):
            env, vec_env = _only(env), env
        else:
            vec_env = None
        base = env.unwrapped
        name = type(self).__name__
        if not isinstance(base, CodeGenEnv):
            raise TypeError(f"{name} needs CodeGen-v0 (CodeGenEnv), got {env!r}")
        if env.action_space != CodeSpace(one_line=True):
            raise TypeError(
                f"{name} writes lines: it needs the action space {CodeSpace(one_line=True)}, "
                f"got {env.action_space} of {env!r}"
            )
        self.env, self._base = env, base
        self._vec_env = vec_env or DummyVecEnv([lambda: env])
        self.scheme = env.get_wrapper_attr("scheme") if env.has_wrapper_attr("scheme") else PassFail()

    def get_env(self) -> VecEnv:
        """The environment, as Stable-Baselines3's callbacks want it."""
        return self._vec_env

    def get_vec_normalize_env(self) -> None:
        """Observations are texts and rewards are whitened later: nothing normalises them here."""
        return

    @property
    def logger(self) -> Logger:
        """Stable-Baselines3's logger; silent before `learn` unless one was set."""
        if self._logger is None:
            self._logger = Logger(folder=None, output_formats=[])
        return self._logger

    def set_logger(self, logger: Logger) -> None:
        """Log there from now on."""
        self._logger = logger

    def dump_logs(self) -> None:
        """Write what was recorded since the last time."""
        self.logger.dump(self.num_timesteps)


def _only(vec_env: VecEnv) -> gym.Env[str, str]:
    """The one environment of a vector environment."""
    inner = vec_env.unwrapped
    if not isinstance(inner, DummyVecEnv) or len(inner.envs) != 1:
        raise ValueError(
            "expected a DummyVecEnv of one environment, in which an iteration's programs are written side by "
            f"side; got {inner!r} of {inner.num_envs}"
        )
    env: gym.Env[str, str] = inner.envs[0]
    return env
