"""Stages evaluate and report: held-out pass rates of every arm, the PRM on the new policy, and the pages."""

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from agents.evaluation import Decoding, EvaluationRow, evaluate_to_file, read_evaluation
from agents.progress import Report
from agents.report import write_report
from agents.stages.context import Context, Metrics, load_sampler, peak_memory_mb
from agents.stages.prm import quality
from codegym.episode import Episode
from codegym.storage import write_json
from codegym.task import Task
from prm.alignment import split_lines
from prm.collect import collect
from prm.model import ProcessRewardModel
from prm.reference import ReferenceLabeler, ReferenceScorer

ROWS, SAMPLES = "rows.jsonl", "samples.json"
PROGRAMS_FOR_DRIFT = 192


def evaluate(context: Context, report: Report) -> Metrics:
    """Write `rows.jsonl` (one program per arm, decoding and held-out task) and `samples.json`."""
    before = len(read_evaluation(context.path / ROWS))
    began = time.monotonic()
    evaluate_arms(context, context.arms, context.test_tasks, context.path / ROWS, report)
    seconds = time.monotonic() - began
    rows = read_evaluation(context.path / ROWS)
    write_json(context.path / SAMPLES, _samples(context, rows))
    return {
        "rows": len(rows),
        **({"programs_per_s": (len(rows) - before) / seconds} if len(rows) > before else {}),
        "drift": _drift(context) if context.traced else {},
        "versions": versions(),
        "peak_memory_mb": peak_memory_mb(),
    }


def evaluate_arms(
    context: Context,
    arms: Sequence[str],
    tasks: Sequence[Task],
    path: Path,
    report: Report,
    decodings: Sequence[Decoding] = get_args(Decoding),
) -> None:
    """Write one program per arm, decoding and task to `path`; what it holds already is not sampled again."""
    config = context.config
    total, base = len(arms) * len(decodings) * len(tasks), 0
    for arm in arms:
        sampler, tokenizer = load_sampler(context, context.policy_folder(arm))
        for decoding in decodings:
            done = evaluate_to_file(
                sampler,
                tasks,
                context.judge,
                tokenizer.encode,
                path,
                arm=arm,
                decoding=decoding,
                max_new_tokens=config.rl.max_new_tokens,
                seed=config.seed,
            )
            for count in done:
                report(base + count, total)
            base += len(tasks)


def report(context: Context, progress: Report) -> Metrics:
    """Write the report from whatever the folder holds."""
    from agents.stages import STAGES

    write_report(context.path, [name for name in STAGES if name != "report"])
    progress(1, 1)
    return {}


def versions() -> dict[str, str]:
    """Versions that decide the numbers."""
    names = ("codegym", "torch", "transformers", "tokenizers", "numpy", "gymnasium", "stable-baselines3")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _drift(context: Context) -> dict[str, dict[str, Any]]:
    """The reward model before and after its refreshes, on programs of the policy that it has trained."""
    sampler, tokenizer = load_sampler(context, context.policy_folder("psgpo"))
    longest = context.config.eval_horizons[-1]
    tasks = [task for task in context.test_tasks if task.metadata.get("horizon", longest[1]) >= longest[0]]
    programs = collect(
        sampler,
        tasks[:PROGRAMS_FOR_DRIFT],
        context.judge,
        tokenizer,
        policy="psgpo/policy",
        n=1,
        max_new_tokens=context.config.rl.max_new_tokens,
        seed=context.config.seed + 1,
    )
    labels = ReferenceLabeler(context.judge).label(programs, {task.task_id: task for task in tasks})
    rows: dict[str, dict[str, Any]] = {}
    for title, place in (
        ("PSGPO's final policy, PRM as trained", "prm"),
        ("the same, PRM as refreshed", "psgpo/prm"),
    ):
        rows |= quality(
            ProcessRewardModel.from_pretrained(context.path / place), labels, {title: lambda _: True}
        )
    return rows


def _samples(context: Context, rows: Sequence[EvaluationRow]) -> list[dict[str, Any]]:
    """Three programs of PSGPO with a score per line, and exact labels where there are any."""
    tasks = {task.task_id: task for task in context.test_tasks}
    chosen = _choose([row for row in rows if row.arm == "psgpo" and row.decoding == "sampled"])
    episodes = [_episode(tasks[row.task_id], row) for _, row in chosen]
    scores = ProcessRewardModel.from_pretrained(context.path / "psgpo" / "prm").score(episodes)
    labels: Sequence[Sequence[float | None]]
    if context.traced:
        judgements = context.judge.judge([(episode.task, episode.source) for episode in episodes])
        judged = [replace(e, judgement=j) for e, j in zip(episodes, judgements, strict=True)]
        labels = [label.tolist() for label in ReferenceScorer(context.judge).score(judged)]
    else:
        labels = [[None] * len(episode.lines) for episode in episodes]
    return [
        {
            "title": title,
            "task_id": row.task_id,
            "verdict": row.verdict,
            "prompt": episode.task.prompt.splitlines(),
            "lines": [
                {"text": text, "score": float(score), "label": label}
                for text, score, label in zip(episode.lines, line_scores, line_labels, strict=True)
            ],
        }
        for (title, row), episode, line_scores, line_labels in zip(
            chosen, episodes, scores, labels, strict=True
        )
    ]


def _choose(rows: Sequence[EvaluationRow]) -> list[tuple[str, EvaluationRow]]:
    """The longest passing program, the longest failing one, the failing one that passed the most tests."""

    def size(row: EvaluationRow) -> tuple[int, int]:
        return (row.horizon or 0, row.lines)

    written = [row for row in rows if row.lines]
    passing = sorted((row for row in written if row.passed), key=size, reverse=True)
    failing = sorted((row for row in written if not row.passed), key=size, reverse=True)
    nearly = sorted(failing[1:], key=lambda row: row.tests_passed / max(1, row.tests_total), reverse=True)
    titled: Mapping[str, Sequence[EvaluationRow]] = {
        "PSGPO, passes": passing[: max(1, 3 - len(failing))],
        "PSGPO, fails": failing[:1],
        "PSGPO, fails, though no failing program passes more tests": nearly[: 1 if passing else 2],
    }
    return [(title, row) for title, chosen in titled.items() for row in chosen][:3]


def _episode(task: Task, row: EvaluationRow) -> Episode:
    return Episode(
        task=task,
        lines=tuple(split_lines(row.completion)),
        terminated=row.finished,
        truncated=not row.finished,
    )
