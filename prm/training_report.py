"""What a training run of a reward model leaves in its folder beside the model: its report."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codegym.storage import write_json
from prm.model_folder import CONFIG_FILE

CHECKPOINT_FILE = "training.safetensors"
REPORT_FILE = "training.json"


@dataclass(frozen=True, kw_only=True)
class PRMReport:
    """What a training run did.

    Attributes:
        identity: Of the model it kept.
        n_train: Programs trained on.
        n_validation: Programs held out, by task.
        n_weights: Numbers that trained.
        n_steps: Optimizer steps done.
        n_planned: Optimizer steps that the epochs ask for; more than were done if patience ran out.
        best_step: The step whose weights were kept.
        local_auc: Of those weights on the held-out programs; None if it is not defined there.
        first_error_accuracy: Likewise.
        cpu_s: CPU seconds of the process that finished the run.
        sources: Programs by who labelled them and which policy wrote them: {source: {policy: n}}.
        losses: The mean loss per line of every step's programs before it.
        history: One row per validation: step, training_loss (mean since the last one), validation_loss of the
            lines that the training loss counts, and `prm.metrics.line_metrics` of the held-out programs up to
            their first wrong line.
        held_out: The saved model on the whole held-out programs: {metric: {value, low, high}}, with 95 %
            intervals over tasks. They chose the step, so they flatter it a little.
    """

    identity: str
    n_train: int
    n_validation: int
    n_weights: int
    n_steps: int
    n_planned: int
    best_step: int
    local_auc: float | None
    first_error_accuracy: float | None
    cpu_s: float
    sources: Mapping[str, Mapping[str, int]]
    losses: tuple[float, ...]
    history: tuple[Mapping[str, float | None], ...]
    held_out: Mapping[str, Mapping[str, float | None]]

    @property
    def curve(self) -> list[dict[str, Any]]:
        """Rows for `prm.plots.training_curves`: the loss of every step, and the validations."""
        losses = [{"step": step, "loss": loss} for step, loss in enumerate(self.losses, start=1)]
        return [*losses, *map(dict, self.history)]

    def to_row(self) -> dict[str, Any]:
        """A JSON-able row."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "PRMReport":
        """Read a row back."""
        return cls(**{**row, "losses": tuple(row["losses"]), "history": tuple(row["history"])})


def write_report(folder: Path, report: PRMReport, fingerprint: str) -> None:
    """Mark the run in `folder` as finished."""
    write_json(folder / REPORT_FILE, {"fingerprint": fingerprint, "report": report.to_row()})
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)


def read_report(folder: Path, fingerprint: str) -> PRMReport | None:
    """The report of this very run, if it has finished.

    Raises:
        ValueError: If the folder holds another reward model.
    """
    if not (folder / CONFIG_FILE).exists() or (folder / CHECKPOINT_FILE).exists():
        return None
    try:
        written = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        if written["fingerprint"] == fingerprint:
            return PRMReport.from_row(written["report"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds a reward model but no readable {REPORT_FILE}: {error}") from error
    raise ValueError(
        f"{folder} holds a reward model trained on other labels, configuration or backbone; "
        "choose another folder"
    )
