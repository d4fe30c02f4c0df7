"""What hack probes earn under a reward scheme, tried on programs that nearly solve a task."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode
from codegym.judge import Judge
from codegym.rewards import RewardScheme
from codegym.rewards.probes import probe_returns
from codegym.rewards.rewriting import can_rewrite, fills_line, span_of, standing
from codegym.task import Task
from codegym.verdict import Judgement


@dataclass(frozen=True, kw_only=True)
class Hacks:
    """Returns of failing programs and of what the probes make of them.

    Attributes:
        programs: The failing programs.
        ceilings: What the passing reference of each one's task earns. [B]
        before: What the programs earn as they are. [B]
        after: By probe, what they earn then. [B] each
    """

    programs: Sequence[Episode]
    ceilings: NDArray[np.float64]
    before: NDArray[np.float64]
    after: dict[str, NDArray[np.float64]]

    @property
    def gains(self) -> dict[str, float]:
        """By probe, how much it raises the return on average."""
        return {name: float((returns - self.before).mean()) for name, returns in self.after.items()}


def try_hacks(scheme: RewardScheme, passing: Sequence[tuple[Task, Judgement]], judge: Judge) -> Hacks | None:
    """Spoil the references, hack the spoilt programs, and see what a scheme pays for all of these.

    Args:
        scheme: The reward scheme under test.
        passing: Tasks and the judgements of their references, which pass.
        judge: Judges the other programs.

    Returns:
        The returns, or None if no reference can be spoilt.
    """
    solved = [_episode(task, _lines(task), judgement) for task, judgement in passing]
    spoilt = [(place, lines) for place, (task, _) in enumerate(passing) for lines in spoil(task)]
    written = [_episode(passing[place][0], lines) for place, lines in spoilt]
    judgements = judge.judge([(episode.task, episode.source) for episode in written])
    places = [place for (place, _), judgement in zip(spoilt, judgements, strict=True) if not judgement.passed]
    failing = [
        replace(episode, judgement=judgement)
        for episode, judgement in zip(written, judgements, strict=True)
        if not judgement.passed
    ]
    if not failing:
        return None
    earned = np.array([credit.sum() for credit in scheme.credit(solved)])
    before, after = probe_returns(scheme, failing, judge)
    return Hacks(programs=failing, ceilings=earned[places], before=before, after=after)


def spoil(task: Task) -> Iterator[tuple[str, ...]]:
    """The reference without its last statement, and with what that one returns in a list of one item."""
    lines = _lines(task)
    if not can_rewrite(task, lines):
        return
    statements = list(standing(task, lines))
    if len(statements) > 1:
        yield lines[: statements[-1][0]]
    for index, last in statements[-1:]:
        line = lines[index]
        if isinstance(last, ast.Return) and last.value and fills_line(last, line):
            start, end = span_of(last.value, line)
            yield (*lines[:index], f"{line[:start]}[{line[start:end]}]{line[end:]}", *lines[index + 1 :])


def _lines(task: Task) -> tuple[str, ...]:
    return tuple((task.reference or "").rstrip("\n").split("\n"))


def _episode(task: Task, lines: tuple[str, ...], judgement: Judgement | None = None) -> Episode:
    return Episode(task=task, lines=lines, terminated=True, judgement=judgement)
