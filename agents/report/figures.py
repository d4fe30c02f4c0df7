"""Plots of a run as SVG text (matplotlib, no display)."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from agents.report.results import ARM_TITLES, Results

COLORS = {"sft": "#8a8a8a", "baseline": "#4477aa", "psgpo": "#cc3311", "oracle": "#228833"}
SMOOTHING = 4


def draw_all(results: Results) -> dict[str, str]:
    """Every plot that the results have data for: file stem to SVG text."""
    figures = {}
    if results.rows:
        figures["pass_by_horizon"] = pass_by_horizon(results)
    if results.curves:
        figures["learning_curves"] = learning_curves(results)
    prm = results.stage("prm")
    if prm.get("history"):
        figures["prm_training"] = prm_training(prm["history"])
    if results.stages:
        figures["stage_times"] = stage_times(results)
    return figures


def pass_by_horizon(results: Results) -> str:
    """pass@1 per arm and horizon bucket, sampled and greedy, with Wilson intervals."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axes, decoding in zip(figure.subplots(1, 2, sharey=True), ("sampled", "greedy"), strict=True):
        positions = np.arange(len(results.buckets))
        width = 0.8 / max(1, len(results.arms))
        for index, arm in enumerate(results.arms):
            rates = [results.rate(arm, bucket, decoding) for bucket in results.buckets]
            values = np.array([rate.value for rate in rates])
            low, high = np.array([rate.interval for rate in rates]).T
            axes.bar(
                positions + (index - (len(results.arms) - 1) / 2) * width,
                values,
                width * 0.92,
                yerr=np.clip(np.stack([values - low, high - values]), 0, None),
                color=COLORS[arm],
                label=ARM_TITLES[arm],
                error_kw={"elinewidth": 1, "capsize": 2},
            )
        axes.set_xticks(positions, [bucket.title for bucket in results.buckets])
        axes.set_xlabel("horizon (steps the task asks for)")
        axes.set_title(f"{decoding} pass@1, 95 % Wilson intervals", fontsize=10)
        _plain(axes)
        if decoding == "sampled":
            axes.set_ylabel("pass@1, held-out tasks")
            axes.legend(fontsize=8, frameon=False)
    return _svg(figure)


def learning_curves(results: Results) -> str:
    """What changes over the iterations of each RL arm; running means of four."""
    panels = {
        "success_rate": "training pass rate",
        "reward": "mean return",
        "lines": "lines per program",
        "kl": "KL to the reference, per program",
    }
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for arm, rows in results.curves.items():
            values = np.array([row[key] for row in rows if key in row], dtype=float)
            if len(values):
                axes.plot(np.arange(1, len(values) + 1), _running_mean(values), color=COLORS[arm], lw=1.6)
                axes.plot([], [], color=COLORS[arm], label=ARM_TITLES[arm])
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("iteration")
        _plain(axes)
    figure.axes[0].legend(fontsize=8, frameon=False)
    return _svg(figure)


def prm_training(history: Sequence[Mapping[str, Any]]) -> str:
    """Training loss and validation AUC of the PRM."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    losses = [(row["step"], row["loss"]) for row in history if row.get("loss") is not None]
    if losses:
        steps, values = zip(*losses, strict=True)
        left.plot(steps, _running_mean(np.array(values, dtype=float)), color=COLORS["psgpo"], lw=1.4)
    left.set_title("PRM training loss", fontsize=10)
    left.set_xlabel("step")
    for key, title, color in (
        ("local_auc", "local AUC", COLORS["psgpo"]),
        ("auc", "AUC over all lines", COLORS["baseline"]),
        ("first_error_accuracy", "first-error accuracy", COLORS["oracle"]),
    ):
        points = [(row["step"], row[key]) for row in history if row.get(key) is not None]
        if points:
            steps, values = zip(*points, strict=True)
            right.plot(steps, values, "o-", ms=3, lw=1.4, color=color, label=title)
    right.set_title("PRM on held-out tasks", fontsize=10)
    right.set_xlabel("step")
    if right.lines:
        right.legend(fontsize=8, frameon=False)
    _plain(left)
    _plain(right)
    return _svg(figure)


def stage_times(results: Results) -> str:
    """Seconds per stage."""
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    axes = figure.subplots()
    names = [stage["stage"] for stage in results.stages][::-1]
    seconds = [stage["seconds"] for stage in results.stages][::-1]
    bars = axes.barh(names, seconds, color=COLORS["baseline"])
    axes.bar_label(bars, fmt="%.0f s", padding=3, fontsize=8)
    axes.set_xlabel("wall seconds")
    _plain(axes)
    return _svg(figure)


def _running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - SMOOTHING)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.tick_params(labelsize=8)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # no date and no random ids in the file: the same results give the same bytes
    with rc_context({"svg.hashsalt": "codegym"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()
