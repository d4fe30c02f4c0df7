"""Stage prm: the process reward model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.progress import Report
from agents.stages.context import Context, Metrics, peak_memory_mb
from agents.stages.labels import LABELS
from prm.config import PRMConfig, in_validation
from prm.evaluation import PRMMetrics, evaluate_prm
from prm.labeling import read_labels
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram
from prm.selection import select
from prm.training import train_prm

COLUMNS = ("local_auc", "auc", "line_accuracy", "first_error_accuracy", "brier", "ece")


def train_reward_model(context: Context, report: Report, backbone: Path | None = None) -> Metrics:
    """Train the reward model on the labels and measure it on the tasks it has not seen.

    Args:
        context: The run.
        report: Told about every step.
        backbone: Folder of the causal LM that the model starts from; the starting policy's if None.
    """
    config, folder = context.config, context.path / "prm"
    backbone = context.path / "sft" if backbone is None else backbone
    labels = read_labels(context.path / LABELS)
    chosen = select(labels, config.selection)
    result = train_prm(chosen, config.prm, backbone=backbone, folder=folder, progress=report)
    model = ProcessRewardModel.from_pretrained(folder)
    unseen = held_out(labels, config.prm)
    return {
        "identity": result.identity,
        "train_programs": result.n_train,
        "steps": result.n_steps,
        "best_step": result.best_step,
        "history": result.curve,
        "validation": quality(model, unseen, {"all": lambda _: True, **_by_policy(unseen)}),
        "peak_memory_mb": peak_memory_mb(),
    }


def held_out(labels: Sequence[LabeledProgram], config: PRMConfig) -> list[LabeledProgram]:
    """Those of the tasks that no reward model with these settings is trained on."""
    return [
        item
        for item in labels
        if in_validation(item.program.task_id, fraction=config.validation_fraction, seed=config.seed)
    ]


def quality(
    model: ProcessRewardModel, labels: list[LabeledProgram], groups: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """The report's columns for every group of programs that is not empty."""
    rows = {}
    for name, belongs in groups.items():
        chosen = [item for item in labels if belongs(item)]
        if chosen:
            rows[name] = columns(evaluate_prm(model, chosen, groupings={}))
    return rows


def columns(metrics: PRMMetrics) -> dict[str, Any]:
    """A measurement as the report shows it: numbers with their bootstrap intervals, as text."""
    return {"programs": metrics.n_programs, **{name: str(getattr(metrics, name)) for name in COLUMNS}}


def _by_policy(labels: list[LabeledProgram]) -> dict[str, Any]:
    policies = dict.fromkeys(item.program.policy for item in labels)
    return {policy: lambda item, policy=policy: item.program.policy == policy for policy in policies}
