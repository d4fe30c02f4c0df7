"""Plots of a run as SVG text (matplotlib, no display)."""

import numpy as np
from matplotlib.figure import Figure

from agents.report.results import ARM_TITLES, Results
from prm.plots import BLUE, GREEN, GREY, RED, plain_axes, running_mean, to_svg, training_curves

COLORS = {"sft": GREY, "baseline": BLUE, "psgpo": RED, "oracle": GREEN}


def draw_all(results: Results) -> dict[str, str]:
    """Every plot that the results have data for: file stem to SVG text."""
    figures = {}
    if results.rows:
        figures["pass_by_horizon"] = pass_by_horizon(results)
    if results.curves:
        figures["learning_curves"] = learning_curves(results)
    prm = results.stage("prm")
    if prm.get("history"):
        figures["prm_training"] = training_curves(prm["history"])
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
        plain_axes(axes)
        if decoding == "sampled":
            axes.set_ylabel("pass@1, held-out tasks")
            axes.legend(fontsize=8, frameon=False)
    return to_svg(figure)


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
                axes.plot(np.arange(1, len(values) + 1), running_mean(values), color=COLORS[arm], lw=1.6)
                axes.plot([], [], color=COLORS[arm], label=ARM_TITLES[arm])
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("iteration")
        plain_axes(axes)
    figure.axes[0].legend(fontsize=8, frameon=False)
    return to_svg(figure)


def stage_times(results: Results) -> str:
    """Seconds per stage."""
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    axes = figure.subplots()
    names = [stage["stage"] for stage in results.stages][::-1]
    seconds = [stage["seconds"] for stage in results.stages][::-1]
    bars = axes.barh(names, seconds, color=COLORS["baseline"])
    axes.bar_label(bars, fmt="%.0f s", padding=3, fontsize=8)
    axes.set_xlabel("wall seconds")
    plain_axes(axes)
    return to_svg(figure)
