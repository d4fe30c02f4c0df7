"""TACO (arXiv:2312.14852): 26,443 contest problems with topics and skills, in the form of APPS.

Apache 2.0, parts under MIT and CC BY 4.0; reads `train.jsonl` and `test.jsonl` written from the data set
BAAI/TACO: question, solutions, starter_code, input_output, difficulty (EASY to VERY_HARD), source, name, url,
tags, skill_types, time_limit, memory_limit. There are no ids: a task is named by split and row. How values
compare: `codegym.tasks.contests`.
"""

import ast
from functools import partial
from pathlib import Path

from codegym.task import Task
from codegym.tasks.contests import input_output_task
from codegym.tasks.rows import Row, files_of, read_files, shown
from codegym.tasks.selection import select_tasks

LICENCE = "Apache-2.0; parts MIT, CC BY 4.0"


def load(
    *,
    path: str | Path,
    max_tests: int | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_bad_row: str = "raise",
) -> tuple[Task, ...]:
    """Load TACO.

    Args:
        path: A JSON Lines file, or a folder with `train.jsonl` and `test.jsonl`.
        max_tests: Keep only so many tests of a task, those with the longest inputs: there are 200 on average.
        split: "train" or "test"; both by default.
        limit: At most this many tasks.
        seed: Which ones are drawn then.
        on_bad_row: "raise" or "skip".

    Raises:
        TaskError: If there is nothing at the path.
        TaskSourceError: If a row is not a valid task.
    """
    rows = read_files("taco", files_of("taco", path))
    read = partial(to_task, max_tests=max_tests)
    return select_tasks(rows, read, split=split, limit=limit, seed=seed, on_bad_row=on_bad_row)


def to_task(row: Row, *, max_tests: int | None = None) -> Task:
    """Make a task of a row in TACO's schema.

    Raises:
        TaskSourceError: If a field is missing or wrong.
    """
    return input_output_task(
        row,
        task_id=f"taco/{row.file_split or 'train'}/{row.number}",
        licence=LICENCE,
        max_tests=max_tests,
        difficulty=row.get("difficulty", str, "UNKNOWN_DIFFICULTY"),
        platform=row.get("source", str, ""),
        url=row.get("url", str, ""),
        tags=_words(row, "tags"),
        skill_types=_words(row, "skill_types"),
        time_limit=row.get("time_limit", str, ""),
        memory_limit=row.get("memory_limit", str, ""),
    )


def _words(row: Row, field: str) -> list[str]:
    """A list of texts that is published as the text of a Python list."""
    value = row.fields.get(field) or []
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise row.error(field, f"expected a list of texts, got {shown(value)}") from error
    if not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
        raise row.error(field, f"expected a list of texts, got {shown(value)}")
    return value
