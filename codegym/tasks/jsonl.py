r"""Your own tasks as JSON Lines: `load_tasks("jsonl", path=...)` reads what `write_tasks` wrote.

| field | type | |
|---|---|---|
| task_id | text | unique in the file |
| prompt | text | what the agent sees first |
| tests | list | at least one, see below |
| entry_point | text or null | the function that the tests call; needed for tests that call |
| split | text | "train" (default), "validation", "test" or "prompt" |
| reference | text or null | a right completion: what an agent would write after the prompt |
| prompt_is_code | bool | whether the judged program begins with the prompt; true by default |
| metadata | object | anything |

A test is one of

    {"kind": "call", "args": [[3, 1]], "expected": [1, 3], "comparison": "exact"}
    {"kind": "stdio", "stdin": "3 1\n", "stdout": "1 3\n", "comparison": "lines"}
    {"kind": "assertion", "code": "assert candidate([3, 1]) == [1, 3]"}

`comparison` may be left out; `codegym.task` lists the kinds. Values in args and expected are JSON as it is;
what JSON lacks is an object with one tag: {"tuple": [...]}, {"set": [...]}, {"frozenset": [...]},
{"dict": [[key, value], ...]}, {"bytes": hex digits}, {"complex": [real, imaginary]}, {"int": hex digits}.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from codegym.errors import TaskError
from codegym.judge.codec import decode, encode
from codegym.storage import write_text
from codegym.task import AssertionTest, CallTest, StdioTest, Task, TestCase
from codegym.tasks.prompts import check_python
from codegym.tasks.rows import SPLITS, Row, files_of, read_files, shown
from codegym.tasks.selection import select_tasks

_FIELDS = {"task_id", "prompt", "tests", "entry_point", "split", "reference", "prompt_is_code", "metadata"}
_TEST_FIELDS = {
    "call": ({"args", "expected"}, {"comparison"}),
    "stdio": ({"stdin", "stdout"}, {"comparison"}),
    "assertion": ({"code"}, set[str]()),
}


def load(
    *,
    path: str | Path,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_bad_row: str = "raise",
) -> tuple[Task, ...]:
    """Load tasks of your own.

    Args:
        path: A JSON Lines file, gzipped or not, or a folder of them.
        split: "train", "validation" or "test"; all by default.
        limit: At most this many tasks.
        seed: Which ones are drawn then.
        on_bad_row: "raise" or "skip".

    Raises:
        TaskError: If there is nothing at the path.
        TaskSourceError: If a row is not a valid task.
    """
    rows = read_files("jsonl", files_of("jsonl", path))
    return select_tasks(rows, to_task, split=split, limit=limit, seed=seed, on_bad_row=on_bad_row)


def write_tasks(path: str | Path, tasks: Iterable[Task]) -> None:
    """Write tasks to a JSON Lines file, atomically; `load_tasks("jsonl", path=path)` gives them back.

    Raises:
        TaskError: If a task holds something that cannot be written.
    """
    write_text(Path(path), "".join(_line(task) for task in tasks))


def to_task(row: Row) -> Task:
    """Make a task of a row.

    Raises:
        TaskSourceError: If a field is missing, wrong or unknown.
    """
    if unknown := sorted(set(row.fields) - _FIELDS):
        raise row.error(unknown[0], f"unknown; the fields are {', '.join(sorted(_FIELDS))}")
    split = row.get("split", str, "train")
    if split not in SPLITS:
        raise row.error("split", f"expected one of {', '.join(SPLITS)}, got {split!r}")
    tests = tuple(_read_test(row, test) for test in row.get("tests", list))
    entry = row.get("entry_point", str, "") or None
    if entry is None and any(not isinstance(test, StdioTest) for test in tests):
        raise row.error("entry_point", "missing; there are tests that call it")
    return Task(
        task_id=row.get("task_id", str),
        prompt=row.get("prompt", str),
        entry_point=entry,
        tests=tests,
        split=split,
        # An empty completion is one, so "" and null differ.
        reference=None if row.fields.get("reference") is None else row.get("reference", str),
        prompt_is_code=row.get("prompt_is_code", bool, True),
        metadata=row.get("metadata", dict, {}),
    )


def _read_test(row: Row, test: Any) -> TestCase:
    if not isinstance(test, dict) or test.get("kind") not in _TEST_FIELDS:
        raise row.error("tests", f"expected an object with kind {', '.join(_TEST_FIELDS)}, got {shown(test)}")
    needed, more = _TEST_FIELDS[test["kind"]]
    given = set(test) - {"kind"}
    if not needed <= given <= needed | more:
        raise row.error("tests", f"a {test['kind']} test has {sorted(needed | more)}, got {sorted(given)}")
    try:
        return _make_test(row, test["kind"], {name: test[name] for name in given})
    except (TypeError, ValueError) as error:
        if isinstance(error, TaskError):
            raise
        raise row.error("tests", str(error)) from error


def _make_test(row: Row, kind: str, parts: dict[str, Any]) -> TestCase:
    if kind == "call":
        args = decode(json.dumps(parts.pop("args")).encode())
        if not isinstance(args, list):
            raise row.error("tests", f"args must be a list, got {shown(args)}")
        return CallTest(
            args=tuple(args), expected=decode(json.dumps(parts.pop("expected")).encode()), **parts
        )
    for name, value in parts.items():
        if not isinstance(value, str):
            raise row.error("tests", f"{name} must be a text, got {shown(value)}")
    if kind == "stdio":
        return StdioTest(**parts)
    check_python(row, "tests", parts["code"])
    return AssertionTest(**parts)


def _line(task: Task) -> str:
    try:
        record = {
            "task_id": task.task_id,
            "prompt": task.prompt,
            "entry_point": task.entry_point,
            "tests": [_describe(test) for test in task.tests],
            "split": task.split,
            "reference": task.reference,
            "prompt_is_code": task.prompt_is_code,
            "metadata": dict(task.metadata),
        }
        return json.dumps(record) + "\n"
    except (TypeError, ValueError) as error:
        raise TaskError(f"task {task.task_id!r} cannot be written: {error}") from error


def _describe(test: TestCase) -> dict[str, Any]:
    match test:
        case CallTest():
            args, expected = (json.loads(encode(value)) for value in (list(test.args), test.expected))
            return {"kind": "call", "args": args, "expected": expected, "comparison": test.comparison}
        case StdioTest():
            return {
                "kind": "stdio",
                "stdin": test.stdin,
                "stdout": test.stdout,
                "comparison": test.comparison,
            }
        case AssertionTest():
            return {"kind": "assertion", "code": test.code}
