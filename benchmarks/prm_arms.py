"""What the studies of reward models share: programs on disk, one row per measurement, tables of arms."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from agents.progress import progress
from benchmarks.markdown import table_lines
from codegym.judge import Judge
from codegym.storage import append_rows, read_rows
from codegym.task import Task
from prm.bootstrap import Estimate
from prm.collect import collect
from prm.config import PRMConfig
from prm.evaluation import evaluate_prm
from prm.groupings import by_horizon, by_policy, by_position
from prm.labeling import Labeler, label_to_file, read_labels
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram, SampledProgram
from prm.report.evaluation import Evaluation, write_evaluation
from prm.report.samples import choose_samples
from prm.reranking import rerank
from prm.training import train_prm

NUMBERS = ("local_auc", "first_error_accuracy", "auc", "brier", "ece")
"""Numbers of `prm.evaluation.PRMMetrics` that the tables show."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One reward model of a study: what it is trained on, and how."""

    name: str  # unique in the study
    config: PRMConfig
    labels: Sequence[LabeledProgram]


class Study:
    """A folder of programs, labels, models and rows; what is there already is not made again.

    Args:
        out: The folder.
        judge: Judges all programs.
        backbone: Folder of the causal LM that every reward model starts from.
        console: Where progress is shown.
    """

    def __init__(self, out: Path, judge: Judge, backbone: Path, console: Console) -> None:
        self.out, self.judge, self.backbone, self.console = out, judge, backbone, console

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All measurements so far, in order."""
        return list(read_rows(self.out / "rows.jsonl"))

    def measured(self, kind: str, name: str, measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The row of that kind and name, measured now unless it is there.

        Its `seconds` are those of the process that finished it.
        """
        for row in self.rows:
            if (row["kind"], row["name"]) == (kind, name):
                return row
        began = time.perf_counter()
        row = {"kind": kind, "name": name, **measure()}
        row["seconds"] = round(time.perf_counter() - began, 1)
        append_rows(self.out / "rows.jsonl", [row])
        return row

    def programs(
        self, name: str, policies: Mapping[str, Any], tasks: Sequence[Task], *, at_once: int, **options: Any
    ) -> list[SampledProgram]:
        """Programs of every policy for every task, task by task, sampled `at_once` tasks at a time.

        Args:
            name: Of the file.
            policies: Samplers by name.
            tasks: What to write programs for.
            at_once: The unit of work that a kill can lose.
            options: Of `prm.collect.collect`; the seed is another one for each unit.
        """
        path = self.out / f"{name}.jsonl"
        seed = options.pop("seed", 0)

        def draw(report: Any) -> Mapping[str, Any]:
            done = {program.program_id for program in _read_programs(path)}
            for start in range(0, len(tasks), at_once):
                batch = tasks[start : start + at_once]
                last = [f"{p}/{batch[-1].task_id}/{options['n'] - 1}" for p in policies]
                if not done.issuperset(last):
                    drawn = [
                        program
                        for number, (policy, sampler) in enumerate(policies.items())
                        for program in collect(
                            sampler, batch, self.judge, sampler.tokenizer, policy=policy,
                            **options, seed=seed + 1_000_003 * number + start,
                        )
                    ]  # fmt: skip
                    places = {task.task_id: place for place, task in enumerate(batch)}
                    drawn.sort(key=lambda program: places[program.task_id])
                    append_rows(path, (p.to_row() for p in drawn if p.program_id not in done))
                report(min(start + at_once, len(tasks)), len(tasks))
            return {"programs": len(tasks) * len(policies) * options["n"]}

        self._phase(f"sample {name}", draw)
        return _read_programs(path)

    def labels(
        self, name: str, labeler: Labeler, programs: Sequence[SampledProgram], tasks: Mapping[str, Task],
        *, chunk: int,
    ) -> list[LabeledProgram]:  # fmt: skip
        """Labels of every program."""
        path = self.out / f"{name}.jsonl"

        def make(report: Any) -> Mapping[str, Any]:
            label_to_file(labeler, programs, tasks, path, chunk=chunk, progress=report)
            return {"programs": len(programs)}

        self._phase(f"label {name}", make)
        return read_labels(path)

    def train(
        self, arm: Arm, tests: Mapping[str, Sequence[LabeledProgram]], tasks: Mapping[str, Task]
    ) -> dict[str, Any]:
        """Train an arm's model and measure it on every test set."""

        def measure() -> Mapping[str, Any]:
            with progress(arm.name, self.console) as report:
                trained = train_prm(
                    arm.labels, arm.config, backbone=self.backbone, folder=self.folder(arm), progress=report
                )
            model = ProcessRewardModel.from_pretrained(self.folder(arm))
            groupings = {"horizon": by_horizon(tasks), "line": by_position}
            return {
                "head": arm.config.head,
                "programs": len(arm.labels),
                "tasks": len({item.program.task_id for item in arm.labels}),
                "training": trained.to_row(),
                "passes": round(arm.config.epochs * trained.n_train),
                "quality": {
                    policy: evaluate_prm(model, labels, groupings=groupings).to_row()
                    for policy, labels in tests.items()
                },
            }

        return self.measured("arm", arm.name, measure)

    def rerank(
        self, arm: Arm, policy: str, programs: Sequence[SampledProgram], tasks: Mapping[str, Task],
        sizes: Sequence[int],
    ) -> dict[str, Any]:  # fmt: skip
        """Choose among a policy's programs by an arm's model."""

        def measure() -> Mapping[str, Any]:
            model = ProcessRewardModel.from_pretrained(self.folder(arm))
            found = rerank(model, programs, tasks=tasks, judge=self.judge, sizes=sizes)
            return {"arm": arm.name, "policy": policy, "n": max(sizes), **found.to_row()}

        return self.measured("rerank", f"{arm.name}, {policy}", measure)

    def page(self, arm: Arm, tests: Sequence[LabeledProgram], tasks: Mapping[str, Task]) -> None:
        """Write the evaluation report of an arm's model, with its programs coloured line by line."""
        model = ProcessRewardModel.from_pretrained(self.folder(arm))
        groupings = {"policy": by_policy, "position": by_position, "horizon": by_horizon(tasks)}
        evaluation = Evaluation(
            model=model.identity,
            metrics=evaluate_prm(model, tests, groupings=groupings),
            samples=choose_samples(model, tests),
            about={"arm": arm.name, "label_sources": sorted({item.source for item in tests})},
        )
        write_evaluation(self.out / "reports" / self.folder(arm).name, evaluation)

    def folder(self, arm: Arm) -> Path:
        """Where an arm's model lies."""
        return self.out / "models" / arm.name.replace(" ", "_")

    def _phase(self, name: str, work: Callable[[Any], Mapping[str, Any]]) -> None:
        def measure() -> Mapping[str, Any]:
            with progress(name, self.console) as report:
                return work(report)

        self.measured("phase", name, measure)


def _read_programs(path: Path) -> list[SampledProgram]:
    return [SampledProgram.from_row(row) for row in read_rows(path)]


# --- tables -------------------------------------------------------------------------------------------------


def arm_table(rows: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> list[str]:
    """Lines of Markdown: these arms on every test set, with intervals."""
    names = ("arm", "programs", "tasks", "passes", "tested on", *(n.replace("_", " ") for n in NUMBERS))
    found = {row["name"]: row for row in rows if row["kind"] == "arm"}
    cells = [
        (
            *(row[name] for name in ("name", "programs", "tasks", "passes")),
            policy,
            *(estimate(quality[number]) for number in NUMBERS),
        )
        for row in (found[arm] for arm in arms if arm in found)
        for policy, quality in row["quality"].items()
    ]
    return table_lines(names, cells)


def rerank_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: ways to choose among n programs, and the share of the gap that each closes."""
    cells = []
    for row in (row for row in rows if row["kind"] == "rerank"):
        n = str(row["n"])
        for way, solved in row["solved"].items():
            closed = row["gap_closed"].get(way)
            share = estimate(closed[n]) if closed else "-"
            cells.append((row["arm"], row["policy"], row["n_tasks"], n, way, estimate(solved[n]), share))
    names = ("model", "policy", "tasks", "n", "chosen by", "solved", "share of the gap closed")
    return table_lines(names, cells)


def cost_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: seconds of every row."""
    cells = [(row["kind"], row["name"], f"{row['seconds']:.0f}") for row in rows]
    return table_lines(("kind", "name", "seconds"), cells)


def estimate(number: Mapping[str, float | None]) -> str:
    """An estimate's row as text: its value and interval."""
    return str(Estimate(**number))
