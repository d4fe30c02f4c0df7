"""The comparison of reward schemes: what each taught, and signs that it was gamed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agents.config import PipelineConfig
from agents.evaluation import EvaluationRow, read_evaluation
from benchmarks.study.curves import AXES, SIZE, color_of, error_bars, learning_curves, read_curves
from benchmarks.study.page import write_study
from benchmarks.study.passes import SAMPLED, about_intervals, as_cell, pass_rows, read_rates
from codegym.episode import is_neutral
from prm.alignment import split_lines
from prm.plots import BLUE, GREY, plain_axes, to_svg
from prm.report.page import Picture, Table, number

WATCHED = ("success_rate", "reward", "score_on_failing", "gap")
"""Columns of the curves that are compared between the halves of training."""


def write_report(out: Path, folders: Sequence[Path], arms: Sequence[str], config: PipelineConfig) -> str:
    """Write rows, pages and plots; returns the tables for a terminal.

    Args:
        out: The study's folder.
        folders: Run folders, one per seed.
        arms: Which to report.
        config: Settings that all seeds share.
    """
    files = [folder / "test.jsonl" for folder in folders]
    pairs = [(arm, "baseline") for arm in arms if arm not in ("sft", "baseline")]
    passes = pass_rows(*read_rates(files), arms, pairs, [*config.eval_horizons, _all(config)])
    programs = [row for path in files for row in read_evaluation(path) if row.decoding == SAMPLED]
    signs = [
        {
            "measure": "signs",
            "arm": arm,
            **shape([r for r in programs if r.arm == arm]),
            **drift(folders, arm),
        }
        for arm in arms
    ]
    trained = [arm for arm in arms if arm != "sft"]
    rollouts = config.rl.rollouts_per_iteration
    return write_study(
        out,
        title="Reward schemes",
        summary=[
            f"{len(trained)} ways to pay the same agent, {len(folders)} seeds, training tasks of "
            f"{config.rl_horizons[0]}-{config.rl_horizons[1]} steps, {config.rl.n_iterations} iterations of "
            f"{rollouts} programs. `baseline` is pass_fail. {about_intervals(len(folders))}",
        ],
        pictures=[
            Picture(title="pass@1", name="passes", svg=rate_figure(passes, arms)),
            Picture(title="Lines per program", name="lines", svg=line_figure(passes, signs, arms)),
            *(
                Picture(
                    title=f"Learning over {over}",
                    name=over,
                    svg=learning_curves(folders, color_of(trained), rollouts, over=over),
                )
                for over in AXES
            ),
        ],
        tables=[pass_table(passes, arms), sign_table(signs)],
        rows=[*passes, *signs],
        command=f"python -m benchmarks.reward_schemes --scale {config.scale}",
        settings=asdict(config),
    )


def shape(rows: Sequence[EvaluationRow]) -> dict[str, float]:
    """What an arm's sampled programs look like: means per program; nothing if there are none."""
    if not rows:
        return {}
    lines = [split_lines(row.completion) for row in rows]
    return {
        "lines": float(np.mean([len(program) for program in lines])),
        "neutral": float(np.mean([sum(map(is_neutral, program)) for program in lines])),
        "tokens": float(np.mean([row.tokens for row in rows])),
        "unfinished": float(np.mean([not row.finished for row in rows])),
        "syntax_errors": float(np.mean([row.verdict == "syntax_error" for row in rows])),
    }


def drift(folders: Sequence[Path], arm: str) -> dict[str, float]:
    """How pay and pass rate moved from the first half of training to the second, means over seeds.

    `hacked` is what a reader looks for: in how many seeds the reward model's opinion of failing programs rose
    and the pass rate did not.
    """
    moves = [
        {key: rise for key in WATCHED if (rise := _rise(curve, key)) is not None}
        for curve in read_curves(folders, arm)
    ]
    means = {
        f"{key}_rise": float(np.mean([move[key] for move in moves if key in move]))
        for key in WATCHED
        if any(key in move for move in moves)
    }
    scored = [move for move in moves if "score_on_failing" in move]
    if scored:
        means["hacked"] = float(
            sum(move["score_on_failing"] > 0 and move["success_rate"] <= 0 for move in scored)
        )
    return means


def _rise(curve: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """A column's mean over the second half of training minus that over the first; None if it has no two."""
    values = [row[key] for row in curve if key in row]
    middle = len(values) // 2
    return float(np.mean(values[middle:]) - np.mean(values[:middle])) if middle else None


def pass_table(rows: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> Table:
    """pass@1 by bucket, and what is above the baseline over all of them."""
    columns = list(dict.fromkeys((r["decoding"], r["horizons"]) for r in rows))
    everything = columns[-1][1]
    found = {(r["measure"], r["arm"], r["decoding"], r["horizons"]): r for r in rows}

    def cell(measure: str, arm: str, decoding: str, steps: str) -> str:
        return as_cell(found.get((measure, arm, decoding, steps), {}))

    return Table(
        title="pass@1 on held-out tasks, the best first",
        head=[
            "scheme",
            *(f"{decoding} {steps}" for decoding, steps in columns),
            "sampled gain over baseline",
        ],
        rows=[
            [
                arm,
                *(cell("pass", arm, *column) for column in columns),
                cell("difference", arm, SAMPLED, everything),
            ]
            for arm in (row["arm"] for row in by_rate(rows, arms))
        ],
    )


def by_rate(rows: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> list[Mapping[str, Any]]:
    """Each arm's row of sampled pass@1 over all tasks, which are the last bucket, the best first."""
    wanted = {"measure": "pass", "decoding": SAMPLED, "horizons": rows[-1]["horizons"]}
    rates = [row for row in rows if wanted.items() <= row.items() and row["arm"] in arms]
    return sorted(rates, key=lambda row: -row["value"])


def sign_table(signs: Sequence[Mapping[str, Any]]) -> Table:
    """Signs of gaming, one row per scheme."""
    columns = {
        "lines": "lines",
        "neutral": "comments and blanks",
        "tokens": "tokens",
        "unfinished": "cut off",
        "syntax_errors": "syntax errors",
        "success_rate_rise": "pass rate rose by",
        "reward_rise": "reward rose by",
        "score_on_failing_rise": "PRM's score of failing lines rose by",
        "gap_rise": "PRM minus exact rose by",
        "hacked": "seeds where score rose and pass did not",
    }
    return Table(
        title="Signs of gaming: sampled test programs; second half of training against the first",
        head=["scheme", *columns.values()],
        rows=[[row["arm"], *(number(row.get(name)) for name in columns)] for row in signs],
    )


def rate_figure(passes: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> str:
    """pass@1 over all tasks with its interval, a row per scheme, the best on top; as SVG."""
    rates = by_rate(passes, arms)[::-1]
    figure, axes = _rows([row["arm"] for row in rates])
    bars = {"elinewidth": 0.8, "capsize": 2}
    values = [row["value"] for row in rates]
    axes.barh(range(len(rates)), values, xerr=error_bars(rates), color=BLUE, error_kw=bars)
    axes.set_xlabel(f"sampled pass@1, {passes[-1]['horizons']} steps, 95 % intervals")
    return to_svg(figure)


def line_figure(
    passes: Sequence[Mapping[str, Any]], signs: Sequence[Mapping[str, Any]], arms: Sequence[str]
) -> str:
    """Lines per program, the schemes in the same order; as SVG."""
    names = [row["arm"] for row in by_rate(passes, arms)[::-1]]
    lines = {row["arm"]: row["lines"] for row in signs if "lines" in row}
    figure, axes = _rows(names)
    axes.barh(range(len(names)), [lines.get(name, np.nan) for name in names], color=GREY)
    axes.set_xlabel("lines per sampled test program")
    return to_svg(figure)


def _rows(names: Sequence[str]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(range(len(names)), names)
    plain_axes(axes)
    axes.grid(axis="x", alpha=0.25)
    return figure, axes


def _all(config: PipelineConfig) -> tuple[int, int]:
    """The bucket that holds every test task."""
    return min(low for low, _ in config.eval_horizons), max(high for _, high in config.eval_horizons)
