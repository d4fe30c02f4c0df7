"""The ablation's numbers: pass rates over paired seeds, what each part adds, and what it costs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.config import PipelineConfig
from benchmarks.crossed import share_of_gain
from benchmarks.study.curves import (
    AXES,
    Look,
    color_of,
    learning_curves,
    pass_figure,
    seconds_of,
    solved_share,
)
from benchmarks.study.page import write_study
from benchmarks.study.passes import (
    DECODINGS,
    SAMPLED,
    Rates,
    about_intervals,
    as_cell,
    by_length,
    in_buckets,
    pass_rows,
    read_rates,
)
from codegym.storage import write_json
from prm.report.page import Picture, Table

CHOICE = "choice.json"
SHARE = "share of oracle's gain"
LENGTHS = (60, 90, 120)
"""Tokens of a task's reference between which pass rates are reported apart."""


def choose_arm(out: Path, cells: Sequence[str], candidates: Sequence[str]) -> str:
    """The candidate that passes most sampled validation tasks of the sparse regime; written down once.

    Once the file is there it is never changed: test tasks may have been read since.

    Args:
        out: The study's folder.
        cells: Names of the cells of the sparse regime.
        candidates: Arms to choose from; the first of equals is taken.

    Raises:
        ValueError: If a cell has not validated every candidate on the same tasks as the others.
    """
    path = out / CHOICE
    if not path.exists():
        rates, _ = read_rates([out / cell / "validation.jsonl" for cell in cells])
        means = {arm: float(rates[arm, SAMPLED].mean()) for arm in candidates}
        write_json(path, {"chosen": max(means, key=lambda arm: means[arm]), "validation": means})
    return str(json.loads(path.read_text())["chosen"])


def write_report(
    out: Path,
    cells: Sequence[str],
    arms_of: Mapping[str, Sequence[str]],
    choice: str,
    config: PipelineConfig,
    lengths: Mapping[str, int],
) -> str:
    """Write rows, pages and plots; returns the tables for a terminal.

    Args:
        out: The study's folder.
        cells: Names of its cells.
        arms_of: Arms by regime.
        choice: The arm that stands for PSGPO.
        config: Settings that all cells share.
        lengths: Tokens of each test task's reference.
    """
    regimes = list(dict.fromkeys(cell.split("/")[0] for cell in cells))
    part = "" if set(regimes) == set(arms_of) else f" --regimes {' '.join(regimes)}"
    every = color_of(list(dict.fromkeys(arm for arms in arms_of.values() for arm in arms)))
    rows: list[dict[str, Any]] = []
    pictures: list[Picture] = []
    tables: list[Table] = []
    for regime in regimes:
        folders = [out / cell for cell in cells if cell.startswith(f"{regime}/")]
        arms, chosen = arms_of[regime], choice if choice in arms_of[regime] else "both"
        files = [folder / "test.jsonl" for folder in folders]
        measured = measure(*read_rates(files), arms, chosen, config.eval_horizons)
        measured += by_length(files, arms, lengths, LENGTHS)
        measured += [
            {"measure": "tasks solved", "arm": arm, "value": share}
            for arm in arms
            if (share := _mean_solved(folders, arm, config.train_tasks)) is not None
        ]
        measured += [{"measure": "seconds", "stage": k, "value": v} for k, v in seconds_of(folders).items()]
        rows += [{"regime": regime, **row} for row in measured]
        looks = {arm: every[arm] for arm in arms}
        pictures += regime_pictures(regime, measured, looks, folders, config.rl.rollouts_per_iteration)
        tables += regime_tables(regime, measured, arms, len(folders))
    return write_study(
        out,
        title="Ablation",
        summary=[*summarise(rows, choice), about_intervals(len({cell.split("/")[1] for cell in cells}))],
        pictures=pictures,
        tables=tables,
        rows=rows,
        command=f"python -m benchmarks.ablation --scale {config.scale}{part}",
        settings=asdict(config),
    )


def regime_pictures(
    regime: str,
    rows: Sequence[Mapping[str, Any]],
    looks: Mapping[str, Look],
    folders: Sequence[Path],
    rollouts: int,
) -> list[Picture]:
    """One regime's plots."""
    return [
        *(
            Picture(
                title=f"{regime}: pass@1, {decoding}",
                name=f"{regime}-{decoding}",
                svg=pass_figure(rows, looks, decoding),
            )
            for decoding in DECODINGS
        ),
        *(
            Picture(
                title=f"{regime}: learning over {over}",
                name=f"{regime}-{over}",
                svg=learning_curves(folders, looks, rollouts, over=over),
            )
            for over in AXES
        ),
    ]


def measure(
    rates: Rates,
    horizons: Mapping[str, int],
    arms: Sequence[str],
    chosen: str,
    buckets: Sequence[tuple[int, int]],
) -> list[dict[str, Any]]:
    """A row per arm, decoding and bucket of horizons; then differences and shares of the oracle's gain."""
    pairs = [(arm, "baseline") for arm in arms if arm != "baseline"]
    rows = pass_rows(rates, horizons, arms, [*pairs, (chosen, "baseline_long")], buckets)
    for about, part in in_buckets(rates, horizons, arms, buckets):
        for arm in part:
            if arm not in ("sft", "baseline", "oracle") and {"baseline", "oracle"} <= part.keys():
                found = asdict(share_of_gain(part[arm], part["baseline"], part["oracle"]))
                rows.append({**about, "measure": SHARE, "arm": arm, **found})
    return rows


def summarise(rows: Sequence[Mapping[str, Any]], choice: str) -> list[str]:
    """What a reader wants to know first, in sentences."""
    lines = [f"Chosen on validation tasks to stand for PSGPO, before any test task was read: {choice}."]
    for regime in dict.fromkeys(row["regime"] for row in rows):
        hits = [
            row
            for row in rows
            if row["regime"] == regime
            and row["measure"] == "difference"
            and row["other"] == "baseline_long"
            and row["decoding"] == SAMPLED
        ]
        gains = ", ".join(f"{row['horizons']} steps {as_cell(row)}" for row in hits)
        if hits:
            lines.append(
                f"{regime}: sampled pass@1 of {hits[0]['arm']} minus that of a baseline that trained as many "
                f"seconds as both took with its labels and reward model: {gains}."
            )
    return lines


def regime_tables(
    regime: str, rows: Sequence[Mapping[str, Any]], arms: Sequence[str], n_seeds: int
) -> list[Table]:
    """One regime's tables."""
    columns = list(dict.fromkeys((r["decoding"], r["horizons"]) for r in rows if "decoding" in r))
    head = [f"{decoding} {horizons}" for decoding, horizons in columns]

    def cells(**wanted: str) -> list[str]:
        found = []
        for decoding, horizons in columns:
            where = {**wanted, "decoding": decoding, "horizons": horizons}
            hits = [row for row in rows if where.items() <= row.items()]
            found.append(as_cell(hits[0]) if hits else "-")
        return found

    pairs = dict.fromkeys((r["arm"], r["other"]) for r in rows if r["measure"] == "difference")
    shares = dict.fromkeys(row["arm"] for row in rows if row["measure"] == SHARE)
    ranges = dict.fromkeys(row["tokens"] for row in rows if row["measure"] == "pass by tokens")
    by_tokens = {(r["arm"], r["tokens"]): r for r in rows if r["measure"] == "pass by tokens"}
    solved = {row["arm"]: row for row in rows if row["measure"] == "tasks solved"}
    ledger = {row["stage"]: row["value"] for row in rows if row["measure"] == "seconds"}
    return [
        Table(
            title=f"{regime}: pass@1 on held-out tasks, {n_seeds} seeds",
            head=["arm", *head],
            rows=[[arm, *cells(measure="pass", arm=arm)] for arm in arms],
        ),
        Table(
            title=f"{regime}: paired differences",
            head=["arm", *head],
            rows=[[f"{a} - {b}", *cells(measure="difference", arm=a, other=b)] for a, b in pairs],
        ),
        Table(
            title=f"{regime}: share of the oracle's gain over the baseline",
            head=["arm", *head],
            rows=[[arm, *cells(measure=SHARE, arm=arm)] for arm in shares],
        ),
        Table(
            title=f"{regime}: sampled pass@1 by tokens of the reference; training tasks ever solved",
            head=["arm", *ranges, "training tasks solved"],
            rows=[
                [
                    arm,
                    *(as_cell(by_tokens.get((arm, tokens), {})) for tokens in ranges),
                    as_cell(solved.get(arm, {})),
                ]
                for arm in arms
            ],
        ),
        Table(
            title=f"{regime}: seconds per seed",
            head=list(ledger),
            rows=[[f"{seconds:.0f}" for seconds in ledger.values()]] if ledger else [],
            note="One thread per run, two runs at a time. baseline_long has as many seconds as collect, "
            "label, prm and both together, and baseline too where its checkpoints' programs were labelled.",
        ),
    ]


def _mean_solved(folders: Sequence[Path], arm: str, n_tasks: int) -> float | None:
    shares = [share for folder in folders if (share := solved_share(folder, arm, n_tasks)) is not None]
    return sum(shares) / len(shares) if shares else None
