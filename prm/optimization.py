"""One optimizer step, and the light pass that keeps a reward model true to a policy that moves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import AdamW, Optimizer

from prm.balance import UNBALANCED, Balance
from prm.batching import EncodedProgram, encode_labeled, plan_batches
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram


@dataclass(frozen=True, kw_only=True)
class RefreshReport:
    """What a refresh did.

    Attributes:
        n_programs: Programs with at least one line.
        n_steps: Optimizer steps.
        loss: Mean loss per line before each step's update: how well the model knew the fresh labels.
    """

    n_programs: int
    n_steps: int
    loss: float


def make_optimizer(model: ProcessRewardModel, *, learning_rate: float, weight_decay: float = 0.01) -> AdamW:
    """AdamW over the weights of the model that train."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return AdamW(weights, lr=learning_rate, weight_decay=weight_decay, fused=True)


def training_programs(model: ProcessRewardModel, labeled: Sequence[LabeledProgram]) -> list[EncodedProgram]:
    """Encode programs as the model's loss reads them, without empty ones.

    A hazard loss ignores all that follows the first error, and the backbone is causal: the program is cut
    there, which changes no gradient and saves most of the tokens of a failing program.
    """
    programs = [encode_labeled(item, model.newlines) for item in labeled]
    if model.line_head.per_line:
        programs = [program.until_first_error() for program in programs]
    return [program for program in programs if program.n_lines]


def program_order(n_programs: int, epochs: float, seed: int) -> NDArray[np.int64]:
    """Indices in training order: a fresh permutation per epoch, the last one cut. [epochs * n_programs]."""
    permutations = [
        np.random.default_rng([seed, epoch]).permutation(n_programs) for epoch in range(math.ceil(epochs))
    ]
    return np.concatenate(permutations)[: math.ceil(epochs * n_programs)].astype(np.int64)


def gradient_step(
    model: ProcessRewardModel,
    optimizer: Optimizer,
    programs: Sequence[EncodedProgram],
    *,
    micro_batch_tokens: int,
    max_grad_norm: float,
    balance: Balance = UNBALANCED,
) -> float:
    """Take one step on the mean loss per line of `programs` and return that loss.

    Micro-batches add up the gradient of the summed loss, which is divided once by the lines of all of them:
    how the programs are split does not weigh some lines more than others.

    Args:
        model: Changed in place.
        optimizer: Of the model's weights.
        programs: The batch.
        micro_batch_tokens: Padded tokens per forward pass.
        max_grad_norm: Longer gradients are scaled down.
        balance: What right and wrong lines weigh.
    """
    optimizer.zero_grad(set_to_none=True)
    model.train()  # dropout is off in any case, but activations are only recomputed in this mode
    total, n_lines = 0.0, 0
    for plan in plan_batches([program.n_tokens for program in programs], micro_batch_tokens):
        batch = model.batch([programs[index] for index in plan])
        weights = balance.of_lines(batch.labels, batch.scored)
        loss = model.line_head.loss(
            model.line_outputs(batch), batch.labels, batch.present, batch.scored, weights
        )
        loss.total.backward()  # type: ignore[no-untyped-call]
        total += loss.total.item()
        n_lines += int(loss.n_lines)
    model.eval()
    if not n_lines:
        return 0.0
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    for gradient in gradients:
        gradient.div_(n_lines)
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    return total / n_lines


def refresh_prm(
    model: ProcessRewardModel,
    labeled: Sequence[LabeledProgram],
    *,
    learning_rate: float = 5e-4,
    epochs: float = 1.0,
    batch_size: int = 32,
    micro_batch_tokens: int = 4096,
    max_grad_norm: float = 1.0,
    seed: int = 0,
    optimizer: Optimizer | None = None,
) -> RefreshReport:
    """Train a little, in place, on fresh labels of the current policy's own programs.

    A policy learns to please a fixed reward model; a pass over its newest programs every few iterations
    closes the gap. Without `optimizer` every refresh starts its own AdamW, so the weights are the whole
    state; pass one (`make_optimizer`) to carry its moments over, and store its `state_dict()` with the run.

    Args:
        model: Changed in place.
        labeled: Fresh programs with labels.
        learning_rate: Constant; ignored if `optimizer` is given.
        epochs: Passes over the programs.
        batch_size: Programs per step.
        micro_batch_tokens: Padded tokens per forward pass.
        max_grad_norm: Longer gradients are scaled down.
        seed: Of the order; give another one to every refresh.
        optimizer: To go on with, instead of a fresh one.
    """
    programs = training_programs(model, labeled)
    if not programs:
        return RefreshReport(n_programs=0, n_steps=0, loss=0.0)
    optimizer = optimizer or make_optimizer(model, learning_rate=learning_rate)
    order = program_order(len(programs), epochs, seed)
    losses = [
        gradient_step(
            model,
            optimizer,
            [programs[index] for index in order[start : start + batch_size]],
            micro_batch_tokens=micro_batch_tokens,
            max_grad_norm=max_grad_norm,
        )
        for start in range(0, len(order), batch_size)
    ]
    return RefreshReport(n_programs=len(programs), n_steps=len(losses), loss=float(np.mean(losses)))
