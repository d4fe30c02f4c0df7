"""Supervised fine-tuning of any Hugging Face causal language model on pairs of prompt and completion."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW, Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agents.progress import Report
from codegym.storage import write_json
from prm.batching import plan_batches
from prm.checkpoint import TrainingState, read_checkpoint, write_checkpoint

TRAINING = "training.json"
"""File in the finished folder: the metrics, and whose run it was."""

_STEPS_PER_ROW = 10
_BATCHES_PER_WINDOW = 16


@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """How to fine-tune."""

    learning_rate: float = 4e-3  # peak; 4e-3 suits half a million parameters, large models want 1e-5
    warmup: float = 0.03  # share of the steps in which the learning rate rises from 0
    final_learning_rate: float = 0.0  # share of the peak that is left after linear decay
    weight_decay: float = 0.01
    batch_tokens: int = 2048  # padded tokens per step at most; sequences of like length share a batch
    n_epochs: int = 1  # passes over the pairs
    prompt_weight: float = 0.1  # loss weight of prompt tokens; completion tokens weigh 1
    max_grad_norm: float = 1.0  # longer gradients are scaled down to this
    checkpoint_every: int = 100  # steps between checkpoints
    seed: int = 0  # of the order, and of dropout where the model has any

    def __post_init__(self) -> None:
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("batch_tokens", "n_epochs", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup", "final_learning_rate", "prompt_weight"):
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
        history: A row every 10 steps and at every checkpoint: step, mean loss per weighted token since the last row, and the
            cumulative n_tokens, seconds and cpu_seconds.
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


@dataclass(frozen=True, kw_only=True)
class _Example:
    """Tokens of prompt, completion and end-of-text together, and how many of them are prompt."""

    token_ids: NDArray[np.int64]
    n_prompt: int


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
    examples = _tokenize(tokenizer, pairs)
    _check_lengths(examples, model)
    fingerprint = _fingerprint(model, examples, config)
    if folder.exists():
        return _finished(folder, fingerprint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = folder.with_name(f".{folder.name}.checkpoint.safetensors")
    optimizer = AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=config.weight_decay,
        fused=True,
    )
    state = (
        read_checkpoint(checkpoint, model, optimizer, fingerprint) if checkpoint.exists() else TrainingState()
    )
    batches = _plan(examples, config)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    model.train()
    meter = _Meter(state.history)
    for step in range(state.step, len(batches)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, len(batches), config)
        batch = [examples[index] for index in batches[step]]
        # the randomness of a step depends on nothing that a checkpoint would have to carry
        with torch.random.fork_rng():
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
    batch: Sequence[_Example],
    *,
    pad_id: int,
    config: SFTConfig,
) -> float:
    input_ids, weights = _collate(batch, pad_id=pad_id, prompt_weight=config.prompt_weight)
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


def _collate(batch: Sequence[_Example], *, pad_id: int, prompt_weight: float) -> tuple[Tensor, Tensor]:
    """Token ids padded on the right [B, T], and the loss weight of each but the first [B, T - 1]."""
    longest = max(len(example.token_ids) for example in batch)
    input_ids = np.full((len(batch), longest), pad_id, dtype=np.int64)
    weights = np.zeros((len(batch), longest), dtype=np.float32)
    for row, example in enumerate(batch):
        input_ids[row, : len(example.token_ids)] = example.token_ids
        weights[row, : example.n_prompt] = prompt_weight
        weights[row, example.n_prompt : len(example.token_ids)] = 1
    return torch.from_numpy(input_ids), torch.from_numpy(weights[:, 1:])


def _tokenize(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> list[_Example]:
    if not pairs:
        raise ValueError("there are no pairs to train on")
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-text token, so completions could not end")
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    completions = tokenizer([completion for _, completion in pairs], add_special_tokens=False)["input_ids"]
    return [
        _Example(
            token_ids=np.array([*prompt, *completion, tokenizer.eos_token_id], dtype=np.int64),
            n_prompt=len(prompt),
        )
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def _check_lengths(examples: Sequence[_Example], model: PreTrainedModel) -> None:
    context = getattr(model.config, "max_position_embeddings", None)
    longest = max(range(len(examples)), key=lambda index: len(examples[index].token_ids))
    n_tokens = len(examples[longest].token_ids)
    if context is not None and n_tokens > context:
        raise ValueError(f"pair {longest} has {n_tokens} tokens but the model's context is {context}")


def _plan(examples: Sequence[_Example], config: SFTConfig) -> list[list[int]]:
    """Indices per step. Like lengths share a batch, but only within windows of shuffled examples."""
    mean_length = sum(len(example.token_ids) for example in examples) / len(examples)
    window = max(1, round(_BATCHES_PER_WINDOW * config.batch_tokens / mean_length))
    batches: list[list[int]] = []
    for epoch in range(config.n_epochs):
        rng = np.random.default_rng([config.seed, epoch])
        order = rng.permutation(len(examples))
        planned: list[list[int]] = []
        for start in range(0, len(order), window):
            chosen = order[start : start + window]
            lengths = [len(examples[index].token_ids) for index in chosen]
            planned += [
                [int(chosen[place]) for place in batch]
                for batch in plan_batches(lengths, config.batch_tokens)
            ]
        batches += [planned[place] for place in rng.permutation(len(planned))]
    return batches


def _fingerprint(model: PreTrainedModel, examples: Sequence[_Example], config: SFTConfig) -> str:
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
            f"{folder} exists but does not hold the result of this run (other pairs, configuration or model); "
            "choose another folder"
        )
    return SFTMetrics(**about["metrics"])
