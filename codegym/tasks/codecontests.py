"""CodeContests (AlphaCode, arXiv:2203.07814): 13,610 contest problems tested by standard input.

CC BY 4.0; reads JSON Lines in the schema of the data set deepmind/code_contests (train, valid, test): name,
description, public_tests, private_tests, generated_tests, source, difficulty, solutions, cf_rating, cf_tags,
time_limit, input_file, output_file. Output is compared as the collection's own tester does, word by word
without regard to case, fractions within 1e-5 (`tokens` in `codegym.task`). References are Python 3 solutions.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from codegym.task import StdioTest, Task
from codegym.tasks.contests import first_python, longest
from codegym.tasks.prompts import problem_prompt
from codegym.tasks.rows import Row, files_of, read_files, shown
from codegym.tasks.selection import select_tasks

LICENCE = "CC BY 4.0"
# The numbers of contest_problem.proto.
PLATFORMS = {
    0: "unknown",
    1: "codechef",
    2: "codeforces",
    3: "hackerearth",
    4: "codejam",
    6: "atcoder",
    7: "aizu",
}
_DIFFICULTIES = ("unknown", "easy", "medium", "hard", "harder", "hardest", "external", *"ABCDEFGHIJK")
DIFFICULTIES = dict(enumerate(_DIFFICULTIES)) | dict(enumerate("LMNOPQRSTUV", start=19))
PYTHON3 = 3


def load(
    *,
    path: str | Path,
    generated_tests: bool = True,
    max_tests: int | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_bad_row: str = "raise",
) -> tuple[Task, ...]:
    """Load CodeContests.

    Args:
        path: A JSON Lines file, or a folder with train, valid and test files.
        generated_tests: Whether to use the tests that were made by mutation, beside public and private ones.
        max_tests: Keep only so many tests of a task, those with the longest inputs: there are 200 on average.
        split: "train", "validation" or "test"; all by default.
        limit: At most this many tasks.
        seed: Which ones are drawn then.
        on_bad_row: "raise" or "skip": some problems read from files.

    Raises:
        TaskError: If there is nothing at the path.
        TaskSourceError: If a row is not a valid task.
    """
    rows = read_files("codecontests", files_of("codecontests", path))
    read = partial(to_task, generated_tests=generated_tests, max_tests=max_tests)
    return select_tasks(rows, read, split=split, limit=limit, seed=seed, on_bad_row=on_bad_row)


def to_task(row: Row, *, generated_tests: bool = True, max_tests: int | None = None) -> Task:
    """Make a task of a row in CodeContests' schema.

    Raises:
        TaskSourceError: If a field is missing or wrong.
    """
    for field in ("input_file", "output_file"):
        if name := row.get(field, str, ""):
            raise row.error(field, f"the problem uses the file {name!r}; only standard input can be tested")
    fields = ["public_tests", "private_tests", *(["generated_tests"] if generated_tests else [])]
    tests = [test for field in fields for test in _tests(row, field)]
    if not tests:
        raise row.error("public_tests", "there are no tests")
    platform = _named(row, "source", PLATFORMS)
    return Task(
        task_id=f"codecontests/{platform}/{row.get('name', str)}",
        prompt=problem_prompt(row.get("description", str)),
        entry_point=None,
        tests=longest(tests, max_tests),
        split=row.file_split or "train",
        reference=first_python(_solutions(row)),
        metadata=row.metadata(
            licence=LICENCE,
            difficulty=_named(row, "difficulty", DIFFICULTIES),
            platform=platform,
            rating=row.get("cf_rating", int, 0),
            tags=row.texts("cf_tags", []),
        ),
    )


def _tests(row: Row, field: str) -> list[StdioTest]:
    pairs = _records(row, field, ("input", "output"))
    for given, wanted in pairs:
        if not (isinstance(given, str) and isinstance(wanted, str)):
            raise row.error(field, f"expected texts, got {shown(given)} and {shown(wanted)}")
    return [StdioTest(stdin=given, stdout=wanted, comparison="tokens") for given, wanted in pairs]


def _solutions(row: Row) -> list[str]:
    records = _records(row, "solutions", ("language", "solution"))
    return [text for language, text in records if language in (PYTHON3, "PYTHON3") and isinstance(text, str)]


def _records(row: Row, field: str, names: tuple[str, str]) -> list[tuple[Any, Any]]:
    """Pairs that are published as a dict of two lists, or as a list of dicts."""
    value = row.fields.get(field)
    if value is None:
        return []
    if isinstance(value, Mapping):
        first, second = (value.get(name) for name in names)
        if not (isinstance(first, list) and isinstance(second, list) and len(first) == len(second)):
            raise row.error(field, f"expected lists {names[0]} and {names[1]} of the same length")
        return list(zip(first, second, strict=True))
    if not (isinstance(value, list) and all(isinstance(item, Mapping) for item in value)):
        raise row.error(field, f"expected pairs of {names[0]} and {names[1]}, got {shown(value)}")
    return [(item.get(names[0]), item.get(names[1])) for item in value]


def _named(row: Row, field: str, names: Mapping[int, str]) -> str:
    """An enumeration's value by name; the schema has it as a number."""
    value = row.fields.get(field, 0)
    if isinstance(value, str):
        return value.removesuffix("_SOURCE").removesuffix("_DIFFICULTY").lower()
    if type(value) is not int or value not in names:
        raise row.error(field, f"expected one of {sorted(names)}, got {shown(value)}")
    return names[value]
