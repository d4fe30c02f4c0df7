"""APPS (arXiv:2105.09938): 10,000 contest and interview problems, tested by standard input or by calls.

MIT licence; reads `train.jsonl` and `test.jsonl` as published on the Hugging Face hub (codeparrot/apps):
problem_id, question, solutions, input_output, difficulty (introductory, interview, competition), url,
starter_code. The split is told by the file's name. How values compare: `codegym.tasks.contests`. Solutions
are submissions that once passed elsewhere; some of them fail their own tests.
"""

from functools import partial
from pathlib import Path

from codegym.task import Task
from codegym.tasks.contests import input_output_task
from codegym.tasks.rows import Row, files_of, read_files
from codegym.tasks.selection import select_tasks

LICENCE = "MIT"


def load(
    *,
    path: str | Path,
    max_tests: int | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_bad_row: str = "raise",
) -> tuple[Task, ...]:
    """Load APPS.

    Args:
        path: A JSON Lines file, or a folder with `train.jsonl` and `test.jsonl`.
        max_tests: Keep only so many tests of a task, those with the longest inputs.
        split: "train" or "test"; both by default.
        limit: At most this many tasks.
        seed: Which ones are drawn then.
        on_bad_row: "raise" or "skip": some published rows have no tests.

    Raises:
        TaskError: If there is nothing at the path.
        TaskSourceError: If a row is not a valid task.
    """
    rows = read_files("apps", files_of("apps", path))
    read = partial(to_task, max_tests=max_tests)
    return select_tasks(rows, read, split=split, limit=limit, seed=seed, on_bad_row=on_bad_row)


def to_task(row: Row, *, max_tests: int | None = None) -> Task:
    """Make a task of a row in APPS's schema.

    Raises:
        TaskSourceError: If a field is missing or wrong.
    """
    number = row.get("problem_id", int)
    return input_output_task(
        row,
        task_id=f"apps/{row.file_split or 'train'}/{number}",
        licence=LICENCE,
        max_tests=max_tests,
        difficulty=row.get("difficulty", str, "unknown"),
        url=row.get("url", str, ""),
    )
