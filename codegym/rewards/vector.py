"""Reward schemes for vector environments."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from codegym.rewards import RewardScheme, scheme_after, scheme_of
from codegym.rewards.score_batch import one_batch
from codegym.rewards.settlement import settle
from codegym.vector import CodeGenVectorEnv, Step, Texts


class VectorRewardWrapper(VectorWrapper[Texts, Sequence[str], Texts, Sequence[str], NDArray[Any]]):
    """`RewardWrapper` for `CodeGenVectorEnv`: the same rewards and infos, all programs in one batch.

    Per step the scheme is asked once for the programs being written and once for those that have ended, and
    a line scorer only once for all. With autoreset in the same step, the end's `action_rewards` and
    `reward_parts` are in `infos["final_info"]`. A scheme with a schedule moves on with the programs of all
    environments together.

    Args:
        env: `gym.make_vec("CodeGen-v0", ...)`, wrapped or not.
        scheme: A name from `REWARD_SCHEMES`, or a scheme.
        options: Constructor arguments of the named scheme.

    Raises:
        TypeError: If `env` is not a `CodeGenVectorEnv`, already has a reward wrapper, if options come with an
            object, or the scheme is neither a name nor a scheme.
        UnknownNameError: If no scheme has that name.
    """

    def __init__(
        self, env: VectorEnv[Texts, Sequence[str], NDArray[Any]], scheme: str | RewardScheme, **options: Any
    ) -> None:
        super().__init__(env)
        self._base = _wrappable(env)
        self.scheme, self._scheme_name = scheme_of(scheme, options)
        self._paid = np.zeros(self.num_envs)
        self._n_programs = 0

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Texts, dict[str, Any]]:
        """Start programs; nothing is paid for them yet."""
        texts, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._paid[[episode.n_actions == 0 for episode in self._base.stepped]] = 0.0
        self.scheme = scheme_after(self.scheme, self._n_programs)
        return texts, infos

    def step(self, actions: Sequence[str]) -> Step:
        """Write a line or end the program everywhere, and pay for it."""
        texts, _, terminated, truncated, infos = self.env.step(actions)
        episodes = self._base.stepped
        over = np.flatnonzero(terminated | truncated).tolist()
        # An episode without actions was reset by this step.
        running = [i for i, episode in enumerate(episodes) if episode.n_actions and not episode.over]
        rewards = np.zeros(self.num_envs)
        with one_batch([episodes[i] for i in sorted([*running, *over])]):
            rewards[running] = self.scheme.step([episodes[i] for i in running])
            settled = settle(self.scheme, [episodes[i] for i in over], name=self._scheme_name)
        ends = infos["final_info"] if over and self._resets_at_once else infos
        ends.pop("reward_parts", None)
        for index, settlement in zip(over, settled, strict=True):
            rewards[index] = settlement.total - self._paid[index]
            self._add_info(ends, settlement.info, index)
            self._base.rewards[index] = settlement.info["action_rewards"]
        for index in running:
            self._base.rewards[index] = (*self._base.rewards[index][:-1], float(rewards[index]))
        self._paid = np.where(terminated | truncated, 0.0, self._paid + rewards)
        self._n_programs += len(over)
        if over:
            self.scheme = scheme_after(self.scheme, self._n_programs)
        return texts, rewards, terminated, truncated, infos

    @property
    def _resets_at_once(self) -> bool:
        return self._base.autoreset_mode is AutoresetMode.SAME_STEP


def _wrappable(env: VectorEnv[Any, Any, Any]) -> CodeGenVectorEnv:
    layer: Any = env
    while isinstance(layer, VectorWrapper):
        if isinstance(layer, VectorRewardWrapper):
            raise TypeError(
                f"{env} already has a reward wrapper, whose reward would be lost; "
                "give one VectorRewardWrapper the scheme you want"
            )
        layer = layer.env
    if not isinstance(layer, CodeGenVectorEnv):
        raise TypeError(
            'VectorRewardWrapper needs gym.make_vec("CodeGen-v0", ...) (CodeGenVectorEnv), got '
            f"{layer!r}; for other vector environments, wrap each environment in RewardWrapper"
        )
    return layer
