"""How the arms of a study learned, and what that cost."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from agents.training import CURVE
from codegym.storage import read_rows
from prm.plots import plain_axes, running_mean, to_svg

COLORS = ("#8a8a8a", "#4477aa", "#ee7733", "#aa3377", "#cc3311", "#228833", "#66ccee", "#bbaa33", "#000000")


def color_of(arms: Sequence[str]) -> dict[str, Any]:
    """A colour for every arm; more arms than colours share them, with another line each."""
    return {
        arm: {"color": COLORS[place % len(COLORS)], "ls": ("-", "--", ":")[place // len(COLORS) % 3]}
        for place, arm in enumerate(arms)
    }


def read_curves(folders: Iterable[Path], arm: str) -> list[list[dict[str, Any]]]:
    """One arm's rows per iteration, in every run folder that has them."""
    curves = [list(read_rows(folder / arm / CURVE)) for folder in folders]
    return [curve for curve in curves if curve]


def learning_curves(
    folders: Sequence[Path], arms: Sequence[str], rollouts: int, key: str = "success_rate"
) -> str:
    """A number of the training programs over programs written, and over seconds; means over seeds, as SVG.

    A curve ends where the shortest of its seeds does.

    Args:
        folders: Run folders, one per seed.
        arms: Which to draw.
        rollouts: Programs per iteration.
        key: Column of the curves.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    looks = color_of(arms)
    for arm in arms:
        curves = read_curves(folders, arm)
        if not curves:
            continue
        shortest = min(map(len, curves))
        mean = running_mean(np.array([[row[key] for row in c[:shortest]] for c in curves]).mean(axis=0))
        seconds = np.array([[row["seconds"] for row in c[:shortest]] for c in curves]).cumsum(axis=1)
        left.plot(rollouts * np.arange(1, shortest + 1), mean, lw=1.6, label=arm, **looks[arm])
        right.plot(seconds.mean(axis=0), mean, lw=1.6, **looks[arm])
    left.set_xlabel("training programs")
    right.set_xlabel("seconds of training, without what came before the arm")
    left.set_ylabel("training pass rate")
    _legend(figure, left)
    for axes in (left, right):
        plain_axes(axes)
    return to_svg(figure)


def solved_share(folder: Path, arm: str, n_tasks: int) -> float | None:
    """Share of the training tasks that an arm solved at least once while it trained; None if unknown."""
    rows = [row["solved"] for row in read_rows(folder / arm / CURVE) if "solved" in row]
    return len(set().union(*rows)) / n_tasks if rows else None


def seconds_of(folders: Sequence[Path]) -> dict[str, float]:
    """Mean wall seconds of each stage over the seeds."""
    spent: dict[str, list[float]] = {}
    for folder in folders:
        for marker in sorted((folder / "stages").glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
            if not marker.name.endswith(".attempt.json"):
                spent.setdefault(marker.stem, []).append(json.loads(marker.read_text())["seconds"])
    return {stage: float(np.mean(seconds)) for stage, seconds in spent.items()}


def pass_figure(
    rows: Sequence[Mapping[str, Any]], arms: Sequence[str], decodings: Sequence[str] = ("sampled", "greedy")
) -> str:
    """pass@1 of every arm by bucket of horizons, with intervals, one panel per decoding; as SVG."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(decodings), sharey=True))
    looks = color_of(arms)
    for axes, decoding in zip(panels, decodings, strict=True):
        mine = [row for row in rows if row["measure"] == "pass" and row["decoding"] == decoding]
        buckets = list(dict.fromkeys(row["horizons"] for row in mine))
        width = 0.8 / len(arms)
        for place, arm in enumerate(arms):
            found = [row for row in mine if row["arm"] == arm]
            axes.bar(
                [buckets.index(row["horizons"]) + (place - (len(arms) - 1) / 2) * width for row in found],
                [row["value"] for row in found],
                width * 0.9,
                yerr=error_bars(found),
                color=looks[arm]["color"],
                label=arm,
                error_kw={"elinewidth": 0.8, "capsize": 1.5},
            )
        axes.set_xticks(range(len(buckets)), buckets)
        axes.set_xlabel("steps the task asks for")
        axes.set_title(f"{decoding}, 95 % intervals", fontsize=10)
        plain_axes(axes)
    panels[0].set_ylabel("pass@1, held-out tasks")
    _legend(figure, panels[0])
    return to_svg(figure)


def error_bars(rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """How far the ends of each row's interval are from its value. [2, rows]."""
    below = [row["value"] - row["low"] for row in rows]
    above = [row["high"] - row["value"] for row in rows]
    return np.clip([below, above], 0, None)


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the figure, where however many arms hide nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
