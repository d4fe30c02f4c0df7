"""The rows of task files, read alike for every source; errors name file, row and field."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from codegym.errors import TaskError, TaskSourceError

T = TypeVar("T")

SPLITS = ("train", "validation", "test", "prompt")
"""All splits; "prompt" is for few-shot examples, which MBPP has."""

_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
_SPLIT_WORDS = {"train": "train", "valid": "validation", "dev": "validation", "test": "test"}


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
    try:
        text = repr(value)
    except ValueError:
        # Python does not write integers of more than 4,300 digits.
        text = "with a very long integer"
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
