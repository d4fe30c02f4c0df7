"""What was measured about a reward model, as a page, as Markdown and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from codegym.storage import write_json
from prm.bootstrap import Estimate
from prm.evaluation import PRMMetrics
from prm.report.figures import best_of_n, by_group, calibration
from prm.report.page import Picture, Table, number, write_pages
from prm.reranking import Reranking

QUALITY = {
    "local_auc": "local AUC",
    "auc": "AUC",
    "first_error_accuracy": "first-error accuracy",
    "all_right_accuracy": "all-right accuracy",
    "line_accuracy": "line accuracy",
    "brier": "Brier",
    "ece": "ECE",
    "gap": "gap on failing programs",
}
NOTE = (
    "Local AUC counts lines up to and including the first wrong one; late lines are wrong by default and "
    "flatter the plain AUC. The gap is score minus label on programs with a wrong line: above 0, the model "
    "thinks too well of them."
)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that is known about a reward model.

    Attributes:
        model: Its identity.
        metrics: Its quality on labelled programs, and by group.
        reranking: Best of n, if there were candidates.
        hacks: What hack probes add to failing programs: {what is earned: {probe: gain}}.
        samples: Programs to show, from `choose_samples`.
        about: What was measured, by whom and on what: plain JSON.
    """

    model: str
    metrics: PRMMetrics
    reranking: Reranking | None = None
    hacks: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """A JSON-able row of the numbers, without the samples."""
        row = asdict(self)
        del row["samples"]
        return row


def write_evaluation(folder: Path, evaluation: Evaluation) -> Path:
    """Write `evaluation.json`, `report.html`, `report.md` and `plots/*.svg`; returns the HTML's path."""
    write_json(folder / "evaluation.json", evaluation.to_row())
    context = {
        "model": evaluation.model,
        "metrics": evaluation.metrics,
        "pictures": _pictures(evaluation),
        "tables": evaluation_tables(evaluation),
        "samples": evaluation.samples,
        "about": evaluation.about,
    }
    return write_pages(folder, "prm.report", context)


def evaluation_tables(evaluation: Evaluation) -> list[Table]:
    """The report's tables, most wanted first."""
    tables = [_quality_table(evaluation.metrics)]
    tables += [_group_table(name, groups) for name, groups in evaluation.metrics.groups.items()]
    if evaluation.reranking is not None:
        tables += _reranking_tables(evaluation.reranking)
    if evaluation.hacks:
        tables.append(_hack_table(evaluation.hacks))
    return [*tables, _calibration_table(evaluation.metrics)]


def _pictures(evaluation: Evaluation) -> list[Picture]:
    metrics = evaluation.metrics
    pictures = [Picture(title="Calibration", name="calibration", svg=calibration(metrics))]
    for index, (name, groups) in enumerate(metrics.groups.items()):
        # numbered: the name of a grouping need not be one of a file
        pictures.append(Picture(title=f"By {name}", name=f"group_{index}", svg=by_group(groups, name)))
    if evaluation.reranking is not None:
        pictures.append(Picture(title="Best of n", name="best_of_n", svg=best_of_n(evaluation.reranking)))
    return pictures


def _quality_table(metrics: PRMMetrics) -> Table:
    return Table(
        title="Quality",
        head=["measure", "value"],
        rows=[
            ["programs", number(metrics.n_programs)],
            ["lines", number(metrics.n_lines)],
            ["share of right lines", number(metrics.right_lines)],
            *([title, str(getattr(metrics, name))] for name, title in QUALITY.items()),
        ],
        note=NOTE,
    )


def _group_table(name: str, groups: Mapping[str, PRMMetrics]) -> Table:
    return Table(
        title=f"By {name}",
        head=[name, "programs", "lines", *QUALITY.values()],
        rows=[
            [
                group,
                number(metrics.n_programs),
                number(metrics.n_lines),
                *(str(getattr(metrics, key)) for key in QUALITY),
            ]
            for group, metrics in groups.items()
        ],
    )


def _reranking_tables(reranking: Reranking) -> list[Table]:
    sizes = list(reranking.solved["random"])
    head = ["choice", *(f"of {n}" for n in sizes)]
    left_out = f"; {reranking.n_left_out} with fewer are left out" if reranking.n_left_out else ""
    return [
        Table(
            title="Best of n: share of tasks solved",
            head=head,
            rows=[[way, *map(str, row.values())] for way, row in reranking.solved.items()],
            note=f"{reranking.n_tasks} tasks with {reranking.n_programs} programs{left_out}. Expected over "
            "all choices of n and all orders of ties. Majority: most programs agree on all outputs.",
        ),
        Table(
            title="Best of n: share of the gap between random choice and oracle that is closed",
            head=head,
            rows=[[way, *map(str, row.values())] for way, row in reranking.gap_closed.items()],
        ),
    ]


def _hack_table(hacks: Mapping[str, Mapping[str, Estimate]]) -> Table:
    probes = next(iter(hacks.values()))
    return Table(
        title="Hack probes: what they add to failing programs",
        head=["probe", *hacks],
        rows=[[probe, *(str(row[probe]) for row in hacks.values())] for probe in probes],
        note="Above 0, a rewrite that makes no program better earns more. Scores are in [0, 1]; returns are "
        "of the process reward, where a passing program earns about 1.",
    )


def _calibration_table(metrics: PRMMetrics) -> Table:
    return Table(
        title="Calibration",
        head=["mean probability", "share right", "lines"],
        rows=[
            [number(mean), number(share), number(int(count))] for mean, share, count in metrics.calibration
        ],
    )
