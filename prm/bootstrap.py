"""Intervals by resampling tasks: the programs of one task are right and wrong together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Measure: TypeAlias = Callable[[NDArray[np.float64]], Mapping[str, float | None]]
"""From how often each program counts [P] to numbers by name; None where one is not defined."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 95 % bootstrap interval; all None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        interval = "" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f}{interval}"


def bootstrap(
    measure: Measure, task_ids: Sequence[str], *, n_resamples: int, seed: int = 0
) -> dict[str, Estimate]:
    """Every number that `measure` gives, with a percentile interval over tasks drawn with replacement.

    Args:
        measure: Gives the numbers of a sample of programs, which are weights and nothing else.
        task_ids: The task of each program. [P]
        n_resamples: Resamples; 0 for no intervals.
        seed: Of the draws.
    """
    names, task_of_program = np.unique(list(task_ids), return_inverse=True)
    generator = np.random.default_rng(seed)
    samples: dict[str, list[float]] = {}
    for _ in range(n_resamples):
        drawn = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
        for name, value in measure(drawn[task_of_program].astype(np.float64)).items():
            if value is not None:
                samples.setdefault(name, []).append(value)
    estimates = {}
    for name, value in measure(np.ones(len(task_of_program))).items():
        low, high = _interval(samples.get(name, [])) if value is not None else (None, None)
        estimates[name] = Estimate(value=value, low=low, high=high)
    return estimates


def _interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))
