"""MBPP (arXiv:2108.07732): 974 short functions asked for in a sentence, with three assertions each.

CC BY 4.0, from google-research/google-research, folder mbpp: `mbpp.jsonl` (full; fields text, code, task_id,
test_setup_code, test_list, challenge_test_list) or `sanitized-mbpp.json` (427 tasks; prompt, code, task_id,
test_imports, test_list). The splits go by task id: 1-10 "prompt", 11-510 "test", 511-600 "validation",
601-974 "train". Each assertion is a test of its own and runs unmodified.

Some references cannot pass, because only plain data reaches the tests: 367, 601 and 927 of the full set,
whose tests make instances of a class that the program defines, and 737, 787 and 794 of the sanitized one,
whose references return a `re.Match`.
"""

import ast
import builtins
import os
from functools import partial
from pathlib import Path

from codegym.errors import TaskError
from codegym.task import AssertionTest, Task
from codegym.tasks.prompts import check_python, docstring, one_newline, whole_lines
from codegym.tasks.rows import Row, files_of, read_files
from codegym.tasks.selection import select_tasks

LICENCE = "CC BY 4.0"
SPLITS = {
    "prompt": range(1, 11),
    "test": range(11, 511),
    "validation": range(511, 601),
    "train": range(601, 975),
}
PATH_VARIABLE = "CODEGYM_MBPP"


def load(
    *,
    path: str | Path | None = None,
    shown_tests: int = 1,
    challenge_tests: bool = False,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_bad_row: str = "raise",
) -> tuple[Task, ...]:
    """Load MBPP, full or sanitized.

    Args:
        path: `mbpp.jsonl` or `sanitized-mbpp.json`; by default the value of the variable CODEGYM_MBPP.
        shown_tests: So many assertions end the prompt: one tells the function's name and how it is called,
            three are the paper's prompt (and leave nothing hidden).
        challenge_tests: Whether the extra assertions that 11 tasks of the full set have are tests too.
        split: "prompt", "train", "validation" or "test"; all by default.
        limit: At most this many tasks.
        seed: Which ones are drawn then.
        on_bad_row: "raise" or "skip".

    Raises:
        TaskError: If there is no path, or nothing there.
        TaskSourceError: If a row is not a valid task.
    """
    if shown_tests < 0:
        raise ValueError(f"shown_tests must not be negative, got {shown_tests}")
    rows = read_files("mbpp", files_of("mbpp", path or _default_path()))
    read = partial(to_task, shown_tests=shown_tests, challenge_tests=challenge_tests)
    return select_tasks(
        rows, read, splits=tuple(SPLITS), split=split, limit=limit, seed=seed, on_bad_row=on_bad_row
    )


def to_task(row: Row, *, shown_tests: int = 1, challenge_tests: bool = False) -> Task:
    """Make a task of a row in the schema of the full or the sanitized set.

    Raises:
        TaskSourceError: If a field is missing or wrong.
    """
    number = row.get("task_id", int)
    split = next((name for name, numbers in SPLITS.items() if number in numbers), None)
    if split is None:
        raise row.error("task_id", f"expected a number from 1 to 974, got {number}")
    code = whole_lines(row.get("code", str))
    module = check_python(row, "code", code)
    asserts = row.texts("test_list")
    setup = "\n".join([*row.texts("test_imports", []), one_newline(row.get("test_setup_code", str, ""))])
    if not asserts:
        raise row.error("test_list", "there are no tests")
    extra = row.texts("challenge_test_list", []) if challenge_tests else []
    calls = check_python(row, "test_list", "\n".join([setup, *asserts]))
    check_python(row, "challenge_test_list", "\n".join(extra))
    question = row.get("text" if "text" in row.fields else "prompt", str)
    return Task(
        task_id=f"mbpp/{number}",
        prompt=docstring("\n".join([question, *asserts[:shown_tests]])),
        entry_point=_entry_point(row, module, calls),
        tests=tuple(AssertionTest(code=f"{setup}\n{one_newline(test)}\n") for test in (*asserts, *extra)),
        split=split,
        reference=code,
        metadata=row.metadata(licence=LICENCE),
    )


def _entry_point(row: Row, module: ast.Module, tests: ast.Module) -> str:
    """The first function of the reference that the tests call."""
    defined = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    calls = [node.func for node in ast.walk(tests) if isinstance(node, ast.Call)]
    called = [function.id for function in calls if isinstance(function, ast.Name)]
    if name := next((name for name in called if name in defined), None):
        return name
    names = [name for name in called if not hasattr(builtins, name)]
    raise row.error("code", f"expected one of the names that the tests call, {names}; got {sorted(defined)}")


def _default_path() -> str:
    path = os.environ.get(PATH_VARIABLE)
    if not path:
        raise TaskError(
            f"mbpp needs path= or the variable {PATH_VARIABLE}: mbpp.jsonl or sanitized-mbpp.json from"
            " https://github.com/google-research/google-research/tree/master/mbpp"
        )
    return path
