"""The adapter between reward schemes and Gymnasium."""

from pathlib import PurePath
from typing import Any

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from codegym.env import CodeGenEnv
from codegym.rewards import RewardScheme, scheme_after, scheme_of
from codegym.rewards.settlement import settle
from codegym.spaces import CodeSpace


class RewardWrapper(gym.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Pays a reward scheme's rewards in the place of the unit-test reward.

    Each line is paid as far as the scheme knows its reward while the program is being written; the last
    action settles, so that an episode's rewards sum to its hindsight credit. At the end `info` holds
    `action_rewards` (that credit, one number per action) and `reward_parts` (the return by part: those of
    the scheme, or all of it under the scheme's name). A scheme with a schedule moves on with every program.

    Args:
        env: `CodeGen-v0`, wrapped or not.
        scheme: A name from `REWARD_SCHEMES`, or a scheme. Only a name survives the `EnvSpec`'s JSON.
        options: Constructor arguments of the named scheme.

    Raises:
        TypeError: If `env` is not a `CodeGenEnv`, already has a reward wrapper, if options come with an
            object, or the scheme is neither a name nor a scheme.
        UnknownNameError: If no scheme has that name.
    """

    def __init__(self, env: gym.Env[str, str], scheme: str | RewardScheme, **options: Any) -> None:
        # The EnvSpec's JSON has no paths.
        options = {name: str(o) if isinstance(o, PurePath) else o for name, o in options.items()}
        # A scheme may hold a model; recording must not copy its weights.
        RecordConstructorArgs.__init__(self, scheme=scheme, _disable_deepcopy=True, **options)
        super().__init__(env)
        _check_wrappable(env)
        self._base.has_reward_wrapper = True
        self.scheme, self._scheme_name = scheme_of(scheme, options)
        self._paid = 0.0
        self._n_programs = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start a program; nothing is paid yet."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._paid = 0.0
        self._base.pay(())
        self.scheme = scheme_after(self.scheme, self._n_programs)
        return observation, info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Write a line or end the program, and pay for it."""
        observation, _, terminated, truncated, info = self.env.step(action)
        episode = self._base.episode
        if not episode.over:
            reward = float(self.scheme.step([episode])[0])
            self._paid += reward
            self._base.pay((*self._base.rewards, reward))
            return observation, reward, terminated, truncated, info
        (settled,) = settle(self.scheme, [episode], name=self._scheme_name)
        self._n_programs += 1
        self._base.pay(settled.info["action_rewards"])
        return observation, settled.total - self._paid, terminated, truncated, {**info, **settled.info}

    @property
    def _base(self) -> CodeGenEnv:
        base = self.env.unwrapped
        if not isinstance(base, CodeGenEnv):
            raise TypeError(f"expected CodeGen-v0 under the wrapper, found {base!r}")
        return base


def _check_wrappable(env: gym.Env[str, str]) -> None:
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, RewardWrapper):
            raise TypeError(
                f"{env} already has a reward wrapper, whose reward would be lost; "
                "give one RewardWrapper the scheme you want"
            )
        layer = layer.env
    if not isinstance(layer, CodeGenEnv):
        raise TypeError(f"RewardWrapper needs CodeGen-v0 (CodeGenEnv), got {layer!r}")
    if env.action_space != CodeSpace(one_line=True):
        raise TypeError(f"RewardWrapper pays for lines: put it inside wrappers with other actions, got {env}")
