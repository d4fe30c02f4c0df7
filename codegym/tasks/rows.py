"""From the rows of a file to tasks, alike for every source: errors with row and field, splits, draws."""

import gzip
import json
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from hashlib import blake2b
from heapq import nsmallest
from pathlib import Path
from typing import Any, TypeVar

from codegym.errors import TaskError, TaskSourceError
from codegym.table import check_name
from codegym.task import Task

T = TypeVar("T")

SPLITS = ("train", "validation", "test")
ON_BAD_ROW = ("raise", "skip")

_log = logging.getLogger(__name__)
_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
_SPLIT_WORDS = {"train": "train", "valid": "validation", "dev": "validation", "test": "test"}
_REASONS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a task file and where it stands.

    Attributes:
        source: Name of the task source.
        file: The file, or the name of a data set.
        number: Number of the line or list item, from 1.
        content: The fields, or their JSON text.
        file_split: The split that the file's name tells, if it does.
    """

    source: str
    file: str
    number: int
    content: Mapping[str, Any] | bytes
    file_split: str | None = None

    @cached_property
    def fields(self) -> Mapping[str, Any]:
        """The row's fields.

        Raises:
            TaskSourceError: If the row is no JSON object.
        """
        fields = self.content
        if isinstance(fields, bytes):
            try:
                fields = parse_json(fields.decode())
            except ValueError as error:
                raise self.error(None, f"not JSON ({error})") from error
        if not isinstance(fields, Mapping):
            raise self.error(None, f"expected an object, got {shown(fields)}")
        return fields

    def error(self, field: str | None, problem: str) -> TaskSourceError:
        """The error that names source, file, row and field."""
        place = f", field {field!r}" if field is not None else ""
        return TaskSourceError(f"{self.source}: {self.file}, row {self.number}{place}: {problem}")

    def get(self, field: str, kind: type[T], default: T | None = None) -> T:
        """The value of a field.

        Args:
            field: Its name.
            kind: The type it must have.
            default: What to return if it is missing or null; without one that is an error.

        Raises:
            TaskSourceError: If it is missing or of another type.
        """
        return self._checked(field, self.fields.get(field), kind, default)

    def json(self, field: str, kind: type[T], default: T | None = None) -> T:
        """The value of a field that holds JSON text, or the value itself; an empty text counts as missing."""
        value = self.fields.get(field)
        if isinstance(value, str) and kind is not str:
            try:
                value = parse_json(value) if value.strip() else None
            except ValueError as error:
                raise self.error(field, f"not JSON ({error})") from error
        return self._checked(field, value, kind, default)

    def _checked(self, field: str, value: Any, kind: type[T], default: T | None) -> T:
        if value is None:
            if default is None:
                raise self.error(field, f"missing; expected {kind.__name__}")
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(field, f"expected {kind.__name__}, got {shown(value)}")
        return value

    def texts(self, field: str, default: list[str] | None = None) -> list[str]:
        """The value of a field that holds a list of texts."""
        values = self.get(field, list, default)
        if wrong := [value for value in values if not isinstance(value, str)]:
            raise self.error(field, f"expected a list of str, got {shown(wrong[0])} in it")
        return values

    def metadata(self, *, licence: str | None = None, difficulty: Any = None, **more: Any) -> dict[str, Any]:
        """What a task says about itself: difficulty, what else the source knows, and where it comes from."""
        provenance: dict[str, Any] = {
            "source": self.source,
            "file": self.file,
            "row": self.number,
            "licence": licence,
        }
        return {"difficulty": difficulty, **more, "provenance": provenance}


def parse_json(text: str) -> Any:
    """Parse JSON, integers of any length included.

    Raises:
        ValueError: If it is not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError:
        # Python refuses to read more than 4,300 decimal digits, to be safe from a quadratic algorithm.
        return json.loads(text, parse_int=lambda digits: int(Decimal(digits)))


def shown(value: Any) -> str:
    """A value for an error message: its type, and the beginning of its text."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:60] + '...'}"


def files_of(source: str, path: str | Path) -> list[Path]:
    """The file at `path`, or the JSON and JSON Lines files (also gzipped) of that folder by name.

    Raises:
        TaskError: If there is none.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.name.endswith(_SUFFIXES))
        if not found:
            raise TaskError(f"{source}: no file {', '.join('*' + end for end in _SUFFIXES)} in {path}")
        return found
    if not path.is_file():
        raise TaskError(f"{source}: there is no file or folder {path}")
    return [path]


def read_files(source: str, files: Iterable[Path]) -> Iterator[Row]:
    """Yield the rows of JSON Lines files or JSON lists, gzipped or not, one file after the other.

    Raises:
        TaskSourceError: If a file as a whole cannot be read.
    """
    for file in files:
        try:
            for number, content in _read(file):
                yield Row(
                    source=source,
                    file=str(file),
                    number=number,
                    content=content,
                    file_split=split_of(file.name),
                )
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise TaskSourceError(f"{source}: {file}: damaged gzip file ({error})") from error
        except ValueError as error:
            raise TaskSourceError(f"{source}: {file}: not JSON ({error})") from error


def _read(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.lstrip().startswith(b"["):
                # One list: the lines mean nothing.
                yield from enumerate(parse_json((line + file.read()).decode()), start=1)
                return
            if line.strip():
                yield number, line


def split_of(name: str) -> str | None:
    """The split that a file or a part of a data set is named for, or None."""
    return next((split for word, split in _SPLIT_WORDS.items() if word in name.lower()), None)


def select_tasks(
    rows: Iterable[Row],
    to_task: Callable[[Row], Task | None],
    *,
    splits: Sequence[str] = SPLITS,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_bad_row: str = "raise",
) -> tuple[Task, ...]:
    """Make tasks of rows.

    Args:
        rows: The rows; only the tasks that are returned are held in memory.
        to_task: Makes a task of a row; None for a row that was not asked for.
        splits: The splits that the source has.
        split: Only tasks of this split.
        limit: At most this many, drawn by `seed` and returned in the file's order. Who is drawn depends on
            the task's id alone: the draw of 10 is part of the draw of 20.
        seed: Seed of that draw.
        on_bad_row: "raise", or "skip": bad rows are left out, and a warning says how many and why.

    Raises:
        TaskSourceError: If a row is not a valid task, or has the id of an earlier one.
        TaskError: If no task is left.
        ValueError: If an option has a value that is not known.
    """
    if split is not None:
        check_name(split, list(splits), "split")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    check_name(on_bad_row, ON_BAD_ROW, "on_bad_row")
    stream = _Stream(rows, to_task, skip=on_bad_row == "skip")
    wanted = ((place, task) for place, task in enumerate(stream) if split in (None, task.split))
    if limit is None:
        drawn = list(wanted)
    else:
        drawn = sorted(nsmallest(limit, wanted, key=lambda entry: _lot(seed, entry[1])), key=_place)
    stream.warn()
    if not drawn:
        asked = f" in split {split!r}" if split else ""
        raise TaskError(f"no tasks{asked} in {stream.n_rows} rows, {len(stream.bad)} of them bad")
    return tuple(task for _, task in drawn)


class _Stream:
    """The tasks of rows, one at a time, with a tally of the bad ones."""

    def __init__(self, rows: Iterable[Row], to_task: Callable[[Row], Task | None], *, skip: bool) -> None:
        self._rows = rows
        self._to_task = to_task
        self._skip = skip
        self._ids: set[str] = set()
        self.bad: list[TaskSourceError] = []
        self.n_rows = 0

    def __iter__(self) -> Iterator[Task]:
        for row in self._rows:
            self.n_rows += 1
            try:
                task = self._checked(row)
            except TaskSourceError as error:
                if not self._skip:
                    raise
                self.bad.append(error)
                continue
            if task is not None:
                yield task

    def _checked(self, row: Row) -> Task | None:
        task = self._to_task(row)
        if task is None:
            return None
        if not task.tests:
            raise row.error(None, f"task {task.task_id!r} has no tests")
        if task.task_id in self._ids:
            raise row.error(None, f"the task id {task.task_id!r} occurs a second time")
        self._ids.add(task.task_id)
        return task

    def warn(self) -> None:
        """Log how many rows were skipped, and the first reasons."""
        if self.bad:
            reasons = "; ".join(map(str, self.bad[:_REASONS_SHOWN]))
            more = "; ..." if len(self.bad) > _REASONS_SHOWN else ""
            _log.warning("skipped %d of %d rows: %s%s", len(self.bad), self.n_rows, reasons, more)


def _lot(seed: int, task: Task) -> bytes:
    return blake2b(f"{seed}/{task.task_id}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _place(entry: tuple[int, Task]) -> int:
    return entry[0]
