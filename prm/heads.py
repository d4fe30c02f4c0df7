"""What a head's numbers mean: how a line is read off its tokens, trained and turned into a score.

A head gives one number per token. `newline` reads a line at the token that covers its newline and regresses
its label (the paper's PRM, arXiv:2410.17621). `token_sum` adds up the outputs of all the line's tokens, so
that every token can speak against its line, and takes the sum as the logit of "this line is right, given that
all lines before it are". Everything here is a pure function of tensors over B programs of at most L lines and
T tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from codegym.table import check_name


class LineLoss(NamedTuple):
    """A loss summed over lines; divide by the lines of the whole batch, not of a micro-batch."""

    total: Tensor
    n_lines: Tensor

    @property
    def mean(self) -> Tensor:
        """Loss per line; 0 if there is none."""
        return self.total / self.n_lines.clamp(min=1)


def read_at_newline(outputs: Tensor, line_of_token: Tensor, line_ends: Tensor) -> Tensor:
    """Each line's number: the output at the token that covers its newline. [B, L].

    Args:
        outputs: One number per token. [B, T]
        line_of_token: Not used; the two readings share one signature. [B, T]
        line_ends: Index of the token that ends each line; 0 in padding. [B, L]
    """
    del line_of_token
    return outputs.gather(1, line_ends)


def sum_over_tokens(outputs: Tensor, line_of_token: Tensor, line_ends: Tensor) -> Tensor:
    """Each line's number: the sum of its tokens' outputs. [B, L].

    Args:
        outputs: One number per token. [B, T]
        line_of_token: Line that each token belongs to; -1 for prompt and padding. [B, T]
        line_ends: Only its shape is used. [B, L]
    """
    n_lines = line_ends.shape[1]
    spare = torch.where(
        line_of_token < 0, n_lines, line_of_token
    )  # an extra column collects what is no line's
    sums = outputs.new_zeros(outputs.shape[0], n_lines + 1).scatter_add(1, spare, outputs)
    return sums[:, :n_lines]


def until_first_error(labels: Tensor, mask: Tensor) -> Tensor:
    """The lines of `mask` up to and including the first one labelled below 0. [B, L]."""
    wrong = (labels < 0) & mask
    errors_before = wrong.cumsum(dim=1) - wrong.long()
    return mask & (errors_before == 0)


def newline_mse(
    outputs: Tensor, labels: Tensor, present: Tensor, scored: Tensor, weights: Tensor | float = 1.0
) -> LineLoss:
    """(R(x, y_<=m) - l_m)^2 over every line, neutral ones (label 0) included: the paper's loss.

    Args:
        outputs: One number per line. [B, L]
        labels: In [-1, 1]; soft labels are regressed as they are. [B, L]
        present: False in padding. [B, L]
        scored: `present` without comment and blank lines; not used by this loss. [B, L]
        weights: Of each line in the total. [B, L]
    """
    del scored
    errors = weights * (outputs - labels).square()
    return LineLoss((errors * present).sum(), present.sum())


def newline_bce(
    outputs: Tensor, labels: Tensor, present: Tensor, scored: Tensor, weights: Tensor | float = 1.0
) -> LineLoss:
    """Cross-entropy of P(right up to the line) = sigmoid(output); neutral lines are skipped.

    Args:
        outputs: One logit per line. [B, L]
        labels: In [-1, 1]; a soft label is the probability (label + 1) / 2. [B, L]
        present: Not used by this loss. [B, L]
        scored: False in padding and on comment and blank lines. [B, L]
        weights: Of each line in the total. [B, L]
    """
    del present
    return _cross_entropy(outputs, labels, scored, weights)


def first_error_hazard(
    outputs: Tensor, labels: Tensor, present: Tensor, scored: Tensor, weights: Tensor | float = 1.0
) -> LineLoss:
    """Cross-entropy of P(line right | all before it right) = sigmoid(output), up to the first wrong line.

    Lines after the first error carry no information about that probability and are masked; neutral lines are
    skipped. With hard labels the sum over a program is the exact negative log-likelihood of where it first
    fails.

    Args:
        outputs: One logit per line. [B, L]
        labels: In [-1, 1]. [B, L]
        present: Not used by this loss. [B, L]
        scored: False in padding and on comment and blank lines. [B, L]
        weights: Of each line in the total. [B, L]
    """
    del present
    return _cross_entropy(outputs, labels, until_first_error(labels, scored), weights)


def clipped_scores(outputs: Tensor, scored: Tensor) -> Tensor:
    """The outputs themselves, clipped to [-1, 1]; 0 on neutral lines. [B, L]."""
    return outputs.clamp(-1, 1) * scored


def logit_scores(outputs: Tensor, scored: Tensor) -> Tensor:
    """2 sigmoid(output) - 1; 0 on neutral lines. [B, L]."""
    return (2 * torch.sigmoid(outputs) - 1) * scored


def survival_scores(outputs: Tensor, scored: Tensor) -> Tensor:
    """2 prod_{j <= m} sigmoid(output_j) - 1: how likely no line up to m is wrong; 0 on neutral lines. [B, L].

    Neutral lines cannot be wrong: they are no factor of the product.
    """
    log_survival = (functional.logsigmoid(outputs) * scored).cumsum(dim=1)
    return (2 * log_survival.exp() - 1) * scored


class LossFunction(Protocol):
    """What a head's outputs and the labels give; every tensor is [B, L]."""

    def __call__(
        self, outputs: Tensor, labels: Tensor, present: Tensor, scored: Tensor, weights: Tensor | float = 1.0
    ) -> LineLoss:
        """The weighted loss summed over lines, and how many lines it sums."""
        ...


@dataclass(frozen=True)
class Head:
    """How to read, train and score lines.

    Attributes:
        read: Token outputs to line outputs.
        loss: Line outputs and labels to a loss.
        score: Line outputs to scores in [-1, 1].
        per_line: Whether an output speaks of its own line alone, or of the whole program up to it.
    """

    read: Callable[[Tensor, Tensor, Tensor], Tensor]
    loss: LossFunction
    score: Callable[[Tensor, Tensor], Tensor]
    per_line: bool


HEADS = {
    "newline": Head(read_at_newline, newline_mse, clipped_scores, per_line=False),
    "newline_bce": Head(read_at_newline, newline_bce, logit_scores, per_line=False),
    "newline_hazard": Head(read_at_newline, first_error_hazard, survival_scores, per_line=True),
    "token_sum": Head(sum_over_tokens, first_error_hazard, survival_scores, per_line=True),
}


def make_head(name: str) -> Head:
    """Return the head called `name`.

    Raises:
        UnknownNameError: If there is none; the message lists the choices.
    """
    check_name(name, HEADS, "PRM head")
    return HEADS[name]


def _cross_entropy(logits: Tensor, labels: Tensor, mask: Tensor, weights: Tensor | float) -> LineLoss:
    losses = functional.binary_cross_entropy_with_logits(logits, (labels + 1) / 2, reduction="none")
    return LineLoss((weights * losses * mask).sum(), mask.sum())
