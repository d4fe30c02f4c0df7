"""Task sources: where problems come from."""

from collections.abc import Sequence
from typing import Any

from codegym.table import resolve
from codegym.task import Task

TASK_SOURCES = {"stepwise": "codegym.tasks.stepwise:load"}


def load_tasks(
    name: str, *, split: str | None = None, limit: int | None = None, seed: int = 0, **options: Any
) -> Sequence[Task]:
    """Load tasks by source name.

    Args:
        name: An entry of `TASK_SOURCES`.
        split: "train", "validation" or "test"; None for the source's default.
        limit: At most this many tasks.
        seed: Which tasks a procedural source makes, or which a fixed one draws.
        options: What the source documents.

    Raises:
        UnknownNameError: If `name` is not in `TASK_SOURCES`.
        TaskSourceError: If a row is not a valid task.
        ValueError: If an option has a value that the source does not know.
    """
    tasks: Sequence[Task] = resolve(TASK_SOURCES, name, "task source")(
        split=split, limit=limit, seed=seed, **options
    )
    return tasks
