"""Training a process reward model on labelled programs."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import CONFIG_NAME

from prm.backbone import load_trained_weights, trained_weights
from prm.balance import UNBALANCED, Balance
from prm.checkpoint import TrainingState, read_checkpoint, write_checkpoint
from prm.config import PRMConfig, learning_rate_at
from prm.evaluation import evaluate_prm
from prm.label_files import check_tokens
from prm.lora import save_adapter
from prm.model import ProcessRewardModel
from prm.model_card import CARD_FILE, write_model_card
from prm.optimization import gradient_step, make_optimizer, program_order, training_programs
from prm.program import LabeledProgram
from prm.trainable import finish_training, trainable_model
from prm.training_report import CHECKPOINT_FILE, PRMReport, read_report, write_report
from prm.validation import METRICS, Validation, split

__all__ = ["PRMReport", "Progress", "train_prm"]

ADAPTER_FOLDER = "adapter"
Progress = Callable[[int, int, Mapping[str, float]], None]


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
    for bit on a CPU; called again after it has finished, it returns its report. What is saved is a plain
    backbone in float32, an adapter merged into it, with a model card, loss and AUC curves, and the report.

    Args:
        labeled: Programs with labels; the exact tokens that their policies wrote are used.
        config: How to train; the defaults if None.
        backbone: A folder or hub name of a causal language model, or such a model; not changed.
        tokenizer: The tokenizer that wrote the programs; read from the folder if None.
        folder: Where checkpoints, the model and its report go.
        progress: Called after each step with steps done, steps in all, and the newest metrics.
        device: Where to train.

    Raises:
        MissingExtraError: If an adapter is asked for and peft is not installed.
        ValueError: If no program is left to train on, another tokenizer wrote the programs, or `folder` holds
            something else.
    """
    config, folder = config or PRMConfig(), Path(folder)
    model = trainable_model(backbone, tokenizer, config, device)
    check_tokens([item.program for item in labeled], model.tokenizer)
    fingerprint = _fingerprint(model, labeled, config)
    finished = read_report(folder, fingerprint)
    if finished is not None:
        return finished
    _check_unused(folder)
    run = _Run(model, labeled, config, folder / CHECKPOINT_FILE, fingerprint)
    run.train(progress)
    if config.keep_adapter:
        save_adapter(model.backbone, folder / ADAPTER_FOLDER)
    finish_training(model)
    report = run.report()
    model.save_pretrained(folder)
    write_model_card(folder, model, report, config, labeled)
    write_report(folder, report, fingerprint)
    return report


def _check_unused(folder: Path) -> None:
    """Check that nobody's language model or readme lies where the reward model's would.

    Raises:
        ValueError: If one does.
    """
    if (folder / CHECKPOINT_FILE).exists():
        return  # they are this run's own
    for name in (CONFIG_NAME, CARD_FILE):
        if (folder / name).exists():
            raise ValueError(f"{folder} holds a {name} of something else; choose another folder")


class _Run:
    """One training run: its data, its state, and where both are kept."""

    def __init__(
        self,
        model: ProcessRewardModel,
        labeled: Sequence[LabeledProgram],
        config: PRMConfig,
        checkpoint: Path,
        fingerprint: str,
    ) -> None:
        self.model, self.config, self.checkpoint, self.fingerprint = model, config, checkpoint, fingerprint
        self.labeled = labeled
        chosen, self.held_out = split(labeled, config)
        self.programs = training_programs(model, chosen)
        if not any(program.scored.any() for program in self.programs):
            raise ValueError(
                f"nothing to train on: {len(labeled)} labelled programs, {len(self.held_out)} of them held "
                "out, leave no line of code"
            )
        self.balance = Balance.of_programs(self.programs) if config.balance else UNBALANCED
        self.validation = Validation(model, self.held_out, self.balance)
        self.order = program_order(len(self.programs), config.epochs, config.seed)
        self.n_steps = math.ceil(len(self.order) / config.batch_size)
        self.optimizer = make_optimizer(
            model, learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        self.n_weights = sum(weight.numel() for weight in trained_weights(model).values())
        self.state = TrainingState()
        self.started = time.process_time()

    def train(self, progress: Progress | None) -> None:
        """Go on from the last checkpoint, if any, to the last step, and load the best weights."""
        if self.checkpoint.exists():
            self.state = read_checkpoint(self.checkpoint, self.model, self.optimizer, self.fingerprint)
        else:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        n_validations, state = self.config.n_validations, self.state
        validate_at = {round(self.n_steps * (k + 1) / n_validations) for k in range(n_validations)}
        while not self._is_over():
            self._step()
            metrics = {"loss": state.losses[-1]}
            if state.step in validate_at:
                metrics |= {name: value for name, value in self._validate().items() if value is not None}
            if progress is not None:
                progress(state.step, self.n_steps, metrics)
            if state.step % self.config.checkpoint_every == 0 or self._is_over():
                write_checkpoint(self.checkpoint, state, self.model, self.optimizer, self.fingerprint)
        load_trained_weights(self.model, state.best)

    def report(self) -> PRMReport:
        """Summary of the finished run."""
        best = next(row for row in self.state.history if row["step"] == self.state.best_step)
        return PRMReport(
            identity=self.model.identity,
            n_train=len(self.programs),
            n_validation=len(self.held_out),
            n_weights=self.n_weights,
            n_steps=self.state.step,
            n_planned=self.n_steps,
            best_step=self.state.best_step,
            local_auc=best["local_auc"],
            first_error_accuracy=best["first_error_accuracy"],
            cpu_s=time.process_time() - self.started,
            sources=_sources(self.labeled),
            losses=tuple(self.state.losses),
            history=tuple(self.state.history),
            held_out=_held_out_metrics(self.model, self.held_out),
        )

    def _is_over(self) -> bool:
        """Whether all steps are done, or the last `patience` validations brought nothing better."""
        since_best = sum(row["step"] > self.state.best_step for row in self.state.history)
        impatient = 0 < self.config.patience <= since_best
        return impatient or self.state.step == self.n_steps

    def _step(self) -> None:
        step, size = self.state.step, self.config.batch_size
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.n_steps, self.config)
        cuda = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            # an adapter's dropout depends on nothing that a checkpoint would have to carry
            torch.manual_seed(int(np.random.SeedSequence([self.config.seed, step]).generate_state(1)[0]))
            loss = gradient_step(
                self.model,
                self.optimizer,
                [self.programs[index] for index in self.order[step * size : (step + 1) * size]],
                micro_batch_tokens=self.config.micro_batch_tokens,
                max_grad_norm=self.config.max_grad_norm,
                balance=self.balance,
            )
        self.state.losses.append(loss)
        self.state.step += 1

    def _validate(self) -> dict[str, float | None]:
        """Measure the weights and keep them unless earlier ones were better; the newest win a draw."""
        metrics = self.validation.measure()
        history = self.state.history
        if (metrics["local_auc"] or 0.0) >= max((row["local_auc"] or 0.0 for row in history), default=0.0):
            self.state.best_step = self.state.step
            self.state.best = {name: value.clone() for name, value in trained_weights(self.model).items()}
        newest = self.state.losses[history[-1]["step"] if history else 0 :]
        history.append({"step": self.state.step, "training_loss": float(np.mean(newest)), **metrics})
        return {name: metrics[name] for name in ("local_auc", "first_error_accuracy")}


def _held_out_metrics(
    model: ProcessRewardModel, held_out: Sequence[LabeledProgram]
) -> dict[str, dict[str, float | None]]:
    if not held_out:
        return {}
    metrics = evaluate_prm(model, held_out, groupings={})
    return {name: asdict(getattr(metrics, name)) for name in METRICS}


def _sources(labeled: Sequence[LabeledProgram]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for item in labeled:
        policies = counts.setdefault(item.source, {})
        policies[item.program.policy] = policies.get(item.program.policy, 0) + 1
    return counts


def _fingerprint(model: ProcessRewardModel, labeled: Sequence[LabeledProgram], config: PRMConfig) -> str:
    """Digest of all that decides a run's result."""
    digest = hashlib.sha256(model.identity.encode())
    digest.update(json.dumps(asdict(config), sort_keys=True).encode())
    for item in labeled:
        program = item.program
        row = [program.task_id, program.prompt_ids, program.token_ids, program.finished, item.labels]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()
