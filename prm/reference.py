"""Exact line labels, where a task knows the values that a right program computes on its way."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode, is_neutral
from codegym.judge import Judge
from codegym.task import Task
from codegym.verdict import Judgement
from prm.labeling import task_of
from prm.program import LabeledProgram, SampledProgram
from prm.steps import SteppedProgram, read_steps


class ReferenceLabeler:
    """Labels the lines of programs by executing them against the reference's values.

    A line is right (+1) iff every step that ends at or before it computed the traced value in every traced
    call. So in a wrong step of several lines only the last of them, and everything after, is wrong (-1);
    but where one statement computes several steps, a `try` around them all for example, none of its lines is
    right unless all of its values are.
    Lines from the first that does not parse, or that leaves the function, are wrong. Comment and blank lines
    are neutral (0). A program that passes its tests is right throughout, however it got there.

    Args:
        judge: Runs the programs, all of a call in one batch.
    """

    source = "reference"

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def label(self, programs: Sequence[SampledProgram], tasks: Mapping[str, Task]) -> list[LabeledProgram]:
        """Label every program.

        Raises:
            TaskError: If a task is missing or has no trace.
        """
        began = time.perf_counter()
        written = [(task_of(program, tasks), program.lines, program.passed) for program in programs]
        labels_and_verdicts = _label(self.judge, written)
        seconds = (time.perf_counter() - began) / max(1, len(programs))
        return [
            LabeledProgram(
                program=program,
                labels=tuple(labels.tolist()),
                source=self.source,
                cost={"completions": 0, "tokens": 0, "verdicts": n_verdicts},
                seconds=seconds,
            )
            for program, (labels, n_verdicts) in zip(programs, labels_and_verdicts, strict=True)
        ]


class ReferenceScorer:
    """Scores lines by their exact labels: the upper bound of what a process reward model can give.

    The last step of an unfinished program counts as ended, so the first lines of a step that needs several
    score -1 while they are the newest; finished programs score as `ReferenceLabeler` labels them.

    Args:
        judge: Runs the programs, all of a call in one batch.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def score(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """One label per line. [n_lines] each.

        Raises:
            TaskError: If a task has no trace.
        """
        written = [
            (episode.task, episode.lines, episode.judgement is not None and episode.judgement.passed)
            for episode in episodes
        ]
        return [labels for labels, _ in _label(self.judge, written)]


def _label(
    judge: Judge, written: Sequence[tuple[Task, Sequence[str], bool]]
) -> list[tuple[NDArray[np.float64], int]]:
    """Labels of programs, each given as its task, its lines and whether it passes; and the verdicts spent."""
    stepped = [None if passed else read_steps(task, lines) for task, lines, passed in written]
    jobs = [program.job for program in stepped if program is not None and program.job is not None]
    judgements = iter(judge.judge(jobs))
    results = []
    for program, (_, lines, _) in zip(stepped, written, strict=True):
        n_verdicts = int(program is not None and program.job is not None)
        n_right = len(lines)
        if program is not None:
            n_right = _right_lines(program, next(judgements) if n_verdicts else None)
        labels = [0.0 if is_neutral(line) else 1.0 if at < n_right else -1.0 for at, line in enumerate(lines)]
        results.append((np.array(labels, dtype=np.float64), n_verdicts))
    return results


def _right_lines(program: SteppedProgram, judgement: Judgement | None) -> int:
    """How many lines stand before the first wrong one."""
    if judgement is None or program.job is None:
        return program.n_sound
    n_calls = len(judgement.results) // sum(len(step.names) for step in program.steps)
    at = n_before = 0
    for step in program.steps:
        n_tests = n_calls * len(step.names)
        if not all(judgement.results[at : at + n_tests]):
            return step.last_line - 1 if len(step.names) == 1 else n_before
        at += n_tests
        n_before = step.last_line
    return program.n_sound
