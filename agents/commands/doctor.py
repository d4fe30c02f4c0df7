"""`codegym doctor --tasks SOURCE [--reward NAME]`: examine tasks and a reward scheme before training."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from agents.commands.tasks import json_object
from agents.progress import progress
from codegym.doctor import CHECKS, Diagnosis, Severity, examine
from codegym.errors import CodegymError
from codegym.judge import make_judge
from codegym.rewards import make_scheme
from codegym.task import Task
from codegym.tasks import load_tasks

BENCHMARKS = ("humaneval", "mbpp")
LINES_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Examine a task set and a reward scheme before anyone trains on them.

    Exit status 0 if all is well, 1 if there are findings, 2 for bad input.
    """

    tasks: str
    """A task source, or a JSON Lines file of tasks."""
    reward: str | None = None
    """A reward scheme, to see what hack probes earn under it."""
    reward_options: str = "{}"
    """Its arguments as a JSON object: '{"prm": "runs/psgpo/prm"}'."""
    path: Path | None = None
    """The file or folder of a source that reads files."""
    options: str = "{}"
    """More arguments of the source, as a JSON object."""
    splits: tuple[str, ...] = ()
    """Load these splits one by one; by default what the source loads by itself."""
    limit: int | None = None
    """At most this many tasks of each split."""
    seed: int = 0
    """Seed of a procedural source; of the draw, for the others."""
    checks: tuple[str, ...] = tuple(CHECKS)
    """Run only these checks."""
    benchmarks: tuple[str, ...] = BENCHMARKS
    """Task sources whose test tasks must not be trained on; those that cannot be loaded are named."""
    judge: str = "local"
    """Which judge."""
    time_limit: float = 1.0
    """CPU seconds per program, all its tests together."""
    imports: tuple[str, ...] = ()
    """Packages that programs may import."""
    repeats: int = 5
    """How often each reference is judged."""
    n_probed: int = 64
    """On how many tasks hack probes are tried."""
    fail_on: Literal["warning", "error"] = "warning"
    """The least severity that makes the exit status 1."""
    json: bool = False
    """One JSON object with every finding instead of text for people."""


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    options = tyro.cli(DoctorOptions, args=list(argv), prog="codegym doctor")
    scheme_options = json_object("--reward-options", options.reward_options)
    scheme = make_scheme(options.reward, **scheme_options) if options.reward is not None else None
    tasks = load(options)
    benchmarks, missing = load_benchmarks(options.benchmarks)
    with (
        make_judge(options.judge, time_limit_s=options.time_limit, imports=options.imports) as judge,
        progress("doctor", Console(stderr=True)) as report,
    ):
        diagnosis = examine(
            tasks,
            judge=judge,
            scheme=scheme,
            benchmarks=benchmarks,
            checks=options.checks,
            time_limit_s=options.time_limit,
            repeats=options.repeats,
            n_probed=options.n_probed,
            progress=report,
        )
    about = {"tasks": options.tasks, "reward": options.reward, "benchmarks_missing": missing}
    record = about | diagnosis.to_json()
    sys.stdout.write(json.dumps(record) + "\n" if options.json else show(record, diagnosis))
    warnings = diagnosis.count(Severity.WARNING) if options.fail_on == "warning" else 0
    return 1 if diagnosis.count(Severity.ERROR) + warnings else 0


def load(options: DoctorOptions) -> list[Task]:
    """The tasks to examine, of all splits that were asked for.

    Raises:
        CodegymError: If they cannot be loaded.
    """
    source, more = options.tasks, json_object("--options", options.options)
    if options.path is not None:
        more["path"] = str(options.path)
    elif Path(source).suffix == ".jsonl":
        source, more["path"] = "jsonl", source
    found: list[Task] = []
    for split in options.splits or (None,):
        found += load_tasks(source, split=split, limit=options.limit, seed=options.seed, **more)
    return found


def load_benchmarks(names: Sequence[str]) -> tuple[dict[str, Sequence[Task]], dict[str, str]]:
    """The benchmarks that can be loaded, and why the others cannot."""
    loaded: dict[str, Sequence[Task]] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            loaded[name] = load_tasks(name)
        except CodegymError as error:
            missing[name] = str(error)
    return loaded, missing


def show(record: dict[str, Any], diagnosis: Diagnosis) -> str:
    """The diagnosis as text for people: the worst findings of each check, and what the probes earn."""
    without = diagnosis.n_tasks - diagnosis.n_references
    lines = [f"{record['tasks']}: {diagnosis.n_tasks} tasks, {without} of them without a reference"]
    for name, found in diagnosis.findings.items():
        errors = sum(finding.severity is Severity.ERROR for finding in found)
        lines.append(f"{name}: {errors} errors, {len(found) - errors} warnings" if found else f"{name}: fine")
        lines += [f"  {f.severity} {f.task_id!r}: {f.message}" for f in found[:LINES_SHOWN]]
        if len(found) > LINES_SHOWN:
            lines.append(f"  ... and {len(found) - LINES_SHOWN} more (--json has them all)")
    lines += [f"not compared with {name}: {why}" for name, why in record["benchmarks_missing"].items()]
    if diagnosis.gains:
        lines.append(f"what hack probes add to the return of failing programs under {record['reward']}:")
        width = max(map(len, diagnosis.gains))
        lines += [f"  {name:<{width}}  {gain:+.4f}" for name, gain in sorted(diagnosis.gains.items())]
    return "\n".join(lines) + "\n"
