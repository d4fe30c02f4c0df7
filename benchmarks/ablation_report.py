"""The ablation's numbers: pass rates over paired seeds, what each part adds, and what it costs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure

from agents.evaluation import read_evaluation
from benchmarks.crossed import Passes, crossed_interval, difference, share_of_gain
from benchmarks.markdown import table_lines
from codegym.storage import append_rows, read_rows, write_json, write_text
from prm.plots import plain_axes, running_mean, to_svg

Rates: TypeAlias = dict[tuple[str, str], Passes]
"""Passes by arm and decoding. [seeds, tasks] each."""
SAMPLED, GREEDY = "sampled", "greedy"
CHOICE = "choice.json"


def choose_arm(out: Path, candidates: Sequence[str]) -> str:
    """The candidate that passes most sampled validation tasks of the sparse regime; written down once.

    Once the file is there it is never changed: test tasks may have been read since.
    """
    path = out / CHOICE
    if not path.exists():
        rates, _ = read_rates(out, "sparse", "validation")
        means = {arm: float(rates[arm, SAMPLED].mean()) for arm in candidates}
        write_json(path, {"chosen": max(means, key=lambda arm: means[arm]), "validation": means})
    return str(json.loads(path.read_text())["chosen"])


def read_rates(out: Path, regime: str, split: str) -> tuple[Rates, list[int]]:
    """Passes of every arm, and the horizon of each task.

    Raises:
        ValueError: If a seed did not evaluate the same tasks as the others.
    """
    rates: dict[tuple[str, str], list[list[float]]] = {}
    horizons: dict[str, int] = {}
    for path in sorted((out / regime).glob(f"*/{split}.jsonl")):
        passed: dict[tuple[str, str], dict[str, float]] = {}
        for row in read_evaluation(path):
            passed.setdefault((row.arm, row.decoding), {})[row.task_id] = float(row.passed)
            horizons.setdefault(row.task_id, row.horizon or 0)
        for key, by_task in passed.items():
            if set(by_task) != set(horizons):
                raise ValueError(f"{path}: {key[0]} was evaluated on {len(by_task)} of {len(horizons)} tasks")
            rates.setdefault(key, []).append([by_task[task] for task in horizons])
    return {key: np.array(seeds) for key, seeds in rates.items()}, list(horizons.values())


def write_report(
    out: Path,
    cells: Sequence[Sequence[str]],
    arms_of: Mapping[str, Sequence[str]],
    choice: str,
    buckets: Sequence[tuple[int, int]],
) -> str:
    """Write `rows.jsonl`, `report.md` and the plots; returns the report's text."""
    rows, sections = [], [f"Chosen on the validation split to stand for PSGPO: **{choice}**.", ""]
    regimes = list(dict.fromkeys(regime for regime, _ in cells))
    for regime in regimes:
        folders = [out / regime / seed for named, seed in cells if named == regime]
        arms = list(arms_of[regime])
        measured = measure(
            *read_rates(out, regime, "test"), arms, choice if choice in arms else "both", buckets
        )
        rows += [{"regime": regime, **row} for row in measured]
        ledger = seconds_of(folders)
        rows += [{"regime": regime, "measure": "seconds", "stage": k, "value": v} for k, v in ledger.items()]
        write_text(out / f"{regime}.svg", learning_curves(folders, arms))
        sections += section(regime, measured, ledger, arms, len(folders))
    (out / "rows.jsonl").unlink(missing_ok=True)
    append_rows(out / "rows.jsonl", rows)
    text = "\n".join(sections) + "\n"
    write_text(out / "report.md", text)
    return text


def measure(
    rates: Rates,
    horizons: Sequence[int],
    arms: Sequence[str],
    chosen: str,
    buckets: Sequence[tuple[int, int]],
) -> list[dict[str, Any]]:
    """A row per arm, decoding and bucket of horizons; then differences and shares of the oracle's gain."""
    steps, rows = np.array(horizons), []
    for decoding in (SAMPLED, GREEDY):
        for low, high in buckets:
            inside = (steps >= low) & (steps <= high)
            if not inside.any():
                continue
            part = {arm: rates[arm, decoding][:, inside] for arm in arms}
            about = {"decoding": decoding, "horizons": f"{low}-{high}"}
            for arm in arms:
                found = crossed_interval(lambda rate: rate, part[arm])
                seeds = part[arm].mean(axis=1).tolist()
                rows.append({**about, "measure": "pass", "arm": arm, **asdict(found), "seeds": seeds})
            pairs = [(arm, "baseline") for arm in arms if arm != "baseline"]
            for arm, other in [*pairs, (chosen, "baseline_long")]:
                found = difference(part[arm], part[other])
                rows.append({**about, "measure": "difference", "arm": arm, "other": other, **asdict(found)})
            for arm in arms:
                if arm not in ("sft", "baseline", "oracle"):
                    found = share_of_gain(part[arm], part["baseline"], part["oracle"])
                    rows.append({**about, "measure": "share of oracle's gain", "arm": arm, **asdict(found)})
    return rows


def seconds_of(folders: Sequence[Path]) -> dict[str, float]:
    """Mean wall seconds of each stage over the seeds."""
    spent: dict[str, list[float]] = {}
    for folder in folders:
        for marker in sorted((folder / "stages").glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
            if not marker.name.endswith(".attempt.json"):
                spent.setdefault(marker.stem, []).append(json.loads(marker.read_text())["seconds"])
    return {stage: float(np.mean(seconds)) for stage, seconds in spent.items()}


def learning_curves(folders: Sequence[Path], arms: Sequence[str]) -> str:
    """Training pass rate over iterations, a running mean of four, averaged over seeds; as SVG."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for arm in arms:
        curves = [
            [row["success_rate"] for row in read_rows(folder / arm / "curve.jsonl")] for folder in folders
        ]
        shortest = min(map(len, curves), default=0)
        if shortest:
            mean = np.mean([curve[:shortest] for curve in curves], axis=0)
            axes.plot(np.arange(1, shortest + 1), running_mean(mean), lw=1.6, label=arm)
    axes.set_xlabel("iteration")
    axes.set_ylabel("training pass rate")
    axes.legend(fontsize=8, frameon=False)
    plain_axes(axes)
    return to_svg(figure)


def section(
    regime: str, rows: Sequence[Mapping[str, Any]], ledger: Mapping[str, float], arms: Sequence[str], n: int
) -> list[str]:
    """One regime as Markdown."""
    lines = [f"## {regime}", "", f"![training pass rate]({regime}.svg)", ""]
    columns = list(dict.fromkeys((row["decoding"], row["horizons"]) for row in rows))
    head = ["arm", *(f"{decoding} {horizons}" for decoding, horizons in columns)]

    def table(title: str, labels: Mapping[str, Mapping[str, Any]]) -> None:
        rates = []
        for label, wanted in labels.items():
            cells = []
            for decoding, horizons in columns:
                where = {**wanted, "decoding": decoding, "horizons": horizons}
                hits = [row for row in rows if where.items() <= row.items()]
                cells.append("{value:.3f} [{low:.3f}, {high:.3f}]".format(**hits[0]) if hits else "-")
            rates.append([label, *cells])
        lines.extend([f"### {title}", "", *table_lines(head, rates), ""])

    table(
        f"pass@1 on held-out tasks, {n} seeds",
        {arm: {"measure": "pass", "arm": arm} for arm in arms},
    )
    pairs = dict.fromkeys((r["arm"], r["other"]) for r in rows if r["measure"] == "difference")
    table(
        "paired differences",
        {f"{a} - {b}": {"measure": "difference", "arm": a, "other": b} for a, b in pairs},
    )
    shares = dict.fromkeys(row["arm"] for row in rows if row["measure"].startswith("share"))
    table(
        "share of the oracle's gain over the baseline",
        {arm: {"measure": "share of oracle's gain", "arm": arm} for arm in shares},
    )
    lines += ["95 % intervals over seeds and tasks (crossed bootstrap).", "", "### seconds per seed", ""]
    return [*lines, *table_lines(list(ledger), [[f"{s:.0f}" for s in ledger.values()]]), ""]
