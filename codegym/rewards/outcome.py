"""Rewards that depend on the tests alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode


def outcome(episode: Episode) -> float:
    """R_UT of PSGPO (arXiv:2410.17621): 1 if the program passes every test, else 0.

    Raises:
        ValueError: If the episode has not ended or was not judged.
    """
    if not episode.over or episode.judgement is None:
        raise ValueError(f"the episode of task {episode.task.task_id!r} has not ended with a judgement yet")
    return float(episode.judgement.passed)


class PassFail:
    """Pays `outcome` on the last action and nothing before: the reward of `CodeGen-v0` itself."""

    def credit(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """Hindsight: zeros, then the outcome. [n_actions] each.

        Raises:
            ValueError: If an episode has not ended with a judgement.
        """
        rewards = []
        for episode in episodes:
            reward = np.zeros(episode.n_actions)
            reward[-1:] = outcome(episode)
            rewards.append(reward)
        return rewards

    def step(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        """Streaming: nothing is known before the tests have run. [B]."""
        return np.zeros(len(episodes))
