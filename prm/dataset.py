"""Labelled programs in the formats of others: Parquet, and the stepwise-supervision columns."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from codegym.errors import MissingExtraError
from codegym.storage import read_rows, write_text
from codegym.verdict import Verdict
from prm.alignment import Decoder
from prm.collect import TextTokenizer, program_from_text
from prm.program import LabeledProgram, checked_field, checked_items
from prm.segmentation import labels_of_lines

SOURCE = "stepwise_supervision"
"""Source and policy of programs that were read from stepwise-supervision rows."""


def to_stepwise(labels: Iterable[LabeledProgram], tokenizer: Decoder) -> Iterator[dict[str, Any]]:
    """Rows of `prompt`, `completions` (one line each, without its newline) and `labels` (floats).

    Args:
        labels: Labelled programs.
        tokenizer: Decodes the prompts; special tokens are left out.
    """
    for labeled in labels:
        yield {
            "prompt": tokenizer.decode(
                list(labeled.program.prompt_ids),
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            ),
            "completions": labeled.program.lines,
            "labels": list(labeled.labels),
        }


def from_stepwise(rows: Iterable[Mapping[str, Any]], tokenizer: TextTokenizer) -> Iterator[LabeledProgram]:
    """Labelled programs from stepwise-supervision rows, tokenised anew.

    A completion of several lines gives each of them its label. Labels are numbers in [-1, 1] or truth values
    (true is +1, false -1); comment and blank lines become neutral. Such rows know no tests: a program counts
    as passed if none of its labels is negative. Rows with the same prompt belong to the same task.

    Raises:
        ValueError: If a row is not of that form; names row and field.
    """
    for number, row in enumerate(rows, start=1):
        try:
            yield _from_stepwise(number, row, tokenizer)
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from error


def write_stepwise(path: Path, labels: Iterable[LabeledProgram], tokenizer: Decoder) -> None:
    """Write stepwise-supervision rows as JSON Lines."""
    # ASCII escapes: a program may hold lone surrogates
    write_text(path, "".join(json.dumps(row) + "\n" for row in to_stepwise(labels, tokenizer)))


def read_stepwise(path: Path, tokenizer: TextTokenizer) -> list[LabeledProgram]:
    """Read stepwise-supervision rows from JSON Lines.

    Raises:
        ValueError: If a row is not of that form; names file, row and field.
    """
    return _named(path, lambda: list(from_stepwise(read_rows(path), tokenizer)))


def write_parquet(path: Path, labels: Iterable[LabeledProgram]) -> None:
    """Write labelled programs as one Parquet table: a column per field, nothing lost.

    Raises:
        MissingExtraError: If pyarrow is not installed.
        ValueError: If a text holds a lone surrogate, which Parquet cannot spell; names row and field.
    """
    pyarrow, parquet = _pyarrow()
    rows = []
    for number, labeled in enumerate(labels, start=1):
        rows.append(_flat(labeled))
        for name, value in rows[-1].items():
            if isinstance(value, str) and not _is_unicode(value):
                raise ValueError(
                    f"row {number}: field {name!r} holds a lone surrogate, which Parquet cannot spell; "
                    "write JSON Lines instead"
                )
    table = pyarrow.Table.from_pylist(rows, schema=_schema(pyarrow))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    parquet.write_table(table, draft)
    draft.replace(path)


def read_parquet(path: Path) -> list[LabeledProgram]:
    """Read labelled programs from Parquet.

    Raises:
        FileNotFoundError: If there is no such file.
        MissingExtraError: If pyarrow is not installed.
        ValueError: If a row is not a labelled program; names file, row and field.
    """
    _, parquet = _pyarrow()

    def read() -> list[LabeledProgram]:
        rows = parquet.read_table(path).to_pylist()
        return [_from_flat(number, row) for number, row in enumerate(rows, start=1)]

    return _named(path, read)


_PROGRAM_FIELDS = (
    "program_id", "task_id", "policy", "prompt_ids", "token_ids",
    "completion", "finished", "verdict", "results",
)  # fmt: skip


def _flat(labeled: LabeledProgram) -> dict[str, Any]:
    row = labeled.to_row()
    probes = [{"lines": m, "passed": k, "tried": n} for m, (k, n) in labeled.probes.items()]
    cost = [{"what": what, "amount": float(amount)} for what, amount in labeled.cost.items()]
    return {**row.pop("program"), **row, "probes": probes, "cost": cost}


def _from_flat(number: int, row: Mapping[str, Any]) -> LabeledProgram:
    rest = {name: value for name, value in row.items() if name not in _PROGRAM_FIELDS}
    try:
        if missing := [name for name in ("probes", "cost") if not isinstance(rest.get(name), list)]:
            raise ValueError(f"program {row.get('program_id')!r}: field {missing[0]!r} must be a list")
        rest["probes"] = {str(p["lines"]): [p["passed"], p["tried"]] for p in rest["probes"]}
        rest["cost"] = {c["what"]: c["amount"] for c in rest["cost"]}
        program = {name: row[name] for name in _PROGRAM_FIELDS if name in row}
        return LabeledProgram.from_row({"program": program, **rest})
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from error


def _schema(pyarrow: Any) -> Any:
    text, whole, number, flag = pyarrow.string(), pyarrow.int32(), pyarrow.float64(), pyarrow.bool_()
    probe = pyarrow.struct({"lines": whole, "passed": whole, "tried": whole})
    amount = pyarrow.struct({"what": text, "amount": number})
    return pyarrow.schema(
        {
            "program_id": text,
            "task_id": text,
            "policy": text,
            "prompt_ids": pyarrow.list_(whole),
            "token_ids": pyarrow.list_(whole),
            "completion": text,
            "finished": flag,
            "verdict": text,
            "results": pyarrow.list_(flag),
            "labels": pyarrow.list_(number),
            "source": text,
            "completer": text,
            "probes": pyarrow.list_(probe),
            "cost": pyarrow.list_(amount),
            "seconds": number,
        }
    )


def _from_stepwise(number: int, row: Mapping[str, Any], tokenizer: TextTokenizer) -> LabeledProgram:
    prompt = checked_field(row, "prompt", str)
    completions = checked_items(row, "completions", str)
    given = checked_items(row, "labels", float, int, bool)
    if len(completions) != len(given):
        raise ValueError(f"{len(completions)} completions but {len(given)} labels")
    values = [(1.0 if value else -1.0) if type(value) is bool else float(value) for value in given]
    if wrong := [value for value in values if not -1.0 <= value <= 1.0]:
        raise ValueError(f"field 'labels' must be in [-1, 1], got {wrong[0]}")
    lines, ends = [], []
    for text in completions:
        lines += text.removesuffix("\n").split("\n")
        ends.append(len(lines) - 1)
    passed = all(value >= 0 for value in values)
    digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    program = program_from_text(
        tokenizer,
        program_id=f"{SOURCE}/{digest}/{number}",
        task_id=f"{SOURCE}/{digest}",
        policy=SOURCE,
        prompt=prompt,
        completion="".join(f"{line}\n" for line in lines),
        verdict=Verdict.PASSED if passed else Verdict.WRONG_ANSWER,
        results=(passed,),
    )
    return LabeledProgram(program=program, labels=labels_of_lines(lines, ends, values), source=SOURCE)


def _named(path: Path, read: Callable[[], list[LabeledProgram]]) -> list[LabeledProgram]:
    try:
        return read()
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from error


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Parquet needs the package {error.name!r}: pip install 'codegym[parquet]'"
        ) from error
