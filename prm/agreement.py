"""Two sources of labels compared on the same programs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prm.program import LabeledProgram


def compare_labels(
    exact: Sequence[LabeledProgram], estimated: Sequence[LabeledProgram], *, k: int
) -> dict[str, float]:
    """Hold estimated labels against exact ones, on the programs that both have.

    Args:
        exact: Labels taken as true.
        estimated: Labels by completion.
        k: Completions per prefix of an exhaustive scan, for comparison of cost.

    Returns:
        programs and lines compared (neutral lines do not count); `line_agreement`; `right_called_wrong` and
        `wrong_called_right`, shares of all lines; `same_first_error`, share of programs; completions per
        program, and `completions_vs_full_scan`, the share of the completions that a full scan of every line
        would draw (k for each). Empty if no program is in both.

    Raises:
        ValueError: If a program's labels differ in number.
    """
    truth = {item.program.program_id: item for item in exact}
    pairs = [(truth[e.program.program_id], e) for e in estimated if e.program.program_id in truth]
    if not pairs:
        return {}
    signs, same_first, completions, scan = [], [], 0.0, 0
    for true, guess in pairs:
        if len(true.labels) != len(guess.labels):
            raise ValueError(
                f"program {true.program.program_id!r} has {len(true.labels)} exact labels "
                f"but {len(guess.labels)} estimated ones"
            )
        both = np.array([(a, b) for a, b in zip(true.labels, guess.labels, strict=True) if a and b])
        both = both.reshape(-1, 2) > 0
        signs.append(both)
        same_first.append(first_wrong(both[:, 0]) == first_wrong(both[:, 1]))
        completions += guess.cost.get("completions", 0)
        scan += k * len(both)
    right, called_right = np.concatenate(signs).T
    n_lines = max(1, len(right))
    return {
        "programs": len(pairs),
        "lines": len(right),
        "line_agreement": float((right == called_right).sum() / n_lines),
        "right_called_wrong": float((right & ~called_right).sum() / n_lines),
        "wrong_called_right": float((~right & called_right).sum() / n_lines),
        "same_first_error": float(np.mean(same_first)),
        "completions_per_program": completions / len(pairs),
        "completions_vs_full_scan": completions / max(1, scan),
    }


def first_wrong(right: NDArray[np.bool_]) -> int:
    """Place of the first wrong one; one past the end if all are right."""
    return int(np.argmin(right)) if not right.all() else len(right)
