"""Who proposes the next line: the seam of `LineChoices`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from codegym.episode import END_OF_PROGRAM, Episode
from codegym.table import resolve

PROPOSERS = {
    "lines": "codegym.wrappers.proposers:FixedLines",
    "stepwise": "codegym.tasks.stepwise_proposer:StepwiseProposer",
}


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Ways to go on with a program.

    Attributes:
        candidates: Each is one line or several, or END_OF_PROGRAM; without newline at the end.
        request: What the next line is about, for the features; for example a step of the prompt.
    """

    candidates: tuple[str, ...]
    request: str


@runtime_checkable
class Proposer(Protocol):
    """Proposes ways to go on: a table, or a language model's samples."""

    def propose(self, episode: Episode, k: int, rng: np.random.Generator) -> Proposal:
        """At least one and at most `k` candidates for the next line of an unfinished episode.

        `rng` is the only source of chance; the order of the candidates should tell nothing.
        """
        ...


class FixedLines:
    """The same lines every time, and the end of the program: the smallest proposer.

    Args:
        lines: What is proposed; the request is the task's prompt.

    Raises:
        ValueError: If there are no lines.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        if not lines:
            raise ValueError("FixedLines needs at least one line")
        self._candidates = (*lines, END_OF_PROGRAM)

    def propose(self, episode: Episode, k: int, rng: np.random.Generator) -> Proposal:
        """The lines in their order, END_OF_PROGRAM last.

        Raises:
            ValueError: If they are more than `k`.
        """
        del rng
        if len(self._candidates) > k:
            raise ValueError(f"{len(self._candidates)} lines do not fit k={k} choices")
        return Proposal(candidates=self._candidates, request=episode.task.prompt)


def make_proposer(name: str, **options: Any) -> Proposer:
    """Build a proposer by name; options go to its constructor.

    Raises:
        UnknownNameError: If `name` is not in `PROPOSERS`.
    """
    proposer: Proposer = resolve(PROPOSERS, name, "proposer")(**options)
    return proposer
