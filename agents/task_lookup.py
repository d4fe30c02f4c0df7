"""Tasks by what a command line or a file of programs names them: a source, a file, or their ids."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from codegym.errors import TaskError
from codegym.table import check_name, resolve
from codegym.task import Task
from codegym.tasks import TASK_SOURCES, load_tasks

FINDERS = {"stepwise": "codegym.tasks.stepwise:find"}
"""Sources that make a task from its id alone; the tasks of others are looked through."""


def load_named(name: str, *, split: str | None = None, **options: Any) -> Sequence[Task]:
    """Tasks of a source, or of a JSON Lines file.

    Args:
        name: An entry of `TASK_SOURCES`, or the path of a file that ends in .jsonl.
        split: Of the source; a file's tasks are wanted whatever their split.
        options: Others of `load_tasks`.
    """
    if Path(name).suffix == ".jsonl":
        return load_tasks("jsonl", path=name, **options)
    return load_tasks(name, split=split, **options)


def find_task(task_id: str, source: str | None = None, **options: Any) -> Task:
    """The task of that id, looked up in a source.

    Args:
        task_id: Its id.
        source: Name of the task source; by default the first part of the id.
        options: Arguments of `load_tasks`.

    Raises:
        UnknownNameError: If no source has that name.
        TaskError: If the source has no such task.
    """
    name = source or _source_of(task_id)
    check_name(name, TASK_SOURCES, "task source")
    if name in FINDERS and not options:
        task: Task = resolve(FINDERS, name, "task source")(task_id)
        return task
    for task in load_tasks(name, **options):
        if task.task_id == task_id:
            return task
    raise TaskError(f"task source {name!r} has no task {task_id!r}")


def find_tasks(task_ids: Collection[str], name: str | None = None, *, seed: int = 0) -> dict[str, Task]:
    """Tasks by id; an id that the source does not have is left out. Each source is loaded once.

    Args:
        task_ids: Whose tasks are wanted.
        name: A source, or a JSON Lines file; by default the sources that the ids name. A source that makes
            tasks from their ids does so whatever their seed.
        seed: Of a source that is looked through.

    Raises:
        UnknownNameError: If there is no such source.
        TaskError: If a source that makes tasks from their ids cannot make one.
    """
    if name is not None and name not in FINDERS:
        return {task.task_id: task for task in load_named(name, seed=seed) if task.task_id in task_ids}
    found: dict[str, Task] = {}
    for source in dict.fromkeys(map(_source_of, task_ids)):
        mine = [task_id for task_id in task_ids if _source_of(task_id) == source]
        if source in FINDERS:
            found |= {task_id: find_task(task_id) for task_id in mine}
        else:
            known = {task.task_id: task for task in load_tasks(source)}
            found |= {task_id: known[task_id] for task_id in mine if task_id in known}
    return found


def _source_of(task_id: str) -> str:
    return task_id.split("/")[0].lower()
