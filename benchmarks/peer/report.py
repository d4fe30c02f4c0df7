"""Tables and learning curves of the comparison, from its rows alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from agents.report.results import Rate
from benchmarks.crossed import Passes, crossed_interval, difference
from benchmarks.markdown import table as markdown_table
from benchmarks.peer.arm import ARMS, PEERS, Assignment
from codegym.storage import write_text
from prm.plots import SMOOTHING, plain_axes, running_mean, to_svg

Row = Mapping[str, Any]
AXES = {"seconds": "wall seconds of training", "cpu_seconds": "CPU seconds", "programs": "programs sampled"}
PREPARED_BY = ("baseline", "collect", "label", "prm")
NOTES = """\
- `ppo`, `grpo`, `rloo`: our agents paid by the verdict alone; `psgpo`: that of `ppo` with a reward model's
  pay per line, which also starts the critic; `trl_grpo`, `trl_rloo`: TRL's GRPOTrainer and RLOOTrainer.
- The same for all: starting policy, training tasks, judge, wall seconds of training (loading, saving and
  evaluation do not count), programs per iteration and optimizer steps on them, AdamW, gradient clipping,
  token limit, temperature, and the law by which the learning rate rises and falls.
- `ppo` and `psgpo` draw one program per prompt and have a critic, which they train alone for the first
  iterations; the others draw eight per prompt and compare them with each other.
- Losses and KL terms are each one's defaults (none for `trl_grpo`), but for `trl_rloo`, which has the KL term
  of `ppo` and `rloo`: its own is five times as strong.
- Our settings are the project's defaults. TRL starts from the same learning rate, unless a sweep has found a
  better one.
- `psgpo` has more than the others: a reward model trained beforehand and refreshed within the clock, both on
  exact labels from the tasks' traces.
"""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def preparation(run: Path) -> dict[str, float]:
    """Seconds that the main job spent on each finished stage that made its reward model."""
    markers = {stage: run / "stages" / f"{stage}.json" for stage in PREPARED_BY}
    return {stage: read_json(marker)["seconds"] for stage, marker in markers.items() if marker.exists()}


def report(rows: Sequence[Row], assignment: Assignment, prepared: Mapping[str, float]) -> str:
    """Everything as Markdown."""
    low, high = assignment.horizons
    parts = [
        f"# Our agents and TRL's, {assignment.seconds:g} s of training each\n",
        f"Stepwise tasks of {low} to {high} steps; reward {assignment.reward}; "
        f"{assignment.threads} threads of torch.\n",
        "![Learning curves](curves.svg)\n",
        f"## pass@1 on held-out tasks\n\n{held_out_table(rows, assignment)}",
        "Means over the seeds; 95 % intervals over seeds and tasks.\n",
        f"## What the seconds went into\n\n{effort_table(rows)}\n"
        "Tokens are written ones. Shares: sampling, judging, learning, which is everything else.\n",
    ]
    if {row["arm"] in PEERS for row in rows} == {True, False}:
        parts.insert(5, f"At the end:\n\n{difference_table(rows, assignment.n_checkpoints)}")
    if any(row["what"] == "sweep" for row in rows):
        parts.append(f"## Learning rates, on validation tasks\n\n{sweep_table(rows)}")
    parts.append(f"## What is the same, and what is not\n\n{NOTES}")
    if prepared and any(row["arm"] == "psgpo" for row in rows):
        stages = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in prepared.items())
        parts.append(f"The reward model was made in {sum(prepared.values()):.0f} s: {stages}.\n")
    settings = {row["arm"]: row["settings"] for row in rows if row["what"] == "arm"}
    versions = next((row["versions"] for row in rows if row["what"] == "arm"), {})
    parts += [
        "## Settings and versions\n",
        *(f"    {arm}: {json.dumps(given)}" for arm, given in settings.items()),
    ]
    parts.append(f"    {json.dumps(versions)}\n")
    return "\n".join(parts)


def held_out_table(rows: Sequence[Row], assignment: Assignment) -> str:
    """pass@1 at every share of the budget, means over the seeds; the last one with its 95 % interval."""
    steps = range(assignment.n_checkpoints + 1)
    budgets = [f"{assignment.seconds * step / assignment.n_checkpoints:g} s" for step in steps]
    body = []
    for arm in _arms(rows):
        found = [passes(rows, arm, step) for step in steps]
        cells = [f"{found_here.mean():.3f}" if found_here.size else "-" for found_here in found[:-1]]
        body.append([arm, *cells, str(crossed_interval(lambda rate: rate, found[-1]))])
    return markdown_table(("arm", *budgets), body)


def difference_table(rows: Sequence[Row], last: int) -> str:
    """How much more our arms pass than TRL's when the budget is used up."""
    present = _arms(rows)
    peers = [arm for arm in present if arm in PEERS]
    return markdown_table(
        ("arm", *(f"minus {peer}" for peer in peers)),
        [
            [arm, *(str(difference(passes(rows, arm, last), passes(rows, peer, last))) for peer in peers)]
            for arm in present
            if arm not in PEERS
        ],
    )


def effort_table(rows: Sequence[Row]) -> str:
    """Iterations, programs and speeds per arm, means over the seeds."""
    names = (
        "arm", "iterations", "programs", "tokens per program", "training pass rate, last quarter", "CPU, s",
        "sampling, tokens/s", "judging, programs/s", "learning, tokens/s", "shares of the time",
    )  # fmt: skip
    body = []
    for arm in _arms(rows):
        curve = _of(rows, "training", arm)
        seeds = {row["seed"] for row in curve}
        last = [
            max((row for row in curve if row["seed"] == seed), key=lambda row: row["iteration"])
            for seed in seeds
        ]
        programs, tokens = (sum(row[name] for row in last) for name in ("programs", "tokens"))
        spent = {part: sum(row[f"{part}_s"] for row in curve) for part in ("sampling", "judging", "learning")}
        late = [
            row["success_rate"] for row in curve if row["seconds"] > 0.75 * max(r["seconds"] for r in last)
        ]
        body.append(
            [
                arm,
                f"{len(curve) / len(seeds):.0f}",
                f"{programs / len(seeds):,.0f}",
                f"{tokens / programs:.1f}",
                f"{np.mean(late):.3f}",
                f"{np.mean([row['cpu_seconds'] for row in last]):.0f}",
                f"{tokens / spent['sampling']:,.0f}",
                f"{programs / spent['judging']:,.0f}",
                f"{tokens / spent['learning']:,.0f}",
                ", ".join(f"{seconds / sum(spent.values()):.2f}" for seconds in spent.values()),
            ]
        )
    return markdown_table(names, body)


def sweep_table(rows: Sequence[Row]) -> str:
    """pass@1 on validation tasks per learning rate."""
    names = ("arm", "learning rate", "seconds", "programs", "pass@1")
    swept = [row for row in rows if row["what"] == "sweep"]
    return markdown_table(
        names,
        [
            [row["arm"], f"{row['learning_rate']:g}", f"{row['seconds']:.0f}", f"{row['programs']:,}",
             str(Rate(passed=sum(row["passes"]), total=len(row["passes"])))]
            for row in swept
        ],
    )  # fmt: skip


def write_figures(rows: Sequence[Row], folder: Path) -> None:
    """Write `curves.svg` and `curves.png`: pass rates over seconds, CPU seconds and programs."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    grid = figure.subplots(2, len(AXES), sharey="row", sharex="col")
    for column, (key, title) in enumerate(AXES.items()):
        above, below = grid[0, column], grid[1, column]
        below.set_xlabel(title)
        for color, arm in enumerate(_arms(rows)):
            for number, seed in enumerate(sorted({row["seed"] for row in _of(rows, "held_out", arm)})):
                mine = {"color": f"C{color}", "lw": 1.4, "label": None if number else arm}
                points = [row for row in _of(rows, "held_out", arm) if row["seed"] == seed]
                above.plot(
                    [row[key] for row in points],
                    [np.mean(row["passes"]) for row in points],
                    "o-",
                    ms=3,
                    **mine,
                )
                curve = [row for row in _of(rows, "training", arm) if row["seed"] == seed]
                below.plot(
                    [row[key] for row in curve],
                    running_mean(np.array([row["success_rate"] for row in curve])),
                    **mine,
                )
        for axes in (above, below):
            plain_axes(axes)
    grid[0, 0].set_ylabel("pass@1, held-out tasks")
    grid[1, 0].set_ylabel(f"training pass rate, mean of {SMOOTHING}")
    grid[0, 0].legend(fontsize=8, frameon=False)
    write_text(folder / "curves.svg", to_svg(figure))
    figure.savefig(folder / "curves.png", dpi=110)


def passes(rows: Sequence[Row], arm: str, checkpoint: int) -> Passes:
    """Which held-out tasks an arm's policies pass at a checkpoint; empty without one. [seeds, tasks]."""
    mine = [row for row in _of(rows, "held_out", arm) if row["checkpoint"] == checkpoint]
    return np.array([row["passes"] for row in sorted(mine, key=lambda row: row["seed"])], dtype=float)


def _arms(rows: Sequence[Row]) -> list[str]:
    present = {row["arm"] for row in rows}
    return [arm for arm in ARMS if arm in present]


def _of(rows: Sequence[Row], what: str, arm: str) -> list[Row]:
    return [row for row in rows if row["what"] == what and row["arm"] == arm]
