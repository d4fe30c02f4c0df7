"""Candidates for the next step of a stepwise program, the right one among them."""

import re
from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np

from codegym.episode import END_OF_PROGRAM, Episode
from codegym.errors import TaskError
from codegym.table import check_name
from codegym.task import Task
from codegym.tasks.operations import OPERATIONS, render
from codegym.tasks.stepwise_programs import ENDINGS
from codegym.wrappers.proposers import Proposal

_ASSIGNS = re.compile(r"    v(\d+) = ")
_RETURN = "    return "

T = TypeVar("T")


class StepwiseProposer:
    """Proposes a whole step (one to three lines) at a time, for tasks of the stepwise source.

    Among the candidates is the task's reference for that step, at a random place; the others compute the
    same variable in another way. After the last step come ways to return, then END_OF_PROGRAM alone. Which
    step is next depends on the variables computed so far, whether rightly or not.

    Args:
        distractors: "operations": right code for other operations, with the same number where they take one,
            so that telling them apart needs the request's words. "bugs": the bugs that people write for the
            operation asked for, other operations after those.
    """

    def __init__(self, *, distractors: Literal["operations", "bugs"] = "operations") -> None:
        check_name(distractors, ("operations", "bugs"), "kind of distractors")
        self._distractors = distractors

    def propose(self, episode: Episode, k: int, rng: np.random.Generator) -> Proposal:
        """At most `k` different candidates; the request is the prompt's phrase for the step.

        Raises:
            TaskError: If the task is not from the stepwise source.
        """
        task = episode.task
        if task.reference is None or "operations" not in task.metadata:
            raise TaskError(f"StepwiseProposer needs a task of the stepwise source, got {task.task_id!r}")
        lines = episode.lines
        horizon = len(task.metadata["operations"])
        computed = max((int(found[1]) for line in lines if (found := _ASSIGNS.match(line))), default=0)
        number = 1 + min(computed, horizon)
        if any(line.startswith(_RETURN) for line in lines):
            return Proposal(candidates=(END_OF_PROGRAM,), request="")
        request = task.prompt.split("\n")[1 + number].strip()
        wrong = self._wrong_steps(task, number, k, rng) if number <= horizon else _wrong_returns(number, rng)
        candidates = list(dict.fromkeys([_reference_step(task.reference, number), *wrong]))[:k]
        rng.shuffle(candidates)
        return Proposal(candidates=tuple(candidates), request=request)

    def _wrong_steps(self, task: Task, number: int, n: int, rng: np.random.Generator) -> list[str]:
        asked = OPERATIONS[task.metadata["operations"][number - 1]]
        parameter = task.metadata["parameters"][number - 1]
        others = [operation for operation in OPERATIONS.values() if operation is not asked]
        drawn = [
            (_pick(others[index].right, rng), _pick(others[index].parameters, rng))
            for index in rng.permutation(len(others))[:n]
        ]
        if self._distractors == "bugs":
            drawn = [(asked.wrong[index], parameter) for index in rng.permutation(len(asked.wrong))] + drawn
        return [
            render(
                template, a=f"v{number - 1}", b=f"v{number}", k=other if parameter is None else parameter
            ).removesuffix("\n")
            for template, other in drawn
        ]


def _pick(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(len(choices)))]


def _wrong_returns(number: int, rng: np.random.Generator) -> list[str]:
    codes = [ENDINGS[index].code for index in rng.permutation(len(ENDINGS))]
    return [f"{_RETURN}{code.format(a=f'v{number - 1}')}" for code in codes]


def _reference_step(reference: str, number: int) -> str:
    """The reference's lines from the one that computes variable `number` to the next variable or return."""
    lines = reference.removesuffix("\n").split("\n")
    starts = [index for index, line in enumerate(lines) if _ASSIGNS.match(line)]
    bounds = [*starts, len(lines) - 1, len(lines)]
    return "\n".join(lines[bounds[number - 1] : bounds[number]])
