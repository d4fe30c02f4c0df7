"""Reward schemes: how an episode's verdict and lines become one reward per action."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode
from codegym.table import check_object, resolve

REWARD_SCHEMES = {
    "pass_fail": "codegym.rewards.outcome:PassFail",
    "pass_rate": "codegym.rewards.outcome:PassRate",
    "weighted": "codegym.rewards.outcome:WeightedTests",
    "coderl": "codegym.rewards.graded:CodeRL",
    "rltf": "codegym.rewards.graded:RLTF",
    "process": "codegym.rewards.process:ProcessReward",
    "potential": "codegym.rewards.shaping:potential_shaping",
    "length": "codegym.rewards.shaping:LengthReward",
    "syntax": "codegym.rewards.shaping:SyntaxReward",
    "compose": "codegym.rewards.compose:Compose",
}


@runtime_checkable
class RewardScheme(Protocol):
    """A pure function from episodes to rewards, in two readings that sum to the same return.

    What a scheme may also tell is in `PartedScheme`, `BoundedScheme` and `ScheduledScheme`.
    """

    def credit(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """Hindsight: one reward per action of each finished episode. [n_actions] each."""
        ...

    def step(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        """Streaming: the reward of the newest action of each unfinished episode. [B]."""
        ...


@runtime_checkable
class PartedScheme(Protocol):
    """A scheme whose return has parts worth logging apart."""

    def parts(self, episodes: Sequence[Episode]) -> list[dict[str, NDArray[np.float64]]]:
        """Rewards by part; over all parts they sum to `credit`. [n_actions] each."""
        ...


@runtime_checkable
class BoundedScheme(Protocol):
    """A scheme that knows how much a program can earn; see `is_ordered`."""

    def bounds(self, *, passed: bool) -> tuple[float, float]:
        """The least and the most that any passing, or any failing, program can earn; may be infinite."""
        ...


@runtime_checkable
class ScheduledScheme(Protocol):
    """A scheme that changes while a policy is trained with it."""

    def after(self, n_programs: int) -> RewardScheme:
        """The scheme to use once that many programs have been paid."""
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


def scheme_of(scheme: str | RewardScheme, options: Mapping[str, Any]) -> tuple[RewardScheme, str]:
    """The scheme that a wrapper was given, by name or as an object, and what it is called.

    Raises:
        TypeError: If options come with an object, or the scheme is neither a name nor a scheme.
        UnknownNameError: If no scheme has that name.
    """
    if isinstance(scheme, str):
        return make_scheme(scheme, **options), scheme
    if options:
        raise TypeError(f"options {sorted(options)} go with a scheme's name, not with an object")
    check_object(scheme, RewardScheme, "scheme")
    return scheme, type(scheme).__name__


def is_ordered(scheme: RewardScheme) -> bool:
    """Whether a scheme promises that no failing program earns as much as a passing one.

    A scheme without `bounds` does, and is held to it by `codegym.testing.check_reward_scheme`; one whose
    bounds overlap does not.
    """
    if not isinstance(scheme, BoundedScheme):
        return True
    return scheme.bounds(passed=False)[1] < scheme.bounds(passed=True)[0]


def scheme_after(scheme: RewardScheme, n_programs: int) -> RewardScheme:
    """The scheme to use once that many programs have been paid; most stay as they are."""
    return scheme.after(n_programs) if isinstance(scheme, ScheduledScheme) else scheme
