"""Which held-out tasks every arm of every seed solved, and what that says."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from agents.evaluation import read_evaluation
from benchmarks.crossed import Passes, crossed_interval, difference

Rates: TypeAlias = dict[tuple[str, str], Passes]
"""Passes by arm and decoding. [seeds, tasks] each."""
SAMPLED, GREEDY = "sampled", "greedy"
DECODINGS = (SAMPLED, GREEDY)
FEW_SEEDS = 5
"""With fewer, a report says that its intervals show little of how seeds differ."""


def read_rates(files: Iterable[Path]) -> tuple[Rates, dict[str, int]]:
    """Passes of every arm, and the horizon of each task, which are their columns in order.

    Args:
        files: Evaluation rows, a file per seed.

    Raises:
        ValueError: If a seed did not evaluate the same arms on the same tasks as the others.
    """
    seeds: dict[Path, dict[tuple[str, str], dict[str, float]]] = {}
    horizons: dict[str, int] = {}
    for path in files:
        passed = seeds.setdefault(path, {})
        for row in read_evaluation(path):
            passed.setdefault((row.arm, row.decoding), {})[row.task_id] = float(row.passed)
            horizons.setdefault(row.task_id, row.horizon or 0)
    rates: Rates = {}
    for key in dict.fromkeys(key for passed in seeds.values() for key in passed):
        for path, passed in seeds.items():
            if (found := set(passed.get(key, ()))) != set(horizons):
                raise ValueError(
                    f"{path}: {key[0]} ({key[1]}) was evaluated on {len(found)} of {len(horizons)} tasks"
                )
        rates[key] = np.array([[passed[key][task] for task in horizons] for passed in seeds.values()])
    return rates, horizons


def pass_rows(
    rates: Rates,
    horizons: Mapping[str, int],
    arms: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    buckets: Sequence[tuple[int, int]],
) -> list[dict[str, Any]]:
    """A row per arm, decoding and bucket of horizons, then one per pair of arms: what the first has more.

    Args:
        rates: Passes.
        horizons: Steps of each task.
        arms: Which to report; those that were not evaluated are left out.
        pairs: Arms to compare, each with the one it is compared with.
        buckets: Least and most steps of the tasks reported together.
    """
    rows = []
    for about, part in in_buckets(rates, horizons, arms, buckets):
        for arm in part:
            found = asdict(crossed_interval(lambda rate: rate, part[arm]))
            seeds = part[arm].mean(axis=1).tolist()
            rows.append({**about, "measure": "pass", "arm": arm, **found, "seeds": seeds})
        for arm, other in pairs:
            if arm in part and other in part:
                found = asdict(difference(part[arm], part[other]))
                rows.append({**about, "measure": "difference", "arm": arm, "other": other, **found})
    return rows


def in_buckets(
    rates: Rates, horizons: Mapping[str, int], arms: Sequence[str], buckets: Sequence[tuple[int, int]]
) -> Iterable[tuple[dict[str, str], dict[str, Passes]]]:
    """The columns that say which, and the passes by arm, of every decoding and bucket that has tasks."""
    steps = np.array(list(horizons.values()))
    for decoding in DECODINGS:
        for low, high in dict.fromkeys(buckets):
            inside = (steps >= low) & (steps <= high)
            if inside.any():
                evaluated = [arm for arm in arms if (arm, decoding) in rates]
                part = {arm: rates[arm, decoding][:, inside] for arm in evaluated}
                yield {"decoding": decoding, "horizons": f"{low}-{high}"}, part


def by_length(
    files: Iterable[Path], arms: Sequence[str], lengths: Mapping[str, int], edges: Sequence[int]
) -> list[dict[str, Any]]:
    """Share of sampled programs that pass, by the tokens of the task's reference. A row per arm and range.

    Args:
        files: Evaluation rows, a file per seed.
        arms: Which to report.
        lengths: Tokens of each task's reference.
        edges: Range i holds lengths above edge i - 1 and up to edge i; the last range is open.
    """
    groups: dict[tuple[str, int], list[bool]] = {}
    sampled = (row for path in files for row in read_evaluation(path) if row.decoding == SAMPLED)
    for row in sampled:
        place = int(np.searchsorted(edges, lengths[row.task_id]))
        groups.setdefault((row.arm, place), []).append(row.passed)
    titles = [f"up to {edges[0]}", *(f"{a + 1}-{b}" for a, b in pairwise(edges))]
    titles.append(f"above {edges[-1]}")
    return [
        {
            "measure": "pass by tokens", "arm": arm, "tokens": title,
            "value": float(np.mean(groups[arm, place])), "programs": len(groups[arm, place]),
        }
        for arm in arms
        for place, title in enumerate(titles)
        if (arm, place) in groups
    ]  # fmt: skip


def about_intervals(n_seeds: int) -> str:
    """What the intervals are, as a sentence."""
    if n_seeds == 1:
        return "95 % intervals over tasks; with one seed they say nothing of how seeds differ."
    few = "; so few seeds show little of how seeds differ" if n_seeds < FEW_SEEDS else ""
    return f"95 % intervals over {n_seeds} seeds and the tasks (crossed bootstrap){few}."


def as_cell(row: Mapping[str, Any]) -> str:
    """A number with its interval, as tables show it; a dash where it is not defined."""
    value, low, high = (row.get(name) for name in ("value", "low", "high"))
    if value is None or np.isnan(value):
        return "-"
    return f"{value:.3f}" if low is None or np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
