"""Ways to evaluate programs, or lines of programs, apart from each other."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from codegym.episode import is_neutral
from codegym.task import Task
from prm.program import LabeledProgram

Grouping: TypeAlias = Callable[[LabeledProgram], str | Sequence[str]]
"""A program's group; or one group for each of its lines."""

UNKNOWN = "unknown"


def by_policy(item: LabeledProgram) -> str:
    """The model that wrote the program: between checkpoints, how a reward model drifts off its policy."""
    return item.program.policy


def by_verdict(item: LabeledProgram) -> str:
    """What the judge said."""
    return str(item.program.verdict)


def by_position(item: LabeledProgram) -> list[str]:
    """Of each line, its number in the program, in ranges that double."""
    return [doubling_range(number) for number in range(1, len(item.labels) + 1)]


def by_horizon(tasks: Mapping[str, Task]) -> Grouping:
    """How much a program's task asks for, in ranges that double.

    That is the task's own horizon, or else the lines of its reference that are neither blank nor comment.

    Args:
        tasks: By id; the programs of others, and of those that tell neither, are in the group "unknown".
    """

    def horizon_of(item: LabeledProgram) -> str:
        task = tasks.get(item.program.task_id)
        size = 0 if task is None else horizon(task)
        return doubling_range(size) if size else UNKNOWN

    return horizon_of


def horizon(task: Task) -> int:
    """Steps that a task asks for; 0 if neither its metadata nor a reference tells."""
    stated = task.metadata.get("horizon")
    if isinstance(stated, int):
        return stated
    return sum(not is_neutral(line) for line in (task.reference or "").split("\n"))


def doubling_range(number: int) -> str:
    """The range of 1, 2, 3-4, 5-8, 9-16, ... that a positive number is in.

    Raises:
        ValueError: If it is not positive.
    """
    if number < 1:
        raise ValueError(f"number must be at least 1, got {number}")
    high = 1 << (number - 1).bit_length()
    low = high // 2 + 1
    return f"{low}-{high}" if low < high else str(high)


def in_natural_order(names: Sequence[str]) -> list[str]:
    """Sorted with numbers as numbers: step-2 before step-10."""
    return sorted(names, key=_parts)


def _parts(name: str) -> list[str | int]:
    # text and digits alternate, so that like is compared with like
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", name))]
