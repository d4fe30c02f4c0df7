"""Sums of reward schemes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode
from codegym.rewards import BoundedScheme, RewardScheme, make_scheme, scheme_after


class Compose:
    """The weighted sum of other schemes; each one's share of the return is a part of its own.

    All but "length" and "syntax" contain the tests' verdict already.

    Args:
        schemes: One mapping per scheme: its `name` in `REWARD_SCHEMES`, a `weight` (1 if left out), and the
            scheme's own options.

    Raises:
        TypeError: If a scheme does not take an option.
        UnknownNameError: If there is no such scheme.
        ValueError: If there are no schemes, one has no name, or a weight is not finite.
    """

    def __init__(self, schemes: Sequence[Mapping[str, Any]]) -> None:
        members: dict[str, tuple[float, RewardScheme]] = {}
        for entry in schemes:
            if "name" not in entry:
                raise ValueError(f"each scheme of a sum needs a name, got {dict(entry)}")
            options = {key: value for key, value in entry.items() if key not in ("name", "weight")}
            name = _unused(entry["name"], members)
            members[name] = entry.get("weight", 1.0), make_scheme(entry["name"], **options)
        self._set(members)

    @classmethod
    def from_schemes(cls, members: Mapping[str, tuple[float, RewardScheme]]) -> "Compose":
        """Build the sum of schemes that are already in memory: weight and scheme by the name of the part."""
        composed = cls.__new__(cls)
        composed._set(members)
        return composed

    def _set(self, members: Mapping[str, tuple[float, RewardScheme]]) -> None:
        if not members:
            raise ValueError("a sum needs at least one scheme, got none")
        for name, (weight, _) in members.items():
            if not math.isfinite(weight):
                raise ValueError(f"the weight of {name!r} must be finite, got {weight}")
        self.members = dict(members)

    def parts(self, episodes: Sequence[Episode]) -> list[dict[str, NDArray[np.float64]]]:
        """Weighted credit by member. [n_actions] each."""
        credits = {
            name: [weight * credit for credit in scheme.credit(episodes)]
            for name, (weight, scheme) in self.members.items()
        }
        return [{name: credits[name][index] for name in credits} for index in range(len(episodes))]

    def credit(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """Hindsight: the sum of the members' credits. [n_actions] each."""
        return [np.sum(list(parts.values()), axis=0) for parts in self.parts(episodes)]

    def step(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        """Streaming: the sum of what the members know by now. [B]."""
        steps = [weight * scheme.step(episodes) for weight, scheme in self.members.values()]
        return np.asarray(np.sum(steps, axis=0), dtype=np.float64)

    def bounds(self, *, passed: bool) -> tuple[float, float]:
        """The sum of the members' bounds; infinite if a member has none."""
        low = high = 0.0
        for weight, scheme in self.members.values():
            if weight == 0:
                continue
            ends = -math.inf, math.inf
            if isinstance(scheme, BoundedScheme):
                ends = scheme.bounds(passed=passed)
            low, high = low + min(weight * end for end in ends), high + max(weight * end for end in ends)
        return low, high

    def after(self, n_programs: int) -> "Compose":
        """The sum of what its members are once that many programs have been paid."""
        return Compose.from_schemes(
            {
                name: (weight, scheme_after(scheme, n_programs))
                for name, (weight, scheme) in self.members.items()
            }
        )


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """The name, numbered from 2 on if a part has it already."""
    number = sum(part.split("#")[0] == name for part in taken) + 1
    return name if number == 1 else f"{name}#{number}"
