"""Labels by binary search against an exhaustive scan, and both against exact labels.

A policy writes stepwise programs of several horizons; of each horizon the first failing ones are labelled by
every arm with completions of its own, so that the arms' luck is independent. The scan completes the prefix of
every line K times. `search` is the default binary search; `reuse` lets completions of a prefix count for its
extensions; `adaptive` grows K with the steps that are left to write. Exact labels come from executing the
prefixes against the reference's values. Killed, the same command goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from agents.run_folder import open_run
from agents.samplers import make_sampler
from benchmarks.markdown import table_lines
from codegym.judge import Judge, make_judge
from codegym.storage import append_rows, read_rows, write_text
from codegym.task import Task
from codegym.tasks import load_tasks
from prm.agreement import compare_labels
from prm.audit import audit
from prm.collect import collect
from prm.labelers import make_labeler
from prm.labeling import label_to_file, read_labels
from prm.program import LabeledProgram, SampledProgram
from prm.store import CompletionStore

HORIZONS = {"smoke": (2, 4), "small": (2, 4, 6, 8, 10, 12), "full": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)}
FAILING = {"smoke": 6, "small": 36, "full": 100}
"""Failing programs per horizon."""
TASKS_PER_PROGRAM = 2
"""Tasks asked for each failing program wanted: some programs pass."""
SCAN, EXACT, SEARCH = "scan", "exact", "search"
ARMS: Mapping[str, Mapping[str, Any]] = {
    SEARCH: {},
    "reuse": {"reuse": True},
    "adaptive": {"k_per_step": 1.0},
}
"""Binary searches, by their options."""
AGREEMENT = ("line_agreement", "right_called_wrong", "wrong_called_right", "same_first_error")
"""Numbers of `prm.agreement.compare_labels` that the table shows."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure how far labels by binary search can be trusted, and what they cost."""

    scale: Literal["smoke", "small", "full"] = "small"  # horizons and programs
    model: Path = Path("runs/psgpo/baseline/policy")  # folder of the causal LM that writes and completes
    k: int = 8  # completions per prefix
    max_new_tokens: int = 192  # of a whole program
    threads: int = 2  # of torch
    seed: int = 0  # of everything
    out: Path = Path("runs/benchmarks/label_quality")  # where labels, completions, rows and report go


def main() -> None:
    """Run the benchmark and print its tables."""
    options = tyro.cli(Options, prog="python -m benchmarks.label_quality")
    disable_progress_bar()
    torch.set_num_threads(options.threads)
    settings = {**asdict(options), "model": str(options.model.resolve()), "out": None}
    with open_run(options.out, settings).locked(), make_judge("local") as judge:
        labels, tasks = label(options, judge)
    rows = measure(labels, tasks, k=options.k)
    (options.out / "rows.jsonl").unlink(missing_ok=True)
    append_rows(options.out / "rows.jsonl", rows)
    text = report(rows)
    write_text(options.out / "report.md", text)
    print(text)


def label(options: Options, judge: Judge) -> tuple[dict[str, list[LabeledProgram]], dict[str, Task]]:
    """Every arm's labels of the same failing programs, and their tasks."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    sampler = make_sampler("transformers", AutoModelForCausalLM.from_pretrained(options.model), tokenizer)
    tasks = {task.task_id: task for task in stepwise(options)}
    programs = failing(options, sampler, judge, tokenizer, tasks)
    common: dict[str, Any] = {
        "completer": sampler,
        "judge": judge,
        "tokenizer": tokenizer,
        "k": options.k,
        "max_new_tokens": options.max_new_tokens,
    }
    labelers = {SCAN: make_labeler("full_scan", **common, seed=options.seed, store=_store(options, SCAN))}
    for number, (arm, changes) in enumerate(ARMS.items(), start=1):
        labelers[arm] = make_labeler(
            "binary_search", **common, **changes, seed=options.seed + number, store=_store(options, arm)
        )
    labelers[EXACT] = make_labeler("reference", judge=judge)
    labels = {}
    for arm, labeler in labelers.items():
        path = options.out / f"{arm}.jsonl"
        label_to_file(labeler, programs, tasks, path, chunk=64)
        labels[arm] = read_labels(path)
    return labels, tasks


def stepwise(options: Options) -> list[Task]:
    """Held-out tasks of every horizon."""
    n_tasks = FAILING[options.scale] * TASKS_PER_PROGRAM
    return [
        task
        for horizon in HORIZONS[options.scale]
        for task in load_tasks(
            "stepwise", split="test", limit=n_tasks, seed=options.seed, horizons=(horizon, horizon)
        )
    ]


def failing(
    options: Options, sampler: Any, judge: Judge, tokenizer: Any, tasks: Mapping[str, Task]
) -> list[SampledProgram]:
    """The first failing programs of every horizon."""
    path = options.out / "programs.jsonl"
    if not path.exists():
        programs = collect(
            sampler, list(tasks.values()), judge, tokenizer,
            policy=str(options.model), n=1, max_new_tokens=options.max_new_tokens, seed=options.seed,
        )  # fmt: skip
        append_rows(path, (program.to_row() for program in programs))
    programs = [SampledProgram.from_row(row) for row in read_rows(path)]
    chosen = []
    for horizon in HORIZONS[options.scale]:
        mine = [p for p in programs if not p.passed and tasks[p.task_id].metadata["horizon"] == horizon]
        chosen += mine[: FAILING[options.scale]]
    return chosen


def measure(
    labels: Mapping[str, Sequence[LabeledProgram]], tasks: Mapping[str, Task], *, k: int
) -> list[dict[str, Any]]:
    """A row per arm and horizon, and one per arm over all of them (horizon None)."""

    def of(horizon: int | None, arm: str) -> list[LabeledProgram]:
        return [
            item for item in labels[arm] if horizon in (None, tasks[item.program.task_id].metadata["horizon"])
        ]

    horizons = sorted({tasks[item.program.task_id].metadata["horizon"] for item in labels[SCAN]})
    rows = []
    for arm in (SCAN, *(arm for arm in ARMS if arm in labels)):
        for horizon in (*horizons, None):
            scan, mine, exact = (of(horizon, name) for name in (SCAN, arm, EXACT))
            found = audit(scan, mine, k=k)
            rows.append(
                {
                    "arm": arm,
                    "horizon": horizon,
                    **found,
                    "exact": compare_labels(exact, mine, k=k),
                    "completions_per_program": sum(m.cost["completions"] for m in mine) / len(mine),
                    "seconds": sum(item.seconds for item in mine),
                }
            )
    return rows


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown: the audit of the default search by horizon, then the arms beside each other."""
    names = (
        "horizon", "programs", "prefixes", "monotone", "line agreement", "on the scan's draws",
        "same first error", "completions / scan", "/ scan that stops early", "(1-p)^K",
    )  # fmt: skip
    cells = [
        (
            row["horizon"] or "all", row["programs"], row["prefixes"], f"{1 - row['violations'].value:.3f}",
            row["line_agreement"], row["line_agreement_same_draws"], row["same_first_error"],
            f"{row['completions_vs_full_scan']:.3f}", f"{row['completions_vs_early_stop']:.3f}",
            "-" if row["mislabel_probability"] is None else f"{row['mislabel_probability']:.3f}",
        )
        for row in rows
        if row["arm"] == SEARCH
    ]  # fmt: skip
    lines = ["## Binary search against an exhaustive scan", "", *table_lines(names, cells)]
    names = (
        "arm", "completions per program", "of a scan", "line agreement with scan", "with exact labels",
        "right called wrong", "wrong called right", "same first error as exact", "seconds",
    )  # fmt: skip
    cells = [
        (
            row["arm"], f"{row['completions_per_program']:.1f}", f"{row['completions_vs_full_scan']:.3f}",
            row["line_agreement"],
            *(f"{row['exact'][name]:.3f}" for name in AGREEMENT),
            f"{row['seconds']:.0f}",
        )
        for row in rows
        if row["horizon"] is None
    ]  # fmt: skip
    lines += ["", "## Arms, all horizons", "", *table_lines(names, cells)]
    return "\n".join(lines) + "\n"


def _store(options: Options, arm: str) -> CompletionStore:
    return CompletionStore(options.out / f"{arm}_completions.jsonl")


if __name__ == "__main__":
    main()
