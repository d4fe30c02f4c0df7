"""Stages collect and label: programs of the baseline's checkpoints or of the start, and a label per line."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.progress import Report
from agents.stages.context import Context, Metrics, load_sampler
from codegym.storage import append_rows, read_rows
from codegym.task import Task
from prm.agreement import compare_labels
from prm.collect import collect
from prm.completion import Completer
from prm.labelers import make_labeler as labeler_by_name
from prm.labelers import options_of
from prm.labeling import Labeler, label_to_file, read_labels
from prm.program import LabeledProgram, SampledProgram
from prm.reference import ReferenceLabeler
from prm.selection import label_statistics
from prm.store import CompletionStore

PROGRAMS, LABELS, AUDIT = "programs.jsonl", "labels.jsonl", "audit.jsonl"
COMPLETIONS = "completions.jsonl"
TASKS_AT_ONCE = 128


class CheckpointLabeler:
    """Labels by completion in which every program is completed by the checkpoint that wrote it.

    Args:
        context: The run.
        source: Which labeler, an entry of `prm.labelers.LABELERS`; binary search is the paper's way.
    """

    def __init__(self, context: Context, source: str = "binary_search") -> None:
        self.context, self.source = context, source
        self._store = CompletionStore(context.path / COMPLETIONS)
        self._labelers: dict[str, Labeler] = {}

    def label(self, programs: Sequence[SampledProgram], tasks: Mapping[str, Task]) -> list[LabeledProgram]:
        """Label every program, in order."""
        labeled: dict[str, LabeledProgram] = {}
        for policy in dict.fromkeys(program.policy for program in programs):
            if policy not in self._labelers:
                completer, _ = load_sampler(self.context, self.context.path / policy)
                self._labelers[policy] = by_completion(self.context, self.source, completer, self._store)
            mine = [program for program in programs if program.policy == policy]
            for item in self._labelers[policy].label(mine, tasks):
                labeled[item.program.program_id] = item
        return [labeled[program.program_id] for program in programs]


def by_completion(
    context: Context, source: str, completer: Completer, store: CompletionStore | None = None
) -> Labeler:
    """The run's labeler by completion with that completer."""
    config = context.config
    options: dict[str, Any] = {
        "k": config.label.k,
        "temperature": config.label.temperature,
        "max_new_tokens": config.rl.max_new_tokens,
    }
    if "draws_at_once" in options_of(source):
        options["draws_at_once"] = max(n for n in (1, 2, 3, 4) if config.label.k % n == 0)
    return labeler_by_name(
        source,
        judge=context.judge,
        completer=completer,
        tokenizer=completer.tokenizer,  # type: ignore[attr-defined]
        seed=config.seed,
        store=store,
        **options,
    )


def make_labeler(context: Context, completer: Completer | None = None) -> Labeler:
    """Who labels what the reward model learns from: `completer` completes, else each program's checkpoint.

    Raises:
        ValueError: If labels by reference are wanted but the tasks carry no trace.
    """
    source = context.config.label.source
    if source == "reference":
        if not context.traced:
            raise ValueError(
                f"tasks of {context.config.tasks!r} carry no trace of a right program's values, "
                "which labels by reference need; use --label.source binary_search"
            )
        return ReferenceLabeler(context.judge)
    return (
        CheckpointLabeler(context, source) if completer is None else by_completion(context, source, completer)
    )


def policies_to_label(context: Context) -> list[str]:
    """Folders of the policies whose programs are labelled; of the baseline's checkpoints, oldest first."""
    if context.config.label.policies == "start":
        return ["sft"]
    steps = (context.path / "baseline").glob("step-*")
    return [f"baseline/{step.name}" for step in sorted(steps, key=lambda step: int(step.name.split("-")[1]))]


def collect_programs(context: Context, report: Report) -> Metrics:
    """Sample and judge programs of every policy to label into `programs.jsonl`."""
    config, path = context.config, context.path / PROGRAMS
    done = {program.program_id for program in read_programs(path)}
    tasks, policies = context.train_tasks, policies_to_label(context)
    step, total, spent, drawn = 0, len(policies) * len(tasks), 0.0, 0
    for number, policy in enumerate(policies):
        sampler, tokenizer = load_sampler(context, context.path / policy)
        for start in range(0, len(tasks), TASKS_AT_ONCE):
            batch = tasks[start : start + TASKS_AT_ONCE]
            step += len(batch)
            if all(f"{policy}/{task.task_id}/{config.label.programs_per_task - 1}" in done for task in batch):
                continue
            began = time.monotonic()
            programs = collect(
                sampler,
                batch,
                context.judge,
                tokenizer,
                policy=policy,
                n=config.label.programs_per_task,
                max_new_tokens=config.rl.max_new_tokens,
                seed=config.seed + 1_000_003 * (number + 1) + start,
            )
            spent, drawn = spent + time.monotonic() - began, drawn + len(programs)
            append_rows(path, (program.to_row() for program in programs if program.program_id not in done))
            report(step, total)
    programs = read_programs(path)
    return {
        "programs": len(programs),
        "pass_rate": {
            policy: sum(p.passed for p in programs if p.policy == policy)
            / max(1, sum(p.policy == policy for p in programs))
            for policy in policies
        },
        **({"programs_per_s": drawn / spent} if drawn else {}),
    }


def label_programs(context: Context, report: Report, completer: Completer | None = None) -> Metrics:
    """Label every program into `labels.jsonl`, and some by the other source into `audit.jsonl`.

    Args:
        context: The run.
        report: Told about every chunk.
        completer: Completes all programs, in labels by completion; None: each one's own policy does.
    """
    config = context.config.label
    tasks = {task.task_id: task for task in context.train_tasks}
    programs = read_programs(context.path / PROGRAMS)
    audited = _audited(programs, config.audited) if context.traced else []
    total = len(programs) + len(audited)
    began = time.monotonic()
    label_to_file(
        make_labeler(context, completer),
        programs,
        tasks,
        context.path / LABELS,
        chunk=config.chunk,
        progress=lambda done, _: report(done, total),
    )
    seconds: dict[str, float] = {config.source: time.monotonic() - began}
    labels = read_labels(context.path / LABELS)
    statistics: dict[str, dict[str, Any]] = {config.source: label_statistics(labels)}
    metrics: dict[str, object] = {"statistics": statistics}
    if audited:
        other: Labeler = (
            CheckpointLabeler(context) if config.source == "reference" else ReferenceLabeler(context.judge)
        )
        began = time.monotonic()
        label_to_file(
            other,
            audited,
            tasks,
            context.path / AUDIT,
            chunk=max(1, config.chunk // 4),
            progress=lambda done, _: report(len(programs) + done, total),
        )
        seconds[other.source] = time.monotonic() - began
        audit = read_labels(context.path / AUDIT)
        statistics[other.source] = label_statistics(audit)
        exact, estimated = (labels, audit) if config.source == "reference" else (audit, labels)
        metrics["agreement"] = compare_labels(exact, estimated, k=config.k)
    return {**metrics, "seconds": seconds}


def read_programs(path: Path) -> list[SampledProgram]:
    """Programs collected so far, in order."""
    return [SampledProgram.from_row(row) for row in read_rows(path)]


def _audited(programs: Sequence[SampledProgram], count: int) -> list[SampledProgram]:
    """Failing programs, spread evenly over the list and so over checkpoints and tasks."""
    failing = [program for program in programs if not program.passed]
    if len(failing) <= count:
        return failing
    return [failing[place * len(failing) // count] for place in range(count)]
