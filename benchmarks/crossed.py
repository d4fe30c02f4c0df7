"""Intervals where every arm ran with the same seeds on the same held-out tasks."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from prm.bootstrap import Estimate

Passes = NDArray[np.float64]
"""Share of programs that passed. [seeds, tasks]."""


def crossed_interval(
    statistic: Callable[..., float | NDArray[np.float64]],
    *arms: Passes,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """A statistic of the arms' mean pass rates, with its 95 % percentile interval; nan if not defined.

    Seeds and tasks are both drawn with replacement, the same draw for every arm: what the arms share cancels
    in their difference (the two-way "pigeonhole" bootstrap, Owen 2007, doi:10.1214/07-AOAS122; it
    is conservative).

    Args:
        statistic: Of the arms' mean pass rates, one argument per arm; must broadcast over resamples.
        arms: Pass rates, paired by seed and task. [seeds, tasks] each.
        n_resamples: Draws.
        seed: Of the draws.

    Raises:
        ValueError: If there is no arm, an arm is empty, or two arms differ in shape.
    """
    if not arms or arms[0].ndim != 2 or not arms[0].size:
        raise ValueError("expected at least one arm of shape [seeds, tasks] with something in it")
    if any(arm.shape != arms[0].shape for arm in arms):
        raise ValueError(f"arms must be paired, got the shapes {[arm.shape for arm in arms]}")
    n_seeds, n_tasks = arms[0].shape
    generator = np.random.default_rng(seed)
    seeds = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_resamples) / n_seeds
    tasks = generator.multinomial(n_tasks, np.full(n_tasks, 1 / n_tasks), size=n_resamples) / n_tasks
    drawn = statistic(*(np.einsum("rs,st,rt->r", seeds, arm, tasks, optimize=True) for arm in arms))
    finite = np.asarray(drawn)[np.isfinite(drawn)]
    low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) else (np.nan, np.nan)
    return Estimate(value=float(statistic(*(arm.mean() for arm in arms))), low=float(low), high=float(high))


def difference(arm: Passes, other: Passes) -> Estimate:
    """How much more `arm` passes than `other`."""
    return crossed_interval(np.subtract, arm, other)


def share_of_gain(arm: Passes, baseline: Passes, bound: Passes) -> Estimate:
    """Which share of the gain of `bound` over `baseline` is the gain of `arm`; nan where there is no gain."""

    def share(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
        gain = np.asarray(c - b, dtype=np.float64)
        return np.divide(a - b, gain, out=np.full_like(gain, np.nan), where=gain > 0)

    return crossed_interval(share, arm, baseline, bound)
