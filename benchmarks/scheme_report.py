"""The comparison of reward schemes: what each taught, and signs that it was gamed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from agents.config import PipelineConfig
from agents.evaluation import EvaluationRow, read_evaluation
from benchmarks.study.curves import color_of, learning_curves, read_curves
from benchmarks.study.page import write_study
from benchmarks.study.passes import SAMPLED, as_cell, pass_rows, read_rates
from codegym.episode import is_neutral
from prm.alignment import split_lines
from prm.plots import plain_axes, to_svg
from prm.report.page import Picture, Table, number

HALVES = 2
"""A run's first and last part, between which the signs are compared, are a half each."""


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
            f"{rollouts} programs. `baseline` is pass_fail. 95 % intervals over seeds and tasks "
            "(crossed bootstrap).",
        ],
        pictures=[
            Picture(title="pass@1 and lines per program", name="schemes", svg=overview(passes, signs, arms)),
            Picture(title="Learning curves", name="curves", svg=learning_curves(folders, trained, rollouts)),
        ],
        tables=[pass_table(passes, arms), sign_table(signs)],
        rows=[*passes, *signs],
        command=f"python -m benchmarks.reward_schemes --scale {config.scale}",
        settings=asdict(config),
    )


def shape(rows: Sequence[EvaluationRow]) -> dict[str, float]:
    """What an arm's sampled programs look like: means per program."""
    lines = [split_lines(row.completion) for row in rows]
    return {
        "lines": float(np.mean([len(program) for program in lines])),
        "neutral": float(np.mean([sum(map(is_neutral, program)) for program in lines])),
        "tokens": float(np.mean([row.tokens for row in rows])),
        "unfinished": float(np.mean([not row.finished for row in rows])),
        "syntax_errors": float(np.mean([row.verdict == "syntax_error" for row in rows])),
    }


def drift(folders: Sequence[Path], arm: str) -> dict[str, float]:
    """How pay and pass rate moved from the first half of training to the last, means over seeds.

    `hacked` is what a reader looks for: seeds in which the reward model's opinion of failing programs rose
    and the pass rate did not.
    """
    curves = read_curves(folders, arm)
    moves: dict[str, list[float]] = {}
    for curve in curves:
        for key in ("success_rate", "reward", "score_on_failing", "gap"):
            values = [row[key] for row in curve if key in row]
            if len(values) >= HALVES:
                middle = len(values) // HALVES
                moves.setdefault(key, []).append(float(np.mean(values[middle:]) - np.mean(values[:middle])))
    scored = zip(moves.get("score_on_failing", ()), moves.get("success_rate", ()), strict=False)
    means = {f"{key}_rise": float(np.mean(values)) for key, values in moves.items()}
    if "score_on_failing" in moves:
        means["hacked"] = float(sum(score > 0 and passing <= 0 for score, passing in scored))
    return means


def pass_table(rows: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> Table:
    """pass@1 by bucket, and what is above the baseline over all of them."""
    columns = list(dict.fromkeys((r["decoding"], r["horizons"]) for r in rows))
    everything = columns[-1][1]
    found = {(r["measure"], r["arm"], r["decoding"], r["horizons"]): r for r in rows}

    def gain(arm: str) -> str:
        return as_cell(found.get(("difference", arm, SAMPLED, everything), {}))

    def by_rate(arm: str) -> float:
        return -float(found["pass", arm, SAMPLED, everything]["value"])

    return Table(
        title="pass@1 on held-out tasks, the best first",
        head=[
            "scheme",
            *(f"{decoding} {steps}" for decoding, steps in columns),
            "sampled gain over baseline",
        ],
        rows=[
            [arm, *(as_cell(found["pass", arm, *column]) for column in columns), gain(arm)]
            for arm in sorted(arms, key=by_rate)
        ],
    )


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


def overview(
    passes: Sequence[Mapping[str, Any]], signs: Sequence[Mapping[str, Any]], arms: Sequence[str]
) -> str:
    """pass@1 over all tasks with its interval, and lines per program, a row per scheme; as SVG."""
    everything = list(dict.fromkeys(row["horizons"] for row in passes))[-1]
    wanted = {"measure": "pass", "decoding": SAMPLED, "horizons": everything}
    rates = {row["arm"]: row for row in passes if wanted.items() <= row.items()}
    lines = {row["arm"]: row["lines"] for row in signs}
    order = sorted(arms, key=lambda arm: rates[arm]["value"])
    figure = Figure(figsize=(10, 1.2 + 0.28 * len(order)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(order))
    values = np.array([rates[arm]["value"] for arm in order])
    ends = np.array([[rates[arm]["low"], rates[arm]["high"]] for arm in order]).T
    errors = np.clip([values - ends[0], ends[1] - values], 0, None)
    color = color_of(["sft", "baseline"])["baseline"]["color"]
    left.barh(places, values, xerr=errors, color=color, error_kw={"elinewidth": 0.8, "capsize": 2})
    right.barh(places, [lines[arm] for arm in order], color="#bbbbbb")
    left.set_yticks(places, order)
    left.set_xlabel(f"sampled pass@1, {everything} steps")
    right.set_xlabel("lines per program")
    for axes in (left, right):
        plain_axes(axes)
        axes.grid(axis="x", alpha=0.25)
    return to_svg(figure)


def _all(config: PipelineConfig) -> tuple[int, int]:
    """The bucket that holds every test task."""
    return min(low for low, _ in config.eval_horizons), max(high for _, high in config.eval_horizons)
