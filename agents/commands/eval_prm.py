"""`codegym eval-prm`: how good a reward model is, on labelled programs and in choosing among candidates."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from stable_baselines3.common.utils import get_device
from transformers.utils.logging import disable_progress_bar

from agents.stages.labels import read_programs
from agents.task_lookup import FINDERS, find_tasks
from codegym.episode import Episode
from codegym.errors import CodegymError
from codegym.judge import Judge, make_judge
from codegym.task import Task
from prm.bootstrap import Estimate
from prm.config import in_validation
from prm.evaluation import evaluate_prm
from prm.groupings import Grouping, by_horizon, by_policy, by_position, by_verdict
from prm.hacks import hack_gains, readable_hacks
from prm.label_files import check_tokens, read_label_files
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram, SampledProgram
from prm.report import Evaluation, choose_samples, write_evaluation
from prm.report.evaluation import evaluation_tables
from prm.report.page import as_text
from prm.reranking import SIZES, Reranking, rerank


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Measure a reward model on labelled programs; with candidates, in choosing among them too.

    Metrics come with 95 % bootstrap intervals over tasks, by policy, verdict, line position and, where the
    tasks are known, horizon. Hack probes and the majority of outputs run programs and need the tasks.
    """

    prm: Path
    """Folder of the reward model."""
    labels: tuple[Path, ...]
    """Files of labelled programs as `codegym train-prm` reads them; their tokens must be the model's."""
    candidates: Path | None = None
    """Judged programs as JSON Lines, several per task, for best of n."""
    out: Path | None = None
    """Folder for report.html, report.md, evaluation.json and plots."""
    tasks: str | None = None
    """Task source, or a JSON Lines file of tasks; by default the source that the programs' task ids name."""
    validation_fraction: float = 1.0
    """Below 1: only tasks that training with this validation fraction and seed held out."""
    seed: int = 0
    """Of that training; of the bootstrap."""
    sizes: tuple[int, ...] = SIZES
    """How many candidates to choose from."""
    n_probed: int = 64
    """How many failing programs hack probes are tried on; 0 for no probes."""
    n_bootstrap: int = 200
    """Resamples for the intervals; 0 for none."""
    judge: str = "local"
    """Which judge."""
    json: bool = False
    """One JSON object instead of tables for people."""
    device: str = "auto"
    """cpu, cuda or auto."""
    threads: int = 0
    """Of torch; 0 for one per core."""

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction <= 1:
            raise ValueError(f"validation_fraction must be in (0, 1], got {self.validation_fraction}")
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"sizes must be numbers from 1, got {self.sizes}")
        for name in ("n_probed", "n_bootstrap"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for file in (*self.labels, *([self.candidates] if self.candidates else [])):
            if not file.is_file():
                raise FileNotFoundError(f"no file of programs at {file}")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    options = tyro.cli(EvalOptions, args=list(argv), prog="codegym eval-prm")
    disable_progress_bar()
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    model = ProcessRewardModel.from_pretrained(options.prm, device=get_device(options.device))
    with make_judge(options.judge) as judge:
        evaluation = evaluate(options, model, judge)
    if options.json:
        sys.stdout.write(json.dumps(evaluation.to_row()) + "\n")
    else:
        sys.stdout.write("\n".join(map(as_text, evaluation_tables(evaluation))))
    if options.out is not None:
        sys.stderr.write(f"report: {write_evaluation(options.out, evaluation)}\n")
    return 0


def evaluate(options: EvalOptions, model: ProcessRewardModel, judge: Judge) -> Evaluation:
    """All that the options ask for.

    Raises:
        ValueError: If there are no labelled programs, or their tokens are not the model's.
    """
    labeled = read_label_files(options.labels, model.tokenizer)
    labeled = [item for item in labeled if _is_wanted(options, item.program)]
    candidates = [] if options.candidates is None else read_programs(options.candidates)
    candidates = [program for program in candidates if _is_wanted(options, program)]
    programs = [item.program for item in labeled]
    for written in (programs, candidates):
        check_tokens(written, model.tokenizer)
    task_ids = dict.fromkeys(program.task_id for program in (*programs, *candidates))
    tasks = _tasks(options, task_ids)
    if 0 < len(tasks) < len(task_ids):
        unknown = len(task_ids) - len(tasks)
        sys.stderr.write(f"{unknown} of {len(task_ids)} tasks are unknown: their programs are never run\n")
    groupings: dict[str, Grouping] = {"policy": by_policy, "verdict": by_verdict, "position": by_position}
    if tasks:
        groupings["horizon"] = by_horizon(tasks)
    return Evaluation(
        model=model.identity,
        metrics=evaluate_prm(
            model, labeled, groupings=groupings, n_bootstrap=options.n_bootstrap, seed=options.seed
        ),
        reranking=_reranked(options, model, candidates, tasks, judge) if options.candidates else None,
        hacks=_hacked(options, model, labeled, tasks, judge),
        samples=choose_samples(model, labeled),
        about={
            "prm": str(options.prm),
            "labels": [str(file) for file in options.labels],
            "label_sources": sorted({item.source for item in labeled}),
            "candidates": None if options.candidates is None else str(options.candidates),
            "validation_fraction": options.validation_fraction,
            "seed": options.seed,
            "tasks_known": len(tasks),
        },
    )


def _is_wanted(options: EvalOptions, program: SampledProgram) -> bool:
    return in_validation(program.task_id, fraction=options.validation_fraction, seed=options.seed)


def _tasks(options: EvalOptions, task_ids: Mapping[str, None]) -> dict[str, Task]:
    """The programs' tasks by id; none if they are not named, and the source in their ids gives none."""
    try:
        return find_tasks(task_ids, options.tasks)
    except CodegymError as error:
        if options.tasks is not None and options.tasks not in FINDERS:
            raise
        sys.stderr.write(f"without tasks: no horizons, probes and majority ({error})\n")
        return {}


def _reranked(
    options: EvalOptions,
    model: ProcessRewardModel,
    candidates: Sequence[SampledProgram],
    tasks: Mapping[str, Task],
    judge: Judge,
) -> Reranking:
    known = all(program.task_id in tasks for program in candidates)
    return rerank(
        model,
        candidates,
        tasks=tasks,
        judge=judge if known else None,
        sizes=options.sizes,
        n_bootstrap=options.n_bootstrap,
        seed=options.seed,
    )


def _hacked(
    options: EvalOptions,
    model: ProcessRewardModel,
    labeled: Iterable[LabeledProgram],
    tasks: Mapping[str, Task],
    judge: Judge,
) -> Mapping[str, Mapping[str, Estimate]]:
    failing = [
        item.program.episode(tasks[item.program.task_id])
        for item in labeled
        if not item.program.passed and item.program.task_id in tasks
    ]
    readable = readable_hacks(model, spread(failing, options.n_probed))
    if not readable:
        return {}
    return hack_gains(model, readable, judge, n_bootstrap=options.n_bootstrap, seed=options.seed)


def spread(episodes: Sequence[Episode], n: int) -> list[Episode]:
    """At most `n` of them, from the first on at equal distances."""
    return [episodes[place * len(episodes) // n] for place in range(n)] if n < len(episodes) else [*episodes]
