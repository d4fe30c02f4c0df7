"""What a finished episode has earned: shared by the wrappers of single and of vector environments."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode
from codegym.rewards import PartedScheme, RewardScheme


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """A finished episode's rewards.

    Attributes:
        credit: One reward per action. [n_actions]
        parts: The return by part.
    """

    credit: NDArray[np.float64]
    parts: dict[str, float]

    @property
    def total(self) -> float:
        """The return: what was paid on the way must be brought up to this on the last action."""
        return float(self.credit.sum())

    @property
    def info(self) -> dict[str, Any]:
        """The entries of `info` at the end of an episode."""
        return {"action_rewards": tuple(self.credit.tolist()), "reward_parts": self.parts}


def settle(scheme: RewardScheme, episodes: Sequence[Episode], *, name: str) -> list[Settlement]:
    """Credit finished episodes, with one call of the scheme for all.

    A scheme without parts of its own has one, which has its name.

    Args:
        scheme: The reward scheme.
        episodes: Judged episodes.
        name: What the scheme is called.
    """
    if isinstance(scheme, PartedScheme):
        return [
            Settlement(
                credit=np.sum(list(parts.values()), axis=0),
                parts={part: float(rewards.sum()) for part, rewards in parts.items()},
            )
            for parts in scheme.parts(episodes)
        ]
    return [
        Settlement(credit=credit, parts={name: float(credit.sum())}) for credit in scheme.credit(episodes)
    ]
