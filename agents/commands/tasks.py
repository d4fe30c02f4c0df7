"""`codegym tasks`: list task sources, or show tasks with their tests."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from codegym.task import AssertionTest, CallTest, StdioTest, Task, TestCase
from codegym.tasks import TASK_SOURCES, load_tasks


@dataclass(frozen=True, kw_only=True)
class TasksOptions:
    """List task sources, or show the tasks of one with their tests."""

    source: Annotated[str | None, tyro.conf.Positional] = None
    """A task source; without one the sources are listed."""
    split: str | None = None
    """Which split: train, validation or test."""
    limit: int = 1
    """How many tasks to show."""
    seed: int = 0
    """Seed of a procedural source."""


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    options = tyro.cli(TasksOptions, args=list(argv), prog="codegym tasks")
    if options.source is None:
        sys.stdout.write("".join(f"{name}\n" for name in sorted(TASK_SOURCES)))
        return 0
    tasks = load_tasks(options.source, split=options.split, limit=options.limit, seed=options.seed)
    for task in tasks:
        sys.stdout.write(show(task))
    return 0


def show(task: Task) -> str:
    """A task as text for people: id, prompt, reference and tests."""
    reference = task.reference if task.reference is not None else "(none)\n"
    tests = "".join(f"  {_describe(test)}\n" for test in task.tests)
    return (
        f"{task.task_id}  split {task.split}  entry point {task.entry_point}\n\n"
        f"{task.prompt}\nreference:\n{reference}\ntests:\n{tests}\n"
    )


def _describe(test: TestCase) -> str:
    match test:
        case CallTest():
            return f"({', '.join(map(repr, test.args))}) -> {test.expected!r}"
        case StdioTest():
            return f"stdin {test.stdin!r} -> stdout {test.stdout!r}"
        case AssertionTest():
            return test.code
