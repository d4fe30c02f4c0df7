"""What the other granularities share: one action of theirs is some actions of the line environment."""

from collections.abc import Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from codegym.env import CodeGenEnv
from codegym.episode import Episode
from codegym.spaces import CodeSpace

ObsType = TypeVar("ObsType")
ActType = TypeVar("ActType")
LineStep: TypeAlias = tuple[str, float, bool, bool, dict[str, Any]]


class LineSender(gym.Wrapper[ObsType, ActType, str, str], RecordConstructorArgs, Generic[ObsType, ActType]):
    """Wraps the line environment and sends it lines.

    Args:
        env: `CodeGen-v0`, perhaps in a reward wrapper or others that keep its actions.

    Raises:
        TypeError: If `env` does not take lines.
    """

    def __init__(self, env: gym.Env[str, str]) -> None:
        if not isinstance(env.unwrapped, CodeGenEnv) or env.action_space != CodeSpace(one_line=True):
            raise TypeError(f"{type(self).__name__} needs CodeGen-v0 with lines as actions, got {env}")
        super().__init__(env)  # type: ignore[arg-type]
        self._lines_env = env
        self._base: CodeGenEnv = env.unwrapped
        self._info: dict[str, Any] = {}
        self._sending: tuple[str, ...] | None = None
        self._sent = 0
        self._earned = 0.0

    @property
    def episode(self) -> Episode:
        """The whole state of the line environment.

        Raises:
            ResetNeeded: Before the first `reset`.
        """
        return self._base.episode

    def _restart(self, seed: int | None, options: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
        """Reset the line environment."""
        text, self._info = self._lines_env.reset(seed=seed, options=options)
        self._forget()
        return text, dict(self._info)

    def _send(self, actions: Sequence[str]) -> LineStep:
        """Step the line environment through `actions`, or until the episode ends, and sum the rewards.

        If the judge fails, the lines that went before are written already; the same call then goes on
        where it stopped.

        Raises:
            SandboxError: If the judge itself failed; the same action may be repeated.
            ValueError: If another action is tried instead.
        """
        if self._sending is not None and self._sending != tuple(actions):
            raise ValueError("the judge failed during a step: repeat that step's action, or reset()")
        self._sending = tuple(actions)
        while self._sent < len(self._sending) and not self.episode.over:
            _, reward, _, _, self._info = self._lines_env.step(self._sending[self._sent])
            self._sent += 1
            self._earned += float(reward)
        reward = self._earned
        self._forget()
        episode = self.episode
        return episode.text, reward, episode.terminated, episode.truncated, dict(self._info)

    def _forget(self) -> None:
        self._sending, self._sent, self._earned = None, 0, 0.0
