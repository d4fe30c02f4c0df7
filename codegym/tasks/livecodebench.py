"""LiveCodeBench (arXiv:2403.07974): contest problems with dates, tested by standard input or by calls.

Reads the JSON Lines files of the data sets livecodebench/code_generation and code_generation_lite
(`test.jsonl`, `test2.jsonl`, ...): question_title, question_content, platform, question_id, contest_id,
contest_date, starter_code, difficulty, public_test_cases, private_test_cases, metadata. There are no
reference solutions. All tasks belong to the split "test".

As in the benchmark's own runner, calls are compared by ==, with tuples taken for lists (there only the
outermost), and printed text line by line, a line of numbers by its exact values (`equal` and `decimals` in
`codegym.task`). A method is called on a fresh instance each time, as LeetCode does.
"""

import base64
import binascii
import json
import pickletools
import re
import zlib
from collections.abc import Mapping
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

from codegym.errors import TaskError
from codegym.task import CallTest, StdioTest, Task, TestCase
from codegym.tasks.contests import longest
from codegym.tasks.prompts import entry_point, problem_prompt
from codegym.tasks.rows import Row, files_of, parse_json, read_files, shown
from codegym.tasks.selection import select_tasks

MAX_UNPACKED_BYTES = 2**30
"""Private tests that unpack to more than this are refused."""

_VERSION = re.compile(r"(?:release_v|v)(\d+)(?:_v(\d+))?")
_PICKLED_TEXT = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"}
_PICKLE_FRAME = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}


def load(
    *,
    path: str | Path,
    version: str | None = None,
    start_date: str | date | None = None,
    end_date: str | date | None = None,
    max_tests: int | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_bad_row: str = "raise",
) -> tuple[Task, ...]:
    """Load LiveCodeBench.

    Args:
        path: One of its JSON Lines files, or the folder with them.
        version: With a folder, which files: "release_v3" is the first three (`test.jsonl`, `test2.jsonl`,
            `test3.jsonl`), "v3" the third alone, "v2_v4" the second to fourth; all by default.
        start_date: Only problems from contests on this day or later: "2024-08-01".
        end_date: Only problems from contests on this day or earlier.
        max_tests: Keep only so many tests of a task, those with the longest inputs.
        split: "test", the only one.
        limit: At most this many tasks.
        seed: Which ones are drawn then.
        on_bad_row: "raise" or "skip".

    Raises:
        TaskError: If there is nothing at the path, or no file of that version.
        TaskSourceError: If a row is not a valid task.
        ValueError: If a date or the version is none.
    """
    window = _day(start_date, date.min), _day(end_date, date.max)
    files = files_of("livecodebench", path)
    rows = read_files("livecodebench", _of_version(files, version) if version else files)
    read = partial(to_task, window=window, max_tests=max_tests)
    return select_tasks(
        rows, read, splits=("test",), split=split, limit=limit, seed=seed, on_bad_row=on_bad_row
    )


def to_task(
    row: Row, *, window: tuple[date, date] = (date.min, date.max), max_tests: int | None = None
) -> Task | None:
    """Make a task of a row in LiveCodeBench's schema; None if the contest was not in the window.

    Raises:
        TaskSourceError: If a field is missing or wrong.
    """
    day = _contest_day(row)
    if not window[0] <= day <= window[1]:
        return None
    tests = [test for field in ("public_test_cases", "private_test_cases") for test in _tests(row, field)]
    if not tests:
        raise row.error("public_test_cases", "there are no tests")
    starter = row.get("starter_code", str, "")
    entry = None
    if any(isinstance(test, CallTest) for test in tests):
        function = row.json("metadata", dict).get("func_name")
        entry = entry_point(row, "metadata", function, starter)
    return Task(
        task_id=f"livecodebench/{row.get('question_id', str)}",
        prompt=problem_prompt(row.get("question_content", str), starter, imports=entry is not None),
        entry_point=entry,
        tests=longest(tests, max_tests),
        split="test",
        metadata=row.metadata(
            difficulty=row.get("difficulty", str),
            platform=row.get("platform", str),
            contest_date=day.isoformat(),
            contest_id=row.get("contest_id", str, ""),
            title=row.get("question_title", str, ""),
        ),
    )


def _tests(row: Row, field: str) -> list[TestCase]:
    text = row.get(field, str, "[]")
    try:
        cases = parse_json(text)
    except ValueError:
        cases = _unpacked(row, field, text)
    if not (isinstance(cases, list) and all(isinstance(case, dict) for case in cases)):
        raise row.error(field, f"expected a list of tests, got {shown(cases)}")
    return [_test(row, field, case) for case in cases]


def _test(row: Row, field: str, case: Mapping[str, Any]) -> TestCase:
    given, wanted, kind = (case.get(name) for name in ("input", "output", "testtype"))
    if not (isinstance(given, str) and isinstance(wanted, str)):
        raise row.error(field, f"expected texts as input and output, got {shown(given)} and {shown(wanted)}")
    if kind == "stdin":
        return StdioTest(stdin=given, stdout=wanted, comparison="decimals")
    if kind != "functional":
        raise row.error(field, f"testtype must be 'stdin' or 'functional', got {kind!r}")
    try:
        args = tuple(parse_json(line) for line in given.split("\n"))
        return CallTest(args=args, expected=parse_json(wanted), comparison="equal")
    except ValueError as error:
        raise row.error(field, f"expected JSON, one argument a line, got {shown(given)} ({error})") from error


def _unpacked(row: Row, field: str, text: str) -> Any:
    """The tests in a field of base64, zlib and pickle; the pickle is read, never run."""
    try:
        packed = zlib.decompressobj()
        data = packed.decompress(base64.b64decode(text, validate=True), MAX_UNPACKED_BYTES)
        if packed.unconsumed_tail:
            raise ValueError(f"unpacks to more than {MAX_UNPACKED_BYTES} bytes")
        return json.loads(read_pickled_text(data))
    except (binascii.Error, zlib.error, ValueError) as error:
        raise row.error(field, f"neither JSON nor packed JSON ({error})") from error


def read_pickled_text(data: bytes) -> str:
    """The text in a pickle of one text.

    No unpickler runs: the instructions are listed, and any but those that hold a text are refused. So a
    pickle that would load a class, call a function or claim memory does nothing.

    Raises:
        ValueError: If it is the pickle of anything else.
    """
    texts = []
    for instruction, argument, _ in pickletools.genops(data):
        if instruction.name in _PICKLED_TEXT:
            texts.append(str(argument))
        elif instruction.name not in _PICKLE_FRAME:
            raise ValueError(f"a pickle of a text must not have the instruction {instruction.name}")
    if len(texts) != 1:
        raise ValueError(f"expected the pickle of one text, got {len(texts)} texts")
    return texts[0]


def _contest_day(row: Row) -> date:
    value = row.fields.get("contest_date")
    if isinstance(value, datetime):
        return value.date()
    try:
        return datetime.fromisoformat(row.get("contest_date", str)).date()
    except ValueError as error:
        if isinstance(error, TaskError):
            raise
        raise row.error("contest_date", f"expected an ISO date, got {shown(value)}") from error


def _day(value: str | date | None, default: date) -> date:
    if value is None:
        return default
    return value if isinstance(value, date) else date.fromisoformat(value)


def _of_version(files: list[Path], version: str) -> list[Path]:
    """The files of a version, as the benchmark's own loader names them."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError(f"version must be like 'release_v3', 'v3' or 'v2_v4', got {version!r}")
    last = int(match[2] or match[1])
    first = 1 if version.startswith("release") else int(match[1])
    names = {f"test{number if number > 1 else ''}.jsonl" for number in range(first, last + 1)}
    found = [file for file in files if file.name.removesuffix(".gz") in names]
    if len(found) != len(names):
        raise TaskError(
            f"livecodebench: version {version!r} is {sorted(names)}, found {[file.name for file in found]}"
        )
    return found
