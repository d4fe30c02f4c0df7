"""Plots as SVG text (matplotlib, no display): equal numbers give equal bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

RED, BLUE, GREEN, GREY = "#cc3311", "#4477aa", "#228833", "#8a8a8a"
SMOOTHING = 4


def training_curves(history: Sequence[Mapping[str, Any]]) -> str:
    """Loss and held-out quality of a reward model in training.

    Args:
        history: Rows with a `step` and any of `loss` (of that step), `validation_loss`, `local_auc`, `auc`
            and `first_error_accuracy`.
    """
    figure = Figure(figsize=(10, 3.2))
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.16, top=0.9)
    left, right = figure.subplots(1, 2)
    steps, losses = _column(history, "loss")
    left.plot(steps, running_mean(losses), color=RED, lw=1.4, label="training")
    left.plot(*_column(history, "validation_loss"), "o-", ms=3, lw=1.4, color=BLUE, label="held-out tasks")
    left.set_title("PRM loss per line", fontsize=10)
    for key, title, color in (
        ("local_auc", "local AUC", RED),
        ("auc", "AUC over all lines", BLUE),
        ("first_error_accuracy", "first-error accuracy", GREEN),
    ):
        right.plot(*_column(history, key), "o-", ms=3, lw=1.4, color=color, label=title)
    right.set_title("PRM on held-out tasks", fontsize=10)
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.legend(handles=[line for line in axes.lines if len(line.get_xdata())], fontsize=8, frameon=False)
        plain_axes(axes)
    return to_svg(figure)


def running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each value's mean with up to three before it. [N]."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - SMOOTHING)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def plain_axes(axes: Axes) -> None:
    """Take away what carries no data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.tick_params(labelsize=8)


def to_svg(figure: Figure) -> str:
    """The figure as SVG without date or random ids."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "codegym"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _column(
    history: Sequence[Mapping[str, Any]], key: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points = [(row["step"], row[key]) for row in history if row.get(key) is not None]
    steps, values = np.array(points, dtype=float).reshape(-1, 2).T
    return steps, values
