"""How the arms of a study learned, and what that cost."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from agents.training import CURVE
from codegym.storage import read_rows
from prm.plots import plain_axes, running_mean, to_svg

Axis: TypeAlias = Literal["programs", "seconds"]
AXES: tuple[Axis, ...] = get_args(Axis)
Look: TypeAlias = Mapping[str, Any]
"""How an arm's line is drawn, as matplotlib's keywords."""
SIZE = (5.2, 3.9)
"""Of one plot in inches: two stand beside each other on a screen, one on a phone."""
COLORS = ("#8a8a8a", "#4477aa", "#ee7733", "#aa3377", "#cc3311", "#228833", "#66ccee", "#bbaa33", "#000000")


def color_of(arms: Sequence[str]) -> dict[str, Look]:
    """A colour for every arm; more arms than colours share them, with another line each."""
    return {
        arm: {"color": COLORS[place % len(COLORS)], "ls": ("-", "--", ":")[place // len(COLORS) % 3]}
        for place, arm in enumerate(arms)
    }


def read_curves(folders: Iterable[Path], arm: str) -> list[list[dict[str, Any]]]:
    """One arm's rows per iteration, in every run folder that has them."""
    curves = [list(read_rows(folder / arm / CURVE)) for folder in folders]
    return [curve for curve in curves if curve]


def learning_curves(folders: Sequence[Path], looks: Mapping[str, Look], rollouts: int, *, over: Axis) -> str:
    """Training pass rate over programs written, or over seconds; means over seeds, as SVG.

    A curve ends where the shortest of its seeds does.

    Args:
        folders: Run folders, one per seed.
        looks: Arms to draw, from `color_of`.
        rollouts: Programs per iteration.
        over: What the horizontal axis counts.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for arm, look in looks.items():
        curves = read_curves(folders, arm)
        if not curves:
            continue
        shortest = min(map(len, curves))
        rates = np.array([[row["success_rate"] for row in curve[:shortest]] for curve in curves])
        places = rollouts * np.arange(1, shortest + 1)
        if over == "seconds":
            seconds = np.array([[row["seconds"] for row in curve[:shortest]] for curve in curves])
            places = seconds.cumsum(axis=1).mean(axis=0)
        axes.plot(places, running_mean(rates.mean(axis=0)), lw=1.6, label=arm, **look)
    axes.set_xlabel(
        "training programs" if over == "programs" else "seconds of training, without what came before the arm"
    )
    axes.set_ylabel("training pass rate")
    _legend(figure, axes)
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


def pass_figure(rows: Sequence[Mapping[str, Any]], looks: Mapping[str, Look], decoding: str) -> str:
    """pass@1 of every arm by bucket of horizons, with intervals; as SVG.

    Args:
        rows: From `benchmarks.study.passes.pass_rows`.
        looks: Arms to draw, from `color_of`.
        decoding: "sampled" or "greedy".
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    mine = [row for row in rows if row["measure"] == "pass" and row["decoding"] == decoding]
    buckets = list(dict.fromkeys(row["horizons"] for row in mine))
    width = 0.8 / max(1, len(looks))
    for place, (arm, look) in enumerate(looks.items()):
        found = [row for row in mine if row["arm"] == arm]
        axes.bar(
            [buckets.index(row["horizons"]) + (place - (len(looks) - 1) / 2) * width for row in found],
            [row["value"] for row in found],
            width * 0.9,
            yerr=error_bars(found),
            color=look["color"],
            label=arm,
            error_kw={"elinewidth": 0.8, "capsize": 1.5},
        )
    axes.set_xticks(range(len(buckets)), buckets)
    axes.set_xlabel("steps the task asks for")
    axes.set_ylabel("pass@1, held-out tasks, 95 % intervals")
    axes.set_ylim(0, 1)
    plain_axes(axes)
    _legend(figure, axes)
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
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
