"""Programs as tensors: exact tokens, which line each belongs to, and padded batches under a token budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codegym.episode import is_neutral
from prm.alignment import line_end_tokens, line_of_token
from prm.program import LabeledProgram, SampledProgram


@dataclass(frozen=True, kw_only=True)
class EncodedProgram:
    """A prompt with a program of L lines in T tokens together.

    Attributes:
        token_ids: Prompt and completion, without the end-of-text token. [T]
        line_of_token: Line that each token belongs to; -1 in the prompt. [T]
        line_ends: Index of the token that ends each line. [L]
        scored: False for comment and blank lines. [L]
        labels: One per line; zeros where unknown. [L]
    """

    token_ids: NDArray[np.int64]
    line_of_token: NDArray[np.int64]
    line_ends: NDArray[np.int64]
    scored: NDArray[np.bool_]
    labels: NDArray[np.float64]

    @property
    def n_tokens(self) -> int:
        """Prompt and completion tokens."""
        return len(self.token_ids)

    @property
    def n_lines(self) -> int:
        """Lines of the completion."""
        return len(self.line_ends)

    def first_lines(self, n_lines: int) -> "EncodedProgram":
        """The program cut after `n_lines` lines; backbones are causal, so no output before it changes."""
        if n_lines >= self.n_lines:
            return self
        n_tokens = int(self.line_ends[n_lines - 1]) + 1 if n_lines else int(np.sum(self.line_of_token < 0))
        return replace(
            self,
            token_ids=self.token_ids[:n_tokens],
            line_of_token=self.line_of_token[:n_tokens],
            line_ends=self.line_ends[:n_lines],
            scored=self.scored[:n_lines],
            labels=self.labels[:n_lines],
        )

    def until_first_error(self) -> "EncodedProgram":
        """The program cut after its first line labelled below 0; whole if there is none."""
        wrong = np.flatnonzero(self.scored & (self.labels < 0))
        return self.first_lines(int(wrong[0]) + 1) if len(wrong) else self


def encode(
    prompt_ids: Sequence[int],
    completion_ids: Sequence[int],
    lines: Sequence[str],
    newlines: NDArray[np.int64],
    labels: Sequence[float] | None = None,
) -> EncodedProgram:
    """Align a completion's tokens with its lines.

    Args:
        prompt_ids: The prompt's tokens.
        completion_ids: The completion's tokens without the end-of-text token.
        lines: The completion's lines.
        newlines: From `prm.alignment.newlines_per_token`.
        labels: One per line, if known.

    Raises:
        ValueError: If tokens, lines and labels do not belong together.
    """
    if labels is not None and len(labels) != len(lines):
        raise ValueError(f"{len(lines)} lines but {len(labels)} labels")
    ends = line_end_tokens(completion_ids, len(lines), newlines)
    of_token = line_of_token(completion_ids, newlines)
    return EncodedProgram(
        token_ids=np.array([*prompt_ids, *completion_ids], dtype=np.int64),
        line_of_token=np.concatenate([np.full(len(prompt_ids), -1, dtype=np.int64), of_token]),
        line_ends=ends + len(prompt_ids),
        scored=np.array([not is_neutral(line) for line in lines], dtype=bool),
        labels=np.zeros(len(lines)) if labels is None else np.array(labels, dtype=np.float64),
    )


def encode_sampled(program: SampledProgram, newlines: NDArray[np.int64]) -> EncodedProgram:
    """Encode a sampled program from the exact tokens that its policy wrote."""
    return encode(program.prompt_ids, program.written_ids, program.lines, newlines)


def encode_labeled(labeled: LabeledProgram, newlines: NDArray[np.int64]) -> EncodedProgram:
    """Encode a labelled program from the exact tokens that its policy wrote."""
    program = labeled.program
    return encode(program.prompt_ids, program.written_ids, program.lines, newlines, labeled.labels)


@dataclass(frozen=True, kw_only=True)
class LineBatch:
    """B programs padded on the right to T tokens and L lines.

    Attributes:
        input_ids: Tokens. [B, T]
        attention_mask: 1 on tokens, 0 in padding. [B, T]
        line_of_token: Line of each token; -1 in prompt and padding. [B, T]
        line_ends: Index of the token that ends each line; 0 in padding. [B, L]
        present: False in padding. [B, L]
        scored: False in padding and on comment and blank lines. [B, L]
        labels: 0 in padding. [B, L]
    """

    input_ids: Tensor
    attention_mask: Tensor
    line_of_token: Tensor
    line_ends: Tensor
    present: Tensor
    scored: Tensor
    labels: Tensor


def collate(
    programs: Sequence[EncodedProgram], *, pad_id: int, device: torch.device | str = "cpu"
) -> LineBatch:
    """Pad programs into one batch."""
    shape_tokens = (len(programs), max(program.n_tokens for program in programs))
    shape_lines = (len(programs), max(program.n_lines for program in programs))
    input_ids = np.full(shape_tokens, pad_id, dtype=np.int64)
    attention_mask = np.zeros(shape_tokens, dtype=np.int64)
    lines_of_tokens = np.full(shape_tokens, -1, dtype=np.int64)
    line_ends = np.zeros(shape_lines, dtype=np.int64)
    present = np.zeros(shape_lines, dtype=bool)
    scored = np.zeros(shape_lines, dtype=bool)
    labels = np.zeros(shape_lines, dtype=np.float32)
    for row, program in enumerate(programs):
        input_ids[row, : program.n_tokens] = program.token_ids
        attention_mask[row, : program.n_tokens] = 1
        lines_of_tokens[row, : program.n_tokens] = program.line_of_token
        line_ends[row, : program.n_lines] = program.line_ends
        present[row, : program.n_lines] = True
        scored[row, : program.n_lines] = program.scored
        labels[row, : program.n_lines] = program.labels
    return LineBatch(
        input_ids=torch.from_numpy(input_ids).to(device),
        attention_mask=torch.from_numpy(attention_mask).to(device),
        line_of_token=torch.from_numpy(lines_of_tokens).to(device),
        line_ends=torch.from_numpy(line_ends).to(device),
        present=torch.from_numpy(present).to(device),
        scored=torch.from_numpy(scored).to(device),
        labels=torch.from_numpy(labels).to(device),
    )


def plan_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group indices by length so that no padded batch holds more than `max_tokens` tokens.

    A single sequence longer than the budget gets a batch of its own.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        # sorted by length, so the newcomer is the longest of its batch
        if batches and (len(batches[-1]) + 1) * lengths[index] <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
