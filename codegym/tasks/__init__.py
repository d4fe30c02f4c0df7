"""Task sources: where problems come from."""

from collections.abc import Sequence
from inspect import Parameter, signature
from typing import Any

from codegym.errors import TaskError
from codegym.table import check_options, resolve
from codegym.task import Task
from codegym.tasks.jsonl import write_tasks

__all__ = ["TASK_SOURCES", "load_tasks", "write_tasks"]

TASK_SOURCES = {
    "stepwise": "codegym.tasks.stepwise:load",
    "humaneval": "codegym.tasks.humaneval:load",
    "humaneval_plus": "codegym.tasks.humaneval_plus:load",
    "mbpp": "codegym.tasks.mbpp:load",
    "livecodebench": "codegym.tasks.livecodebench:load",
    "apps": "codegym.tasks.apps:load",
    "taco": "codegym.tasks.taco:load",
    "codecontests": "codegym.tasks.codecontests:load",
    "jsonl": "codegym.tasks.jsonl:load",
    "hub": "codegym.tasks.hub:load",
}


def load_tasks(
    name: str, *, split: str | None = None, limit: int | None = None, seed: int = 0, **options: Any
) -> Sequence[Task]:
    """Load tasks by source name.

    Args:
        name: An entry of `TASK_SOURCES`.
        split: "train", "validation" or "test" (a source may have others). None is "train" for "stepwise", and
            all splits for other sources, test included: train on split="train".
        limit: At most this many tasks.
        seed: Which tasks a procedural source makes, or which a fixed one draws.
        options: What the source documents.

    Raises:
        UnknownNameError: If `name` is not in `TASK_SOURCES`, or the source has no such option.
        MissingExtraError: If the source needs a package that is not installed.
        TaskError: If an option that the source needs is missing, or it has no such tasks.
        TaskSourceError: If a row is not a valid task.
        ValueError: If an option has a value that the source does not know.
    """
    load = resolve(TASK_SOURCES, name, "task source")
    needed = [p.name for p in signature(load).parameters.values() if _is_needed(p) and p.name not in options]
    if needed:
        raise TaskError(f"task source {name!r} needs {' and '.join(f'{option}=' for option in needed)}")
    check_options(load, options, f"option of task source {name!r}")
    tasks: Sequence[Task] = load(split=split, limit=limit, seed=seed, **options)
    return tasks


def _is_needed(parameter: Parameter) -> bool:
    named = parameter.kind in (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return named and parameter.default is Parameter.empty and parameter.name not in ("split", "limit", "seed")
