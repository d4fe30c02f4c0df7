"""Supervised fine-tuning of any Hugging Face causal language model on pairs of prompt and completion."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW, Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agents.progress import Report
from agents.sft_data import Example, check_lengths, collate, plan_steps, tokenize
from codegym.storage import write_json
from prm.checkpoint import TrainingState, read_checkpoint, write_checkpoint

TRAINING = "training.json"
"""File in the finished folder: the metrics, and whose run it was."""

_STEPS_PER_ROW = 10


@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """How to fine-tune."""

    learning_rate: float = 4e-3  # peak; 4e-3 suits half a million parameters, large models want 1e-5
    warmup: float = 0.03  # share of the steps in which the learning rate rises from 0
    final_learning_rate: float = 0.0  # share of the peak that is left after linear decay
    weight_decay: float = 0.01
    batch_tokens: int = 1024  # padded tokens per step at most; sequences of like length share a batch
    n_epochs: int = 1  # passes over the pairs
    curriculum: float = 0.0  # a pair comes after this share of epoch 1 times its length over the longest
    prompt_weight: float = 0.1  # loss weight of prompt tokens; completion tokens weigh 1
    max_grad_norm: float = 1.0  # longer gradients are scaled down to this
    checkpoint_every: int = 100  # steps between checkpoints
    # of the order, and of dropout where the model has any; the command line has one seed, the run's
    seed: Annotated[int, tyro.conf.Suppress] = 0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("batch_tokens", "n_epochs", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup", "final_learning_rate", "curriculum", "prompt_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")


@dataclass(frozen=True, kw_only=True)
class SFTMetrics:
    """What a finished run reports.

    Attributes:
        n_pairs: Pairs trained on.
        n_steps: Optimizer steps.
        n_tokens: Tokens of all steps, without padding.
        seconds: Wall time, what was lost to a kill not included.
        cpu_seconds: Time on all cores together, likewise.
        history: A row every 10 steps and at every checkpoint: step, mean loss per weighted token
            since the last row, and the cumulative n_tokens, seconds and cpu_seconds.
    """

    n_pairs: int
    n_steps: int
    n_tokens: int
    seconds: float
    cpu_seconds: float
    history: list[dict[str, float]]

    @property
    def tokens_per_second(self) -> float:
        """Throughput of the whole run."""
        return self.n_tokens / max(self.seconds, 1e-9)


def train_sft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    config: SFTConfig,
    folder: Path,
    *,
    report: Report | None = None,
) -> SFTMetrics:
    """Train `model` in place and write it, its tokenizer and the metrics to `folder`.

    A run that was killed goes on from its last checkpoint, a hidden file beside `folder`, when it is called
    again with the same arguments: on a CPU it ends with the same bits as if it had never stopped. `folder`
    itself appears whole or not at all. Where it exists already, nothing is trained: load the model from it.

    Args:
        model: The weights to start from.
        tokenizer: Must have an end-of-text token, which ends every completion.
        pairs: Prompt and completion; tokenised apart, so a prompt alone has the same tokens when sampling.
        config: How to train.
        folder: Where the trained model goes.
        report: Told about progress every 10 steps and before every checkpoint.

    Raises:
        ValueError: If there are no pairs, a pair is longer than the model's context, the tokenizer has no
            end-of-text token, or `folder` or its checkpoint belong to another run.
    """
    examples = tokenize(tokenizer, pairs)
    check_lengths(examples, getattr(model.config, "max_position_embeddings", None))
    fingerprint = _fingerprint(model, examples, config)
    if folder.exists():
        return _finished(folder, fingerprint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = folder.with_name(f".{folder.name}.checkpoint.safetensors")
    optimizer, state = _resume(model, config, checkpoint, fingerprint)
    batches = plan_steps(
        examples,
        batch_tokens=config.batch_tokens,
        n_epochs=config.n_epochs,
        curriculum=config.curriculum,
        seed=config.seed,
    )
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    gpus = [model.device] if model.device.type == "cuda" else []
    model.train()
    meter = _Meter(state.history)
    for step in range(state.step, len(batches)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, len(batches), config)
        batch = [examples[index] for index in batches[step]]
        # the randomness of a step depends on nothing that a checkpoint would have to carry
        with torch.random.fork_rng(devices=gpus):
            torch.manual_seed(config.seed * 1_000_003 + step)
            loss = _train_step(model, optimizer, batch, pad_id=pad_id, config=config)
        meter.add(loss, sum(len(example.token_ids) for example in batch))
        done = step + 1
        at_checkpoint = done % config.checkpoint_every == 0
        if at_checkpoint or done % _STEPS_PER_ROW == 0 or done == len(batches):
            row = meter.close_row(done)
            if report:
                report(done, len(batches), {"loss": row["loss"]})
        if at_checkpoint and done < len(batches):
            state.step, state.history = done, meter.history
            write_checkpoint(checkpoint, state, model, optimizer, fingerprint)
    model.eval()
    metrics = meter.metrics(n_pairs=len(pairs), n_steps=len(batches))
    _write_folder(folder, model, tokenizer, {"fingerprint": fingerprint, "config": asdict(config)}, metrics)
    checkpoint.unlink(missing_ok=True)
    return metrics


def _resume(
    model: PreTrainedModel, config: SFTConfig, checkpoint: Path, fingerprint: str
) -> tuple[Optimizer, TrainingState]:
    """The optimizer and how far the run has come; from the checkpoint, weights included, if there is one."""
    optimizer = AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=config.weight_decay,
        fused=True,
    )
    if not checkpoint.exists():
        return optimizer, TrainingState()
    return optimizer, read_checkpoint(checkpoint, model, optimizer, fingerprint)


def learning_rate_at(step: int, n_steps: int, config: SFTConfig) -> float:
    """Learning rate of a step (from 0): linear from 0 to the peak, then linear to its final share."""
    n_warmup = config.warmup * n_steps
    if step + 1 < n_warmup:
        return config.learning_rate * (step + 1) / n_warmup
    left = (n_steps - step) / max(n_steps - n_warmup, 1)
    return config.learning_rate * (
        config.final_learning_rate + (1 - config.final_learning_rate) * min(left, 1)
    )


def weighted_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross entropy of each next token, averaged with weights.

    Args:
        logits: [B, T, V]
        targets: The token that follows each position. [B, T]
        weights: Not all zero. [B, T]
    """
    losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses @ weights.flatten() / weights.sum()


def _train_step(
    model: PreTrainedModel,
    optimizer: Optimizer,
    batch: Sequence[Example],
    *,
    pad_id: int,
    config: SFTConfig,
) -> float:
    input_ids, weights = collate(batch, pad_id=pad_id, prompt_weight=config.prompt_weight)
    input_ids, weights = input_ids.to(model.device), weights.to(model.device)
    # logits are dear: none before the first token that has a weight
    n_kept = weights.shape[1] - int(weights.any(dim=0).nonzero()[0])
    # Padding is on the right of a causal model and has no weight, so no attention mask is needed, and the
    # attention kernel is faster without one.
    logits = model(input_ids=input_ids[:, :-1], use_cache=False, logits_to_keep=n_kept).logits
    loss = weighted_loss(logits, input_ids[:, -n_kept:], weights[:, -n_kept:])
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm, foreach=True)
    optimizer.step()
    return loss.item()


def _fingerprint(model: PreTrainedModel, examples: Sequence[Example], config: SFTConfig) -> str:
    digest = blake2b(digest_size=16)
    settings = {name: value for name, value in asdict(config).items() if name != "checkpoint_every"}
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    digest.update(json.dumps([settings, shapes]).encode())
    for example in examples:
        digest.update(example.n_prompt.to_bytes(4))
        digest.update(example.token_ids.tobytes())
    return digest.hexdigest()


class _Meter:
    """Adds up losses, tokens and time into rows; a resumed run goes on from the rows it had."""

    def __init__(self, history: Sequence[dict[str, float]]) -> None:
        self.history = list(history)
        last = self.history[-1] if self.history else {}
        self._n_tokens = int(last.get("n_tokens", 0))
        self._wall_start = time.perf_counter() - last.get("seconds", 0.0)
        self._cpu_start = time.process_time() - last.get("cpu_seconds", 0.0)
        self._losses: list[float] = []

    def add(self, loss: float, n_tokens: int) -> None:
        self._losses.append(loss)
        self._n_tokens += n_tokens

    def close_row(self, step: int) -> dict[str, float]:
        row = {
            "step": step,
            "loss": sum(self._losses) / len(self._losses),
            "n_tokens": self._n_tokens,
            "seconds": time.perf_counter() - self._wall_start,
            "cpu_seconds": time.process_time() - self._cpu_start,
        }
        self._losses = []
        self.history.append(row)
        return row

    def metrics(self, *, n_pairs: int, n_steps: int) -> SFTMetrics:
        last = self.history[-1]
        return SFTMetrics(
            n_pairs=n_pairs,
            n_steps=n_steps,
            n_tokens=int(last["n_tokens"]),
            seconds=last["seconds"],
            cpu_seconds=last["cpu_seconds"],
            history=self.history,
        )


def _write_folder(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    about: dict[str, Any],
    metrics: SFTMetrics,
) -> None:
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    write_json(draft / TRAINING, {**about, "metrics": asdict(metrics)})
    draft.rename(folder)


def _finished(folder: Path, fingerprint: str) -> SFTMetrics:
    path = folder / TRAINING
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        about = None
    if not isinstance(about, dict) or about.get("fingerprint") != fingerprint:
        raise ValueError(
            f"{folder} exists but does not hold the result of this run (other pairs, configuration or "
            "model); choose another folder"
        )
    return SFTMetrics(**about["metrics"])
