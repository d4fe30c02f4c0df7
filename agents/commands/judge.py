"""`codegym judge FILE... --task TASK_ID`: judge files against a task's tests."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from agents.task_lookup import find_task
from codegym.judge import make_judge
from codegym.task import Task
from codegym.verdict import Judgement


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Judge files against a task's tests; exit status 0 if all passed, 1 if not, 2 for bad input."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Whole modules, or with --completion the text after the task's prompt."""
    task: str
    """Task id, for example stepwise/test-2-12-0/17."""
    source: str | None = None
    """Task source; by default the first part of the task's id names it."""
    path: Path | None = None
    """The file or folder of a source that reads files."""
    completion: bool = False
    """The files hold completions: the judged module is the task's prompt and the file."""
    judge: str = "local"
    """Which judge."""
    json: bool = False
    """One JSON object per file instead of a line for people."""


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    options = tyro.cli(JudgeOptions, args=list(argv), prog="codegym judge")
    if not options.files:
        raise ValueError("codegym judge needs at least one FILE")
    texts = [path.read_text(encoding="utf-8") for path in options.files]
    where = {"path": str(options.path)} if options.path is not None else {}
    task = find_task(options.task, options.source, **where)
    sources = [task.assemble(text) if options.completion else text for text in texts]
    with make_judge(options.judge) as judge:
        judgements = judge.judge([(task, source) for source in sources])
    for path, judgement in zip(options.files, judgements, strict=True):
        record = describe(path, task, judgement)
        sys.stdout.write(json.dumps(record) + "\n" if options.json else _for_people(record))
    return 0 if all(judgement.passed for judgement in judgements) else 1


def describe(path: Path, task: Task, judgement: Judgement) -> dict[str, Any]:
    """A judgement as a JSON-able record."""
    return {
        "file": str(path),
        "task_id": task.task_id,
        "verdict": str(judgement.verdict),
        "tests_passed": judgement.tests_passed,
        "tests_total": judgement.tests_total,
        "error_line": judgement.error_line,
        "message": judgement.message,
        "cpu_s": judgement.cpu_s,
        "wall_s": judgement.wall_s,
        "tier": judgement.tier,
    }


def _for_people(record: dict[str, Any]) -> str:
    line = f", line {record['error_line']}" if record["error_line"] else ""
    # repr keeps a hostile message on one line and free of terminal escapes
    message = f": {record['message']!r}" if record["message"] else ""
    return (
        f"{record['file']}: {record['verdict']}, {record['tests_passed']} of {record['tests_total']} tests"
        f"{line}, tier {record['tier']}{message}\n"
    )
