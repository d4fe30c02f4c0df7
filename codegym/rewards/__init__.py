"""Reward schemes: how an episode's verdict and lines become one reward per action."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode
from codegym.table import resolve

REWARD_SCHEMES = {
    "pass_fail": "codegym.rewards.outcome:PassFail",
    "process": "codegym.rewards.process:ProcessReward",
}


@runtime_checkable
class RewardScheme(Protocol):
    """A pure function from episodes to rewards, in two readings that sum to the same return."""

    def credit(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """Hindsight: one reward per action of each finished episode. [n_actions] each."""
        ...

    def step(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        """Streaming: the reward of the newest action of each unfinished episode. [B]."""
        ...


@runtime_checkable
class LineScorer(Protocol):
    """Scores the lines of programs: a process reward model, or an oracle."""

    def score(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """One score in [-1, 1] per line: how right the program is up to and including it."""
        ...


def make_scheme(name: str, **options: Any) -> RewardScheme:
    """Build a reward scheme by name; options go to its constructor.

    Raises:
        UnknownNameError: If `name` is not in `REWARD_SCHEMES`.
    """
    scheme: RewardScheme = resolve(REWARD_SCHEMES, name, "reward scheme")(**options)
    return scheme
