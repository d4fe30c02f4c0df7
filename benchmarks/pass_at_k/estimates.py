"""pass@k: the unbiased estimator, and its interval over tasks."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from benchmarks.pass_at_k.verdicts import Row
from prm.audit import wilson
from prm.bootstrap import Estimate, bootstrap

N_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class PassAtK:
    """pass@k of a set of tasks.

    Attributes:
        k: Programs that one may try.
        estimate: The mean over tasks, with its 95 % interval.
        interval: "Wilson" where every task counts 0 or 1, else "bootstrap over tasks".
        n_tasks: Tasks that count.
        n_left_out: Tasks that do not, since failures of the sandbox left them fewer than k verdicts.
    """

    k: int
    estimate: Estimate
    interval: str
    n_tasks: int
    n_left_out: int


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that one of k samples passes, drawn without replacement from n of which c pass.

    1 - C(n - c, k) / C(n, k): equation 1 of arXiv:2107.03374, unbiased.

    Raises:
        ValueError: If not 0 <= c <= n, or not 1 <= k <= n.
    """
    if not 0 <= c <= n:
        raise ValueError(f"{c} of {n} samples cannot pass")
    if not 1 <= k <= n:
        raise ValueError(f"k must be from 1 to n = {n}, got {k}")
    return 1.0 - comb(n - c, k) / comb(n, k)


def check_k(ks: Sequence[int], task_ids: Sequence[str]) -> None:
    """Nothing, if every task that has samples has at least k of them.

    Args:
        ks: What pass@k is wanted for.
        task_ids: The task of each sample.

    Raises:
        ValueError: If k is less than 1, or a task has fewer samples; names the task with fewest.
    """
    if not ks or min(ks) < 1:
        raise ValueError(f"k must be at least 1, got {list(ks)}")
    fewest, n = min(Counter(task_ids).items(), key=lambda entry: entry[1])
    if max(ks) > n:
        raise ValueError(f"pass@{max(ks)} needs {max(ks)} samples of every task, and {fewest!r} has {n}")


def estimate_pass_at_k(rows: Sequence[Row], k: int) -> PassAtK:
    """pass@k over the tasks that have rows; samples without a verdict are neither passes nor failures."""
    n = Counter(row.task_id for row in rows if row.judged)
    c = Counter(row.task_id for row in rows if row.passed)
    tasks = sorted({row.task_id for row in rows})
    counted = [task for task in tasks if n[task] >= k]
    values = np.array([pass_at_k(n[task], c[task], k) for task in counted])
    is_share = bool(np.isin(values, (0.0, 1.0)).all())
    return PassAtK(
        k=k,
        estimate=_share(values) if is_share else _resampled(values, counted),
        interval="Wilson" if is_share else "bootstrap over tasks",
        n_tasks=len(counted),
        n_left_out=len(tasks) - len(counted),
    )


def _share(values: NDArray[np.float64]) -> Estimate:
    found = wilson(int(values.sum()), len(values))
    return Estimate(value=found.value, low=found.low, high=found.high)


def _resampled(values: NDArray[np.float64], tasks: Sequence[str]) -> Estimate:
    def mean(weights: NDArray[np.float64]) -> dict[str, float]:
        return {"pass": float(np.average(values, weights=weights))}

    return bootstrap(mean, tasks, n_resamples=N_RESAMPLES)["pass"]
