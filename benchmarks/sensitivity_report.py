"""What each variant of PSGPO reached, and how that goes with the reward model's accuracy."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from agents.config import PipelineConfig
from benchmarks.study.curves import error_bars, read_curves
from benchmarks.study.page import write_study
from benchmarks.study.passes import Rates, about_intervals, as_cell, pass_rows, read_rates
from prm.plots import BLUE, plain_axes, to_svg
from prm.report.page import Picture, Table, number

ACCURACY = "accuracy"
"""Stage that measures a variant's reward model on the ablation's held-out programs."""
REFERENCE = ("both", "dense", "baseline", "oracle")
"""Arms of the ablation that the variants stand beside."""
COLUMNS = ("sampled", "greedy")
ABLATION = "the ablation"


def write_report(
    out: Path,
    base: Path,
    variants: Mapping[str, tuple[str, str]],
    seeds: Sequence[int],
    config: PipelineConfig,
    command: str,
) -> str:
    """Write rows, pages and plots; returns the tables for a terminal.

    Args:
        out: The study's folder: a run folder per variant and seed.
        base: The ablation's cells of the regime, one per seed.
        variants: What each variant changes, and of which other one or arm of the ablation.
        seeds: Seeds that ran.
        config: Settings that all variants share but for what they vary.
        command: What a reader has to give to get the same.
    """
    bucket = config.rl_horizons
    rates, horizons = join_rates(out, base, list(variants), seeds, bucket)
    arms = [arm for arm in (*REFERENCE, *variants) if (arm, COLUMNS[0]) in rates]
    pairs = [(name, other) for name, (_, other) in variants.items()]
    pairs += [(name, "both") for name, (_, other) in variants.items() if other != "both"]
    pairs = [(arm, other) for arm, other in pairs if arm in arms and other in arms]
    passes = pass_rows(rates, horizons, arms, pairs, [bucket])
    models = [
        {"measure": "model", "arm": arm, **found}
        for arm in ("both", "dense", *variants)
        if (found := model_of(out, base, arm, seeds))
    ]
    return write_study(
        out,
        title="Sensitivity",
        summary=[
            f"Variants of PSGPO in the sparse regime ({bucket[0]}-{bucket[1]} steps), {len(seeds)} seeds, "
            f"{config.rl.n_iterations} iterations; each differs from what it stands against in one thing. "
            f"{about_intervals(len(seeds))}"
        ],
        pictures=[
            Picture(
                title="Accuracy of the reward model and what it gained",
                name="accuracy",
                svg=accuracy_figure(passes, models),
            )
        ],
        tables=[variant_table(passes, models, arms, variants), difference_table(passes, pairs)],
        rows=[*passes, *models],
        command=command,
        settings=asdict(config),
    )


def join_rates(
    out: Path, base: Path, names: Sequence[str], seeds: Sequence[int], bucket: tuple[int, int]
) -> tuple[Rates, dict[str, int]]:
    """Passes on a bucket's tasks: the variants' and, if it has tested them, those of the ablation's arms.

    Raises:
        ValueError: If two of them were tested on other tasks.
    """
    sources = {name: [out / name / str(seed) / "test.jsonl" for seed in seeds] for name in names}
    if all((base / str(seed) / "stages" / "test.json").exists() for seed in seeds):
        sources[ABLATION] = [base / str(seed) / "test.jsonl" for seed in seeds]
    rates: Rates = {}
    tasks: dict[str, int] = {}
    for name, paths in sources.items():
        found, horizons = read_rates(paths)
        places = {task: place for place, task in enumerate(horizons) if _inside(horizons[task], bucket)}
        tasks = tasks or {task: horizons[task] for task in places}
        if places.keys() != tasks.keys():
            raise ValueError(
                f"{name} was tested on other tasks of {bucket[0]}-{bucket[1]} steps than {names[0]}"
            )
        wanted = REFERENCE if name == ABLATION else (name,)
        columns = [places[task] for task in tasks]
        rates |= {key: passes[:, columns] for key, passes in found.items() if key[0] in wanted}
    return rates, tasks


def _inside(horizon: int, bucket: tuple[int, int]) -> bool:
    return bucket[0] <= horizon <= bucket[1]


def model_of(out: Path, base: Path, arm: str, seeds: Sequence[int]) -> dict[str, float]:
    """The accuracy of an arm's reward model before any refresh, and how it drifted; means over seeds.

    All are measured on the same held-out programs of the ablation, with exact labels.
    """
    is_reference = arm in REFERENCE
    folders = [base / str(seed) if is_reference else out / arm / str(seed) for seed in seeds]
    found: dict[str, list[float]] = {}
    for folder in folders:
        marker = folder / "stages" / f"{'prm' if is_reference else ACCURACY}.json"
        measured = json.loads(marker.read_text())["metrics"]["validation"] if marker.exists() else {}
        for name in ("local_auc", "first_error_accuracy"):
            value = measured.get("all", {}).get(name, "-").split(" ")[0]
            if value != "-":
                found.setdefault(name, []).append(float(value))
    for curve in read_curves(folders, arm):
        gaps = [row["gap"] for row in curve if "gap" in row]
        if gaps:
            found.setdefault("gap", []).append(float(np.mean(gaps[-len(gaps) // 4 :])))
        found.setdefault("lines", []).append(float(curve[-1]["lines"]))
    return {name: float(np.mean(values)) for name, values in found.items()}


def variant_table(
    passes: Sequence[Mapping[str, Any]],
    models: Sequence[Mapping[str, Any]],
    arms: Sequence[str],
    variants: Mapping[str, tuple[str, str]],
) -> Table:
    """pass@1 of every variant beside its reward model's accuracy."""
    rates = {(r["arm"], r["decoding"]): r for r in passes if r["measure"] == "pass"}
    model = {row["arm"]: row for row in models}
    numbers = ("local_auc", "first_error_accuracy", "gap", "lines")
    return Table(
        title="Variants",
        head=[
            "arm", *(f"pass@1 {name}" for name in COLUMNS), "PRM AUC", "first error", "PRM - exact",
            "lines", "from", "what differs",
        ],
        rows=[
            [
                arm,
                *(as_cell(rates.get((arm, name), {})) for name in COLUMNS),
                *(number(model.get(arm, {}).get(name)) for name in numbers),
                *reversed(variants.get(arm, ("an arm of the ablation", "-"))),
            ]
            for arm in arms
        ],
        note="Reward models (local AUC, first-error accuracy) before any refresh, on the same held-out "
        "programs with exact labels; their score minus the exact one in the last quarter of training; lines "
        "per program at its end.",
    )  # fmt: skip


def difference_table(passes: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]]) -> Table:
    """Paired differences."""
    found = {(r["arm"], r["other"], r["decoding"]): r for r in passes if r["measure"] == "difference"}
    return Table(
        title="Paired differences of pass@1",
        head=["arms", *COLUMNS],
        rows=[
            [f"{arm} - {other}", *(as_cell(found.get((arm, other, name), {})) for name in COLUMNS)]
            for arm, other in pairs
        ],
    )


def accuracy_figure(passes: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]]) -> str:
    """pass@1 against the first-error accuracy of the reward model, a point per reward model; as SVG.

    Arms whose models are equally accurate have the same one: the first of them stands for it.
    """
    rates = {r["arm"]: r for r in passes if r["measure"] == "pass" and r["decoding"] == COLUMNS[0]}
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    seen = set()
    for row in models:
        quality = (row.get("local_auc"), row.get("first_error_accuracy"))
        if quality in seen:
            continue
        seen.add(quality)
        rate, accuracy = rates.get(row["arm"]), row.get("first_error_accuracy")
        if rate is None or accuracy is None:
            continue
        axes.errorbar(
            [accuracy], [rate["value"]], error_bars([rate]), fmt="o", ms=4, lw=0.8, capsize=2, color=BLUE
        )
        axes.annotate(
            row["arm"], (accuracy, rate["value"]), xytext=(4, 3), textcoords="offset points", size=8
        )
    axes.set_xlabel("first-error accuracy of the reward model on held-out tasks")
    axes.set_ylabel("sampled pass@1")
    plain_axes(axes)
    return to_svg(figure)
