"""Held-out programs while a reward model trains: which they are, and what it says about them."""

from collections.abc import Sequence

import torch

from prm.balance import Balance
from prm.config import PRMConfig, in_validation
from prm.metrics import line_metrics, score_lines
from prm.model import LineReading, ProcessRewardModel
from prm.optimization import training_programs
from prm.program import LabeledProgram

METRICS = ("local_auc", "first_error_accuracy", "auc", "line_accuracy", "brier", "ece")


def split(
    labeled: Sequence[LabeledProgram], config: PRMConfig
) -> tuple[list[LabeledProgram], list[LabeledProgram]]:
    """Programs to train on, and programs of the tasks that are held out."""
    parts: tuple[list[LabeledProgram], list[LabeledProgram]] = ([], [])
    for item in labeled:
        held = in_validation(item.program.task_id, fraction=config.validation_fraction, seed=config.seed)
        parts[held].append(item)
    return parts


class Validation:
    """Measures a model on held-out programs.

    Args:
        model: The model that trains.
        held_out: The programs.
        balance: What right and wrong lines weigh in the loss.
    """

    def __init__(
        self, model: ProcessRewardModel, held_out: Sequence[LabeledProgram], balance: Balance
    ) -> None:
        self.model, self.balance = model, balance
        self.programs = training_programs(model, held_out)  # as the loss reads them
        # what follows the first error plays no part in the metrics that choose the weights
        self.prefixes = [program.until_first_error() for program in self.programs]

    def measure(self) -> dict[str, float | None]:
        """`validation_loss` and `METRICS` of the weights as they are; None where one is not defined."""
        if not self.programs:
            return dict.fromkeys(("validation_loss", *METRICS))
        readings = self.model.read(self.programs)
        cut = [
            reading.first_lines(prefix.n_lines)
            for reading, prefix in zip(readings, self.prefixes, strict=True)
        ]
        lines = score_lines(self.prefixes, cut, per_line=self.model.line_head.per_line)
        metrics = line_metrics(lines)
        return {"validation_loss": self._loss(readings), **{name: metrics[name] for name in METRICS}}

    def _loss(self, readings: Sequence[LineReading]) -> float | None:
        total, n_lines = 0.0, 0
        for program, reading in zip(self.programs, readings, strict=True):
            outputs, labels = (torch.from_numpy(row)[None] for row in (reading.outputs, program.labels))
            scored, present = (
                torch.from_numpy(program.scored)[None],
                torch.ones_like(labels, dtype=torch.bool),
            )
            weights = self.balance.of_lines(labels, scored)
            loss = self.model.line_head.loss(outputs, labels, present, scored, weights)
            total += float(loss.total)
            n_lines += int(loss.n_lines)
        return total / n_lines if n_lines else None
