"""Class balance: right and wrong lines pull equally hard, however many there are of each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from prm.batching import EncodedProgram


class Balance(NamedTuple):
    """What a line weighs in the loss.

    Attributes:
        right: Weight of a line labelled +1.
        wrong: Weight of a line labelled -1.
    """

    right: float
    wrong: float

    @classmethod
    def of_programs(cls, programs: Sequence[EncodedProgram]) -> "Balance":
        """Weights that give both classes half of the whole: n / (2 n_right) and n / (2 n_wrong).

        A soft label counts as (label + 1) / 2 of a right line. Without lines of both classes there is nothing
        to balance, and every line weighs 1.
        """
        labels = np.concatenate([program.labels[program.scored] for program in programs])
        n_right = float(((labels + 1) / 2).sum())
        n_wrong = len(labels) - n_right
        if not n_right or not n_wrong:
            return UNBALANCED
        return cls(right=len(labels) / (2 * n_right), wrong=len(labels) / (2 * n_wrong))

    def of_lines(self, labels: Tensor, scored: Tensor) -> Tensor:
        """The weight of each line; 1 for comment and blank lines, which are neither right nor wrong.

        The loss of a soft label is weighted as a whole, so that the label itself stays its optimum.

        Args:
            labels: In [-1, 1]. [B, L]
            scored: False in padding and on comment and blank lines. [B, L]
        """
        share_right = (labels + 1) / 2
        weights = share_right * self.right + (1 - share_right) * self.wrong
        return weights.where(scored, 1.0)


UNBALANCED = Balance(right=1.0, wrong=1.0)
