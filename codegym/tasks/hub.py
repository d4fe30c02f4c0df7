"""Any data set that the package `datasets` can load: in one of the known formats, or by a map of columns.

    load_tasks("hub", dataset="codeparrot/apps", format="apps", split="test", limit=100)
    load_tasks("hub", dataset="me/mine", columns={"prompt": "q", "tests": "asserts", "entry_point": "fn"})

`columns` maps our fields to the data set's columns. Needed are prompt with tests and entry_point, or prompt
with stdin and stdout; task_id, reference, difficulty and split are not. `tests` is a source of assertions, or
a list of them; stdin and stdout are texts, or lists of the same length. Needs the extra `datasets`; a data
set's own code is never run. `dataset` may be a folder: of data files, or written by `save_to_disk`.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from codegym.errors import MissingExtraError
from codegym.table import check_name, check_options, resolve
from codegym.task import AssertionTest, StdioTest, Task, TestCase
from codegym.tasks.prompts import check_python, problem_prompt, whole_lines
from codegym.tasks.rows import Row, split_of
from codegym.tasks.selection import select_tasks

FORMATS = {
    "apps": "codegym.tasks.apps:to_task",
    "codecontests": "codegym.tasks.codecontests:to_task",
    "humaneval": "codegym.tasks.humaneval:to_task",
    "jsonl": "codegym.tasks.jsonl:to_task",
    "livecodebench": "codegym.tasks.livecodebench:to_task",
    "mbpp": "codegym.tasks.mbpp:to_task",
    "taco": "codegym.tasks.taco:to_task",
}
COLUMNS = (
    "task_id",
    "prompt",
    "entry_point",
    "tests",
    "stdin",
    "stdout",
    "reference",
    "difficulty",
    "split",
)


def load(
    *,
    dataset: str | Path,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    config: str | None = None,
    revision: str | None = None,
    part: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_bad_row: str = "raise",
    **options: Any,
) -> tuple[Task, ...]:
    """Load a data set of the Hugging Face hub, or a folder.

    Args:
        dataset: Its name on the hub, or a folder.
        format: A name in `FORMATS`; either this or `columns`.
        columns: Our fields to its columns.
        config: The data set's configuration, if it has several.
        revision: Commit, branch or tag; a commit keeps results repeatable.
        part: Read only this one of its own splits; the others are not downloaded.
        split: Only tasks of this split, "train", "validation" or "test"; all by default.
        limit: At most this many tasks.
        seed: Which ones are drawn then.
        on_bad_row: "raise" or "skip".
        options: What the format's `to_task` takes, for example `max_tests` of "apps".

    Raises:
        MissingExtraError: If the package `datasets` is not installed.
        TaskSourceError: If a row is not a valid task.
        ValueError: If not exactly one of `format` and `columns` is given, or a field is unknown.
    """
    if (format is None) == (columns is None):
        raise ValueError(f"give either format or columns, got {format=} and {columns=}")
    if format is not None:
        to_task = resolve(FORMATS, format, "format")
    else:
        to_task = partial(_mapped, columns=_checked(columns or {}))
    check_options(partial(to_task, None), options, f"option of format {format!r}" if format else "option")
    rows = _rows(str(dataset), config, revision, part)
    to_task = partial(to_task, **options)
    return select_tasks(rows, to_task, split=split, limit=limit, seed=seed, on_bad_row=on_bad_row)


def _checked(columns: Mapping[str, str]) -> Mapping[str, str]:
    for field in columns:
        check_name(field, COLUMNS, "field")
    if "prompt" not in columns or not ("tests" in columns or {"stdin", "stdout"} <= columns.keys()):
        raise ValueError(f"columns must map prompt, and tests or stdin and stdout, got {sorted(columns)}")
    return columns


def _rows(dataset: str, config: str | None, revision: str | None, part: str | None) -> Iterator[Row]:
    parts = _parts(dataset, config, revision, part)
    for name, rows in parts.items():
        for number, content in enumerate(rows, start=1):
            yield Row(
                source="hub",
                file=f"{dataset}:{name}",
                number=number,
                content=content,
                file_split=split_of(name),
            )


def _parts(dataset: str, config: str | None, revision: str | None, part: str | None) -> dict[str, Any]:
    """The data set's own splits by name."""
    if find_spec("datasets") is None:
        raise MissingExtraError(
            "task source 'hub' needs the package 'datasets' (pip install 'codegym[datasets]')"
        )
    import datasets

    folder = Path(dataset).expanduser()
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        loaded = datasets.load_from_disk(str(folder))
    else:
        name = str(folder) if folder.is_dir() else dataset
        loaded = datasets.load_dataset(name, config, revision=revision, split=part)
    parts = loaded if isinstance(loaded, Mapping) else {str(loaded.split or part or "train"): loaded}
    if part is not None:
        check_name(part, list(parts), "part")
    return {str(name): rows for name, rows in parts.items() if part in (None, name)}


def _mapped(row: Row, *, columns: Mapping[str, str]) -> Task:
    """Make a task by a map of columns."""
    tests = _assertions(row, columns["tests"]) if "tests" in columns else _stdio(row, columns)
    entry = row.get(columns["entry_point"], str) if "entry_point" in columns else None
    if entry is None and "tests" in columns:
        raise row.error("entry_point", "assertions need it; map it to a column")
    part = row.file.rpartition(":")[2]
    task_id = str(row.fields.get(columns["task_id"])) if "task_id" in columns else f"{part}/{row.number}"
    reference = row.get(columns["reference"], str, "") if "reference" in columns else ""
    return Task(
        task_id=f"hub/{task_id}",
        prompt=problem_prompt(row.get(columns["prompt"], str)),
        entry_point=entry,
        tests=tuple(tests),
        split=row.get(columns["split"], str) if "split" in columns else row.file_split or "train",
        reference=whole_lines(reference) if reference.strip() else None,
        metadata=row.metadata(
            difficulty=row.fields.get(columns["difficulty"]) if "difficulty" in columns else None
        ),
    )


def _assertions(row: Row, column: str) -> list[TestCase]:
    sources = _texts(row, column)
    for source in sources:
        check_python(row, column, source)
    return [AssertionTest(code=source) for source in sources]


def _stdio(row: Row, columns: Mapping[str, str]) -> list[TestCase]:
    given, wanted = _texts(row, columns["stdin"]), _texts(row, columns["stdout"])
    if len(given) != len(wanted):
        raise row.error(columns["stdout"], f"{len(wanted)} outputs for {len(given)} inputs")
    return [
        StdioTest(stdin=stdin, stdout=stdout, comparison="numbers")
        for stdin, stdout in zip(given, wanted, strict=True)
    ]


def _texts(row: Row, column: str) -> list[str]:
    return [row.get(column, str)] if isinstance(row.fields.get(column), str) else row.texts(column)
