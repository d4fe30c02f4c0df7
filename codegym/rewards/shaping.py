"""Shaping: rewards for what a program looks like, to be added to one for what it does.

`LengthReward` and `SyntaxReward` say nothing about the verdict, so alone they teach nothing worth learning:
add them to another scheme with "compose".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode
from codegym.rewards import LineScorer
from codegym.rewards.assignment import capped
from codegym.rewards.process import ProcessReward
from codegym.rewards.source import broken_line, completeness
from codegym.table import check_name

_MEASURES = ("lines", "chars")


def potential_shaping(
    prm: str | None = None, *, scorer: LineScorer | None = None, scale: float = 1.0, gamma: float = 1.0
) -> ProcessReward:
    """R_UT + scale · (γ Φ(s') - Φ(s)): shaping that leaves the optimal policy as it is (Ng et al. 1999).

    Φ is (score + 1) / 2 of the newest line that is not blank or comment; 0 before the first, and 0 once the
    program is finished, as the theorem needs. Then all that is paid cancels: a program's discounted return is
    that of the tests alone, only its timing differs. `gamma` must be the learner's.

    Args:
        prm: Folder of a saved process reward model.
        scorer: An object in the place of `prm`.
        scale: Weight of the potential.
        gamma: Discount of the learner.
    """
    return ProcessReward(
        prm=prm, scorer=scorer, form="potential", gate="both", lambda_fail=scale, gamma=gamma
    )


@dataclass(frozen=True, kw_only=True)
class LengthReward:
    """Pays for every line or character, a penalty or a bonus; nothing for the verdict.

    A program of U lines (or characters, newlines included) earns rate · max(0, U - free), within ±cap, each
    line its part. free = L_max - L_cache, rate = -1 / L_cache and cap = 1 is the soft overlong punishment of
    DAPO (arXiv:2503.14476, eq. 13).
    """

    measure: Literal["lines", "chars"] = "lines"  # what is counted
    rate: float = -0.01  # earned per line or character; negative: a penalty
    free: int = 0  # so many cost nothing
    cap: float = 0.2  # bound on what a program earns or loses

    def __post_init__(self) -> None:
        check_name(self.measure, _MEASURES, "measure of length")
        if not np.isfinite(self.rate):
            raise ValueError(f"rate must be finite, got {self.rate}")
        if self.free < 0:
            raise ValueError(f"free must be >= 0, got {self.free}")
        if not 0 < self.cap < float("inf"):
            raise ValueError(f"cap must be positive and finite, got {self.cap}")

    def credit(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """Hindsight: each line's part; nothing for END_OF_PROGRAM. [n_actions] each."""
        return [np.append(self._parts(e), 0.0)[: e.n_actions] for e in episodes]

    def step(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        """Streaming: the newest line's part. [B]."""
        return np.array([self._parts(e)[-1] if e.lines else 0.0 for e in episodes], dtype=np.float64)

    def bounds(self, *, passed: bool) -> tuple[float, float]:
        """The cap on one side; the same for passing and failing programs."""
        del passed
        return (-self.cap, 0.0) if self.rate < 0 else (0.0, self.cap)

    def _parts(self, episode: Episode) -> NDArray[np.float64]:
        sizes = [1 if self.measure == "lines" else len(line) + 1 for line in episode.lines]
        charged = np.maximum(np.cumsum(sizes, dtype=np.float64) - self.free, 0.0)
        return capped(np.diff(self.rate * charged, prepend=0.0), self.cap)


@dataclass(frozen=True, kw_only=True)
class SyntaxReward:
    """Takes `penalty` at the line after which no continuation parses; nothing for the verdict.

    A program that ends in the middle of a statement, where it could still be repaired, pays on its last
    action. Whether text is unfinished or wrong is the distinction that Python's own prompt makes (`codeop`).
    """

    penalty: float = 0.1  # lost once per program

    def __post_init__(self) -> None:
        if not 0 <= self.penalty < float("inf"):
            raise ValueError(f"penalty must be finite and >= 0, got {self.penalty}")

    def credit(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """Hindsight: the penalty on the line that broke the program. [n_actions] each."""
        credits = []
        for episode in episodes:
            credit = np.zeros(episode.n_actions)
            broken = broken_line(episode.task, episode.lines)
            if broken is not None:
                credit[broken] = -self.penalty
            elif completeness(episode.source) == "incomplete":
                credit[-1:] = -self.penalty
            credits.append(credit)
        return credits

    def step(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        """Streaming: the penalty, if it is the newest line that broke the program. [B]."""
        return np.array([-self.penalty * _just_broke(episode) for episode in episodes], dtype=np.float64)

    def bounds(self, *, passed: bool) -> tuple[float, float]:
        """The penalty or nothing; the same for passing and failing programs."""
        del passed
        return -self.penalty, 0.0


def _just_broke(episode: Episode) -> bool:
    if not episode.lines or completeness(episode.source) != "broken":
        return False
    return completeness(replace(episode, lines=episode.lines[:-1]).source) != "broken"
