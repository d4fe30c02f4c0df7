"""`report.md` and a self-contained `report.html` of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.alarms import ALARMS
from agents.report.figures import draw_all
from agents.report.results import ARM_TITLES, Results, read_results
from codegym.render import printable
from prm.report.page import Picture, Table, heat_map, number, write_pages

FIGURE_TITLES = {
    "pass_by_horizon": "pass@1 by horizon",
    "learning_curves": "Learning curves",
    "prm_training": "Process reward model",
    "stage_times": "Time per stage",
}

LABEL_COLUMNS = (
    *("programs", "correct", "revised", "wrong", "lines", "lines_per_program", "positive", "negative"),
    *("completions", "tokens", "verdicts", "seconds"),
)


def write_report(folder: Path, stage_order: Sequence[str]) -> Path:
    """Write `report.md`, `report.html` and `plots/*.svg` into a run folder; returns the HTML's path.

    The report shows whatever the folder holds, so it can be written before a run is complete.
    """
    results = read_results(folder, stage_order)
    context = {
        "config": results.config,
        "pictures": [
            Picture(title=FIGURE_TITLES[name], name=name, svg=svg) for name, svg in draw_all(results).items()
        ],
        "tables": [table for table in build_tables(results) if table.rows],
        "samples": [_shown(sample) for sample in results.samples],
        "versions": results.stage("evaluate").get("versions", {}),
        "missing": [name for name in stage_order if name not in {s["stage"] for s in results.stages}],
    }
    return write_pages(folder, "agents.report", context)


def build_tables(results: Results) -> list[Table]:
    """The report's tables, most wanted first; a table without rows has nothing to show yet."""
    return [
        *(_pass_table(results, decoding) for decoding in ("sampled", "greedy")),
        _verdict_table(results),
        _alarm_table(results),
        _prm_table(results),
        _label_table(results),
        _agreement_table(results),
        _stage_table(results),
        _throughput_table(results),
    ]


def _pass_table(results: Results, decoding: str) -> Table:
    buckets = results.buckets
    rows = [
        [ARM_TITLES[arm], *(str(results.rate(arm, bucket, decoding)) for bucket in buckets)]
        for arm in results.arms
    ]
    tasks = [str(results.rate(results.arms[0], b, decoding).total) for b in buckets] if rows else []
    return Table(
        title=f"pass@1 by horizon, {decoding}",
        head=["policy", *(f"horizon {bucket.title}" for bucket in buckets)],
        rows=rows,
        note=f"One program per held-out task ({', '.join(tasks)} tasks); 95 % Wilson intervals.",
    )


def _verdict_table(results: Results) -> Table:
    kinds = sorted({row.verdict for row in results.rows})
    rows = []
    for arm in results.arms:
        mine = [row for row in results.rows if row.arm == arm and row.decoding == "sampled"]
        shares = [f"{sum(row.verdict == kind for row in mine) / max(1, len(mine)):.3f}" for kind in kinds]
        lines = sum(row.lines for row in mine) / max(1, len(mine))
        ended = sum(row.finished for row in mine) / max(1, len(mine))
        rows.append([ARM_TITLES[arm], *shares, f"{lines:.1f}", f"{ended:.3f}"])
    return Table(
        title="Verdicts of sampled programs",
        head=["policy", *kinds, "lines per program", "ended by itself"],
        rows=rows,
    )


def _alarm_table(results: Results) -> Table:
    rows = []
    for arm, curve in results.curves.items():
        for name in ALARMS:
            raised = [row for row in curve if name in row.get("alarms", {})]
            if raised:
                first, last = raised[0]["iteration"], raised[-1]["iteration"]
                when = [f"{first}-{last}", f"{len(raised)}"]
                rows.append([ARM_TITLES[arm], name, *when, raised[-1]["alarms"][name]])
    return Table(
        title="Alarms in the training logs",
        head=["policy", "alarm", "between iterations", "times", "what was seen last"],
        rows=rows,
        note="Known ways of failing: each compares a run's latest iterations with its first.",
    )


def _prm_table(results: Results) -> Table:
    groups: Mapping[str, Mapping[str, Any]] = {
        **results.stage("prm").get("validation", {}),
        **results.stage("evaluate").get("drift", {}),
    }
    columns = {
        "programs": "programs",
        "local_auc": "local AUC",
        "auc": "AUC",
        "line_accuracy": "line accuracy",
        "first_error_accuracy": "first-error accuracy",
        "brier": "Brier",
        "ece": "ECE",
    }
    return Table(
        title="Process reward model on held-out tasks",
        head=["programs of", *columns.values()],
        rows=[[name, *(number(group.get(key)) for key in columns)] for name, group in groups.items()],
        note="Local AUC counts lines up to and including the first wrong one; late lines are wrong by "
        "default and flatter the plain AUC.",
    )


def _label_table(results: Results) -> Table:
    label = results.stage("label")
    sources: Mapping[str, Mapping[str, Any]] = label.get("statistics", {})
    rows = []
    for name, values in sources.items():
        flat = {**values, **values.get("cost", {}), "seconds": label.get("seconds", {}).get(name)}
        flat["lines_per_program"] = values.get("lines_per_program", {}).get("mean")
        rows.append([name, *(number(flat.get(key)) for key in LABEL_COLUMNS)])
    return Table(
        title="Labels: statistics and cost",
        head=["labels by", *(key.replace("_", " ") for key in LABEL_COLUMNS)],
        rows=rows,
        note="Correct programs pass, revised ones fail after some right line, wrong ones have none.",
    )


def _agreement_table(results: Results) -> Table:
    agreement: Mapping[str, Any] = results.stage("label").get("agreement", {})
    return Table(
        title="Binary search against exact labels, same failing programs",
        head=["measure", "value"],
        rows=[[key.replace("_", " "), number(value)] for key, value in agreement.items()],
    )


def _stage_table(results: Results) -> Table:
    rows = [[stage["stage"], f"{stage['seconds']:.0f}"] for stage in results.stages]
    if rows:
        rows.append(["total", f"{sum(stage['seconds'] for stage in results.stages):.0f}"])
    return Table(
        title="Wall seconds per stage",
        head=["stage", "seconds"],
        rows=rows,
        note="A stage that was interrupted counts the seconds of every attempt that finished a unit of work.",
    )


def _throughput_table(results: Results) -> Table:
    rows = []
    for stage in results.stages:
        for key, value in stage["metrics"].items():
            if key.endswith("_per_s") or key == "peak_memory_mb":
                rows.append(
                    [stage["stage"], key.replace("_per_s", " per second").replace("_", " "), f"{value:,.0f}"]
                )
    return Table(title="Throughput and memory", head=["stage", "what", "value"], rows=rows)


def _shown(sample: Mapping[str, Any]) -> dict[str, Any]:
    columns = ([line[name] for line in sample["lines"]] for name in ("text", "score", "label"))
    return {**sample, "prompt": list(map(printable, sample["prompt"])), "lines": heat_map(*columns)}
