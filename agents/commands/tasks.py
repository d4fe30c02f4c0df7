"""`codegym tasks`: list task sources, count the tasks of one, or show a task with its tests."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from agents.task_lookup import find_task
from codegym.errors import CodegymError
from codegym.judge.codec import encode
from codegym.task import AssertionTest, CallTest, StdioTest, Task, TestCase
from codegym.tasks import TASK_SOURCES, load_tasks


@dataclass(frozen=True, kw_only=True)
class TasksOptions:
    """List task sources, count the tasks of one by split and difficulty, or show a task with its tests."""

    source: Annotated[str | None, tyro.conf.Positional] = None
    """A task source; without one the sources are listed."""
    task: str | None = None
    """Show this task; without a source, the first part of its id names the source."""
    show: int = 0
    """Show so many tasks instead of counting them."""
    path: Path | None = None
    """The file or folder of a source that reads files."""
    options: str = "{}"
    """More arguments of the source, as a JSON object: '{"start_date": "2024-08-01"}'."""
    split: str | None = None
    """Only this split."""
    limit: int | None = None
    """At most this many tasks."""
    seed: int = 0
    """Seed of a procedural source; of the draw, for the others."""


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    options = tyro.cli(TasksOptions, args=list(argv), prog="codegym tasks")
    if options.task is not None:
        sys.stdout.write(show(find_task(options.task, options.source, **_source_options(options))))
    elif options.source is None:
        sys.stdout.write(_sources())
    else:
        tasks = load_tasks(
            options.source,
            split=options.split,
            limit=options.limit,
            seed=options.seed,
            **_source_options(options),
        )
        shown = "".join(show(task) for task in tasks[: options.show])
        sys.stdout.write(shown or count(options.source, tasks))
    return 0


def count(source: str, tasks: Sequence[Task]) -> str:
    """How many tasks there are, by split and by difficulty, as text for people."""
    parts = [
        f"{source}: {len(tasks)} tasks, {sum(task.reference is not None for task in tasks)} with a reference"
    ]
    for title, values in (
        ("split", [task.split for task in tasks]),
        (
            "difficulty",
            [str(task.metadata["difficulty"]) for task in tasks if task.metadata.get("difficulty")],
        ),
    ):
        parts += [f"  {title} {value}: {number}" for value, number in sorted(Counter(values).items())]
    return "\n".join(parts) + "\n"


def show(task: Task) -> str:
    """A task as text for people: id, prompt, reference and tests."""
    reference = task.reference if task.reference is not None else "(none)\n"
    tests = "".join(f"  {_describe(test)}\n" for test in task.tests)
    about = "".join(f"  {name}: {json.dumps(value)}\n" for name, value in task.metadata.items())
    return (
        f"{task.task_id}  split {task.split}  entry point {task.entry_point}\n\n"
        f"{task.prompt}\nreference:\n{reference}\ntests:\n{tests}\nmetadata:\n{about}\n"
    )


def _sources() -> str:
    width = max(map(len, TASK_SOURCES))
    return "".join(f"{name:<{width}}  {_availability(name)}\n" for name in sorted(TASK_SOURCES))


def _availability(name: str) -> str:
    try:
        return f"{len(load_tasks(name))} tasks"
    except CodegymError as error:
        return str(error)


def _source_options(options: TasksOptions) -> dict[str, Any]:
    path = {"path": str(options.path)} if options.path is not None else {}
    return json_object("--options", options.options) | path


def json_object(flag: str, text: str) -> dict[str, Any]:
    """The JSON object that is the value of an option.

    Raises:
        ValueError: If it is none; names the option.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{flag} must be a JSON object, got {text!r} ({error})") from error
    if not isinstance(given, dict):
        raise ValueError(f"{flag} must be a JSON object, got {text!r}")
    return given


def _text(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:
        # Python does not write integers of more than 4,300 digits; the codec does.
        return encode(value).decode("utf-8", "replace")


def _describe(test: TestCase) -> str:
    match test:
        case CallTest():
            return f"({', '.join(map(_text, test.args))}) -> {_text(test.expected)} ({test.comparison})"
        case StdioTest():
            return f"stdin {test.stdin!r} -> stdout {test.stdout!r} ({test.comparison})"
        case AssertionTest():
            return test.code.strip("\n").replace("\n", "\n  ")
