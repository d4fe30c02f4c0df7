"""How far labels by completion can be trusted: every prefix probed, set against what a search inferred."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from prm.agreement import first_wrong
from prm.program import LabeledProgram


class Interval(NamedTuple):
    """A share with its 95 % interval; None where nothing was counted."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(successes: int, n: int) -> Interval:
    """A share of independent trials with its Wilson score interval."""
    if n == 0:
        return Interval(None)
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return Interval(successes / n, float(interval.low), float(interval.high))


def mislabel_probability(probes: Sequence[tuple[int, int]], k: int) -> float | None:
    """Chance that `k` completions all fail though a right program is within reach: the mean of (1 - p)^k.

    Args:
        probes: Passes and tries per prefix. Only prefixes with a pass count, each with p = passes / tries;
            prefixes that were missed altogether are not seen, so the true chance is higher.
        k: Completions before a prefix is given up.

    Returns:
        None if no prefix has a pass.
    """
    rates = np.array([passed / tried for passed, tried in probes if passed])
    return float(((1 - rates) ** k).mean()) if len(rates) else None


def audit(
    scan: Sequence[LabeledProgram],
    estimated: Sequence[LabeledProgram],
    *,
    k: int,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Hold labels by search against those of an exhaustive scan with completions of its own.

    Args:
        scan: Labels of a `FullScanLabeler` with hard labels: `k` completions of every prefix.
        estimated: The labels in question, of the same programs or more.
        k: Completions per prefix in both.
        n_bootstrap: Resamples of tasks for the intervals of shares of lines, which are not independent.
        seed: Of the resampling.

    Returns:
        `programs` that both labelled by completion, and their `prefixes`. `violations`: share of the programs
        in which a lost prefix has a recoverable extension; `violating_prefixes`: share of prefixes that are
        such. `line_agreement` and `same_first_error` of search and scan, which differ by the luck of their
        draws too, and `line_agreement_same_draws`: a search among the scan's own answers, which differs from
        it by violations alone. `completions_vs_full_scan`; `completions_vs_early_stop`: against a scan that
        also stops at a prefix's first pass, half of `k` at a time. `mislabel_probability` at `k`.

    Raises:
        ValueError: If labels of a program differ in number, or the scan did not probe a program.
    """
    guesses = {item.program.program_id: item for item in estimated}
    pairs = [
        (item, guesses[item.program.program_id])
        for item in scan
        if item.program.program_id in guesses and not item.program.passed and item.probes
    ]
    rows = [_Row.of(exact, guess) for exact, guess in pairs]
    task_ids = [exact.program.task_id for exact, _ in pairs]
    n_prefixes = sum(len(row.found) for row in rows)

    def share(part: Callable[[_Row], float]) -> Interval:
        parts = np.array([part(row) for row in rows])
        wholes = np.array([len(row.found) for row in rows], dtype=np.float64)
        return _bootstrap(parts, wholes, task_ids, n_bootstrap, seed)

    counts = [count for exact, _ in pairs for count in exact.probes.values()]
    completions = sum(guess.cost.get("completions", 0) for _, guess in pairs)
    stopping = sum(_expected_draws(passed, tried) for passed, tried in counts)
    return {
        "programs": len(rows),
        "prefixes": n_prefixes,
        "violations": wilson(sum(row.n_violating > 0 for row in rows), len(rows)),
        "violating_prefixes": share(lambda row: row.n_violating),
        "line_agreement": share(lambda row: float((row.found == row.guessed).sum())),
        "line_agreement_same_draws": share(lambda row: float((row.found == searched(row.found)).sum())),
        "same_first_error": wilson(
            sum(first_wrong(r.found) == first_wrong(r.guessed) for r in rows), len(rows)
        ),
        "completions_vs_full_scan": completions / (k * n_prefixes) if rows else None,
        "completions_vs_early_stop": completions / stopping if rows else None,
        "mislabel_probability": mislabel_probability(counts, k),
    }


def searched(found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What a binary search among a scan's answers would call recoverable. [n_prefixes]."""
    low, high = 0, len(found)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if found[middle - 1] else (low, middle - 1)
    return np.arange(len(found)) < low


class _Row(NamedTuple):
    """One program: which prefixes the scan found recoverable, and what the other labels say of them."""

    found: NDArray[np.bool_]
    guessed: NDArray[np.bool_]

    @classmethod
    def of(cls, exact: LabeledProgram, guess: LabeledProgram) -> "_Row":
        if len(exact.labels) != len(guess.labels):
            raise ValueError(
                f"program {exact.program.program_id!r} has {len(exact.labels)} labels by scan "
                f"but {len(guess.labels)} others"
            )
        ends = sorted(exact.probes)
        return cls(
            np.array([exact.probes[m][0] > 0 for m in ends]),
            np.array([guess.labels[m - 1] > 0 for m in ends]),
        )

    @property
    def n_violating(self) -> int:
        """Lost prefixes with a recoverable extension."""
        later = np.logical_or.accumulate(self.found[::-1])[::-1]
        return int((later & ~self.found).sum())


def _expected_draws(passed: int, tried: int) -> float:
    """Draws until the first pass is seen, half of them at a time, in random order."""
    half = max(1, tried // 2)
    all_fail = np.prod([(tried - passed - i) / (tried - i) for i in range(half)])
    return float(half + (tried - half) * all_fail)


def _bootstrap(
    parts: NDArray[np.float64], wholes: NDArray[np.float64], task_ids: Sequence[str], n: int, seed: int
) -> Interval:
    """A ratio of sums over programs, with a percentile interval over tasks drawn with replacement."""
    if not len(parts) or not wholes.sum():
        return Interval(None)
    value = float(parts.sum() / wholes.sum())
    names, task = np.unique(list(task_ids), return_inverse=True)
    sums = [np.bincount(task, weights=column, minlength=len(names)) for column in (parts, wholes)]
    drawn = np.random.default_rng(seed).integers(len(names), size=(n, len(names)))
    ratios = sums[0][drawn].sum(1) / np.maximum(sums[1][drawn].sum(1), 1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Interval(value, float(low), float(high))
