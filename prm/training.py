"""Training a process reward model on labelled programs."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from codegym.storage import write_json
from prm.batching import encode_labeled
from prm.checkpoint import TrainingState, read_checkpoint, write_checkpoint
from prm.config import PRMConfig, in_validation, learning_rate_at
from prm.metrics import line_metrics, score_lines
from prm.model import CONFIG_FILE, ProcessRewardModel
from prm.optimization import gradient_step, make_optimizer, program_order, training_programs
from prm.program import LabeledProgram

CHECKPOINT_FILE = "training.safetensors"
REPORT_FILE = "training.json"
Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class PRMReport:
    """What a training run did.

    Attributes:
        identity: Of the model it kept.
        n_train: Programs trained on.
        n_validation: Programs held out, by task.
        n_steps: Optimizer steps.
        best_step: The step whose weights were kept.
        local_auc: Of those weights on the held-out programs; None if it is not defined there.
        first_error_accuracy: Likewise.
        cpu_s: CPU seconds of the process that finished the run.
        history: One row per validation.
    """

    identity: str
    n_train: int
    n_validation: int
    n_steps: int
    best_step: int
    local_auc: float | None
    first_error_accuracy: float | None
    cpu_s: float
    history: tuple[Mapping[str, float | None], ...]

    def to_row(self) -> dict[str, Any]:
        """A JSON-able row."""
        return asdict(self)


def train_prm(
    labeled: Sequence[LabeledProgram],
    config: PRMConfig | None = None,
    *,
    backbone: str | Path | Any,
    tokenizer: Any = None,
    folder: str | Path,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> PRMReport:
    """Train a reward model from a language model's weights and save the best one to `folder`.

    Killed at any moment, the same call goes on from its last checkpoint and ends with the same weights, bit
    for bit; called again after it has finished, it returns its report.

    Args:
        labeled: Programs with labels; the exact tokens that their policies wrote are used.
        config: How to train; the defaults if None.
        backbone: A folder or hub name of a causal language model, or such a model; not changed.
        tokenizer: The tokenizer that wrote the programs; read from the folder if None.
        folder: Where checkpoints, the model and its report go.
        progress: Called after each step with steps done, steps in all, and the newest metrics.
        device: Where to train.

    Raises:
        ValueError: If no program is left to train on, or `folder` holds something else.
    """
    config, folder = config or PRMConfig(), Path(folder)
    model = ProcessRewardModel.from_backbone(backbone, tokenizer, head=config.head, device=device)
    fingerprint = _fingerprint(model, labeled, config)
    finished = _finished_report(folder, fingerprint)
    if finished is not None:
        return finished
    run = _Run(model, labeled, config, folder, fingerprint)
    run.train(progress)
    report = run.report()
    model.save_pretrained(folder)
    write_json(folder / REPORT_FILE, {"fingerprint": fingerprint, "report": report.to_row()})
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    return report


class _Run:
    """One training run: its data, its state, and where both are kept."""

    def __init__(
        self,
        model: ProcessRewardModel,
        labeled: Sequence[LabeledProgram],
        config: PRMConfig,
        folder: Path,
        fingerprint: str,
    ) -> None:
        self.model, self.config, self.fingerprint = model, config, fingerprint
        self.checkpoint = folder / CHECKPOINT_FILE
        held_out = [
            in_validation(item.program.task_id, fraction=config.validation_fraction, seed=config.seed)
            for item in labeled
        ]
        self.programs = training_programs(model, _where(labeled, held_out, False))
        # what follows the first error plays no part in the metrics that choose the weights
        self.validation = [
            encode_labeled(item, model.newlines).until_first_error()
            for item in _where(labeled, held_out, True)
        ]
        if not any(program.scored.any() for program in self.programs):
            raise ValueError(
                f"nothing to train on: {len(labeled)} labelled programs, {sum(held_out)} of them held out, "
                f"leave no line of code"
            )
        self.order = program_order(len(self.programs), config.epochs, config.seed)
        self.n_steps = math.ceil(len(self.order) / config.batch_size)
        self.optimizer = make_optimizer(
            model, learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        self.state = TrainingState()
        self.started = time.process_time()

    def train(self, progress: Progress | None) -> None:
        """Go on from the last checkpoint, if any, to the last step, and load the best weights."""
        if self.checkpoint.exists():
            self.state = read_checkpoint(self.checkpoint, self.model, self.optimizer, self.fingerprint)
        else:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        validate_at = {
            round(self.n_steps * (k + 1) / self.config.n_validations)
            for k in range(self.config.n_validations)
        }
        while self.state.step < self.n_steps:
            metrics = {"loss": self._step()}
            if self.state.step in validate_at:
                metrics |= {name: value for name, value in self._validate().items() if value is not None}
            if progress is not None:
                progress(self.state.step, self.n_steps, metrics)
            if self.state.step % self.config.checkpoint_every == 0 or self.state.step == self.n_steps:
                write_checkpoint(self.checkpoint, self.state, self.model, self.optimizer, self.fingerprint)
        self.model.load_state_dict(self.state.best)

    def report(self) -> PRMReport:
        """Summary of the finished run."""
        best = next(row for row in self.state.history if row["step"] == self.state.best_step)
        return PRMReport(
            identity=self.model.identity,
            n_train=len(self.programs),
            n_validation=len(self.validation),
            n_steps=self.n_steps,
            best_step=self.state.best_step,
            local_auc=best["local_auc"],
            first_error_accuracy=best["first_error_accuracy"],
            cpu_s=time.process_time() - self.started,
            history=tuple(self.state.history),
        )

    def _step(self) -> float:
        step, size = self.state.step, self.config.batch_size
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.n_steps, self.config)
        loss = gradient_step(
            self.model,
            self.optimizer,
            [self.programs[index] for index in self.order[step * size : (step + 1) * size]],
            micro_batch_tokens=self.config.micro_batch_tokens,
            max_grad_norm=self.config.max_grad_norm,
        )
        self.state.step += 1
        return loss

    def _validate(self) -> dict[str, float | None]:
        """Measure the weights and keep them unless earlier ones were better; the newest win a draw."""
        measured: dict[str, float | None] = {}
        if self.validation:
            readings = self.model.read(self.validation)
            lines = score_lines(self.validation, readings, per_line=self.model.line_head.per_line)
            measured = line_metrics(lines)
        metrics = {name: measured.get(name) for name in ("local_auc", "first_error_accuracy")}
        earlier = max((row["local_auc"] or 0.0 for row in self.state.history), default=0.0)
        if (metrics["local_auc"] or 0.0) >= earlier:
            self.state.best_step = self.state.step
            self.state.best = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.state.history.append({"step": self.state.step, **metrics})
        return metrics


def _where(labeled: Iterable[LabeledProgram], held_out: Iterable[bool], wanted: bool) -> list[LabeledProgram]:
    return [item for item, held in zip(labeled, held_out, strict=True) if held is wanted]


def _fingerprint(model: ProcessRewardModel, labeled: Sequence[LabeledProgram], config: PRMConfig) -> str:
    """Digest of all that decides a run's result."""
    digest = hashlib.sha256(model.identity.encode())
    digest.update(json.dumps(asdict(config), sort_keys=True).encode())
    for item in labeled:
        program = item.program
        row = [program.task_id, program.prompt_ids, program.token_ids, program.finished, item.labels]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _finished_report(folder: Path, fingerprint: str) -> PRMReport | None:
    """The report of this very run, if it has finished.

    Raises:
        ValueError: If the folder holds another reward model.
    """
    if not (folder / CONFIG_FILE).exists() or (folder / CHECKPOINT_FILE).exists():
        return None
    try:
        written = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        if written["fingerprint"] == fingerprint:
            return PRMReport(**{**written["report"], "history": tuple(written["report"]["history"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds a reward model but no readable {REPORT_FILE}: {error}") from error
    raise ValueError(
        f"{folder} holds a reward model trained on other labels, configuration or backbone; "
        "choose another folder"
    )
