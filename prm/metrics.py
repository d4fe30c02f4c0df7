"""What it means to find the first wrong line: metrics of scored lines, without a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from prm.batching import EncodedProgram
from prm.model import LineReading

N_BINS = 10


@dataclass(frozen=True, kw_only=True)
class ScoredLines:
    """The N lines that are right or wrong of P programs, neutral lines left out.

    Attributes:
        program: Which program a line belongs to. [N]
        local: The line's own output; higher is more likely right. [N]
        score: In [-1, 1]. [N]
        right: Whether the label is above 0. [N]
        position: The line's place in its program, neutral lines counted too. [N]
        counts_locally: Whether the line is not after its program's first wrong line. [N]
        decides: Whether it is that first wrong line, or the last line where none is wrong. [N]
        of_failing: Whether its program has a wrong line. [N]
        fails: Whether a program has a wrong line. [P]
        found: Whether its first line scored below 0 is exactly its first wrong line, or neither exists. [P]
        empty: Whether it has no line that is right or wrong. [P]
    """

    program: NDArray[np.int64]
    local: NDArray[np.float64]
    score: NDArray[np.float64]
    right: NDArray[np.bool_]
    position: NDArray[np.int64]
    counts_locally: NDArray[np.bool_]
    decides: NDArray[np.bool_]
    of_failing: NDArray[np.bool_]
    fails: NDArray[np.bool_]
    found: NDArray[np.bool_]
    empty: NDArray[np.bool_]

    def only(self, lines: NDArray[np.bool_]) -> Self:
        """Some of the lines, and the programs whose deciding line is one of them.

        The other programs stay in place, so that weights of programs go on to fit, but count as empty.

        Args:
            lines: Which. [N]
        """
        kept = np.zeros(len(self.empty), dtype=bool)
        kept[self.program[lines & self.decides]] = True
        return replace(
            self,
            program=self.program[lines],
            local=self.local[lines],
            score=self.score[lines],
            right=self.right[lines],
            position=self.position[lines],
            counts_locally=self.counts_locally[lines],
            decides=self.decides[lines],
            of_failing=self.of_failing[lines],
            fails=self.fails & kept,
            empty=self.empty | ~kept,
        )


def score_lines(
    programs: Sequence[EncodedProgram], readings: Sequence[LineReading], *, per_line: bool
) -> ScoredLines:
    """Put the lines of labelled programs side by side.

    Args:
        programs: With labels; a label of 0 makes a line neutral.
        readings: What the model says about each.
        per_line: `prm.heads.Head.per_line`. If False, a line's own output is the difference to the score of
            the line before it, +1 before the first.
    """
    parts: dict[str, list[NDArray[np.generic]]] = {name: [] for name in ScoredLines.__dataclass_fields__}
    for index, (program, reading) in enumerate(zip(programs, readings, strict=True)):
        kept = program.scored & (program.labels != 0)
        score, wrong = reading.scores[kept], program.labels[kept] < 0
        first_wrong = int(np.argmax(np.append(wrong, True)))  # the number of lines if none is wrong
        columns = {
            "program": np.full(len(score), index),
            "local": reading.outputs[kept] if per_line else np.diff(score, prepend=1.0),
            "score": score,
            "right": ~wrong,
            "position": np.flatnonzero(kept),
            "counts_locally": np.arange(len(score)) <= first_wrong,
            "decides": np.arange(len(score)) == min(first_wrong, len(score) - 1),
            "of_failing": np.full(len(score), wrong.any()),
            "fails": np.array([wrong.any()]),
            "found": np.array([np.argmax(np.append(score < 0, True)) == first_wrong]),
            "empty": np.array([not len(score)]),
        }
        for name, column in columns.items():
            parts[name].append(column)
    return ScoredLines(**{name: np.concatenate(columns) for name, columns in parts.items()})


def line_metrics(lines: ScoredLines, weights: NDArray[np.float64] | None = None) -> dict[str, float | None]:
    """Every metric of `prm.evaluation.PRMMetrics`; None where it is not defined.

    Args:
        lines: Of one program or more.
        weights: How often each program counts; a bootstrap resample is nothing else. [P]
    """
    of_program = np.ones(len(lines.fails)) if weights is None else weights
    of_line = of_program[lines.program]
    probability = (lines.score + 1) / 2
    local = lines.counts_locally
    bins = calibration_bins(lines, of_line)
    return {
        "local_auc": _auc(lines.right[local], lines.local[local], of_line[local]),
        "auc": _auc(lines.right, lines.score, of_line),
        "line_accuracy": _mean((lines.score > 0) == lines.right, of_line),
        "first_error_accuracy": _mean(lines.found, of_program * lines.fails),
        "all_right_accuracy": _mean(lines.found, of_program * ~(lines.fails | lines.empty)),
        "brier": _mean((probability - lines.right) ** 2, of_line),
        "gap": _mean(lines.score - np.where(lines.right, 1, -1), of_line * lines.of_failing),
        "ece": _mean(*np.array([(abs(mean - share), total) for mean, share, total in bins]).T)
        if bins
        else None,
    }


def calibration_bins(
    lines: ScoredLines, weights: NDArray[np.float64] | None = None
) -> tuple[tuple[float, float, float], ...]:
    """Mean predicted probability, share of right lines and weight of each non-empty bin of equal width.

    Args:
        lines: Of one program or more.
        weights: How often each line counts. [N]
    """
    weights = np.ones(len(lines.program)) if weights is None else weights
    probability = (lines.score + 1) / 2
    bins = np.minimum((probability * N_BINS).astype(int), N_BINS - 1)
    totals, probabilities, rights = (
        np.bincount(bins, weights=weights * column, minlength=N_BINS)
        for column in (np.ones(len(bins)), probability, lines.right)
    )
    return tuple(
        (float(probabilities[b] / totals[b]), float(rights[b] / totals[b]), float(totals[b]))
        for b in np.flatnonzero(totals)
    )


def _auc(right: NDArray[np.bool_], output: NDArray[np.float64], weights: NDArray[np.float64]) -> float | None:
    """Share of pairs of a right and a wrong line in which the right one is higher; half where they are equal.

    A bootstrap asks for it hundreds of times, for which the library's curves take too long.
    """
    ranks = np.unique(output, return_inverse=True)[1]
    rights, wrongs = (np.bincount(ranks, weights=weights * of_kind) for of_kind in (right, ~right))
    if not rights.any() or not wrongs.any():
        return None
    below = np.cumsum(wrongs) - wrongs
    return float((rights * (below + wrongs / 2)).sum() / (rights.sum() * wrongs.sum()))


def _mean(values: NDArray[Any], weights: NDArray[np.float64]) -> float | None:
    return float(np.average(values, weights=weights)) if weights.any() else None
