"""Plots of a reward model's evaluation as SVG text."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from prm.bootstrap import Estimate
from prm.evaluation import PRMMetrics
from prm.plots import BLUE, GREEN, GREY, RED, plain_axes, to_svg
from prm.reranking import AGGREGATES, Reranking

SIZE = (5.0, 3.6)
LINES = {"local_auc": ("local AUC", RED), "first_error_accuracy": ("first-error accuracy", GREEN)}
WAYS = {
    "random": (GREY, ":"),
    "majority": (BLUE, "-"),
    **{f"prm {name}": (RED, style) for name, style in zip(AGGREGATES, cycle(("-", "--", "-.", ":")))},
    "oracle": (GREEN, "-"),
}
"""Colour and line of each way to choose among programs."""


def calibration(metrics: PRMMetrics) -> str:
    """Share of right lines against the mean probability of each bin; areas go with the bin's lines."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
    means, shares, counts = np.array(metrics.calibration, dtype=float).reshape(-1, 3).T
    axes.plot(means, shares, color=RED, lw=1)
    axes.scatter(means, shares, s=12 + 240 * counts / max(1.0, counts.sum()), color=RED, alpha=0.7)
    axes.set_xlabel("probability that the program is right so far")
    axes.set_ylabel("share of lines that are")
    plain_axes(axes)
    return to_svg(figure)


def by_group(groups: Mapping[str, PRMMetrics], title: str) -> str:
    """Local AUC and first-error accuracy per group, with intervals where a group has them."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for offset, (name, (label, color)) in zip((-0.08, 0.08), LINES.items(), strict=True):
        estimates = [getattr(group, name) for group in groups.values()]
        places, values, errors = _points(np.arange(len(groups)) + offset, estimates)
        axes.errorbar(places, values, errors, fmt="o-", ms=4, lw=1.2, capsize=2, color=color, label=label)
    # a dollar sign would begin a formula
    names = [name.replace("$", r"\$") for name in groups]
    rotation = 30 if max(map(len, names), default=0) > 6 else 0
    axes.set_xticks(range(len(names)), names, rotation=rotation, ha="right" if rotation else "center")
    axes.set_xlabel(title)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(fontsize=8, frameon=False)
    plain_axes(axes)
    return to_svg(figure)


def best_of_n(reranking: Reranking) -> str:
    """Share of tasks solved against n, for each way to choose."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for way, row in reranking.solved.items():
        color, style = WAYS[way]
        places, values, errors = _points(np.array(list(row)), list(row.values()))
        axes.errorbar(
            places, values, errors, marker="o", ms=3, ls=style, lw=1.2, elinewidth=0.6, color=color, label=way
        )
    sizes = list(reranking.solved["random"])
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.set_xlabel("programs to choose from")
    axes.set_ylabel("share of tasks solved")
    axes.legend(fontsize=8, frameon=False)
    plain_axes(axes)
    return to_svg(figure)


def _points(
    places: NDArray[Any], estimates: Sequence[Estimate]
) -> tuple[list[float], list[float], NDArray[np.float64]]:
    """Where estimates that are defined stand, their values, and how far their intervals reach. [2, N]."""
    found = [(float(place), e) for place, e in zip(places, estimates, strict=True) if e.value is not None]
    values = [float(e.value or 0.0) for _, e in found]
    reach = [
        (0.0, 0.0) if e.low is None or e.high is None else (max(0.0, v - e.low), max(0.0, e.high - v))
        for v, (_, e) in zip(values, found, strict=True)
    ]
    return [place for place, _ in found], values, np.array(reach).reshape(-1, 2).T
