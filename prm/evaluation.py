"""How good a reward model is at finding the first wrong line, with intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from prm.batching import encode_labeled
from prm.metrics import ScoredLines, calibration_bins, line_metrics, score_lines
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram

Grouping = Callable[[LabeledProgram], str]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 95 % bootstrap interval; all None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        interval = "" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f}{interval}"


@dataclass(frozen=True, kw_only=True)
class PRMMetrics:
    """Quality of a reward model on labelled programs; neutral lines are left out everywhere.

    Attributes:
        n_programs: Programs with at least one line that is right or wrong.
        n_lines: Their lines.
        right_lines: Share of them labelled right.
        local_auc: Does the line's own output tell the first wrong line from the right lines before it? Only
            lines up to and including the first wrong one count, so knowing that late lines are wrong earns
            nothing. A head that rates whole prefixes is given the difference to its score one line earlier
            (+1 before the first), which handicaps it: compare `first_error_accuracy`, where the rule is the
            same for every head.
        auc: Score against label over all lines.
        line_accuracy: Share of lines with score > 0 exactly where the label is.
        first_error_accuracy: Share of programs with a wrong line whose first score below 0 is exactly the
            first wrong line.
        all_right_accuracy: Share of programs without a wrong line that have no score below 0.
        brier: Mean squared error of (score + 1) / 2 as the probability that the program is right so far.
        ece: Expected calibration error of that probability over ten equal bins.
        calibration: Per non-empty bin: mean probability, share of right lines, number of lines.
        groups: The same metrics by group, without intervals: {grouping: {group: metrics}}.
    """

    n_programs: int
    n_lines: int
    right_lines: float | None
    local_auc: Estimate
    auc: Estimate
    line_accuracy: Estimate
    first_error_accuracy: Estimate
    all_right_accuracy: Estimate
    brier: Estimate
    ece: Estimate
    calibration: tuple[tuple[float, float, float], ...] = ()
    groups: Mapping[str, Mapping[str, "PRMMetrics"]] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """A JSON-able row."""
        return asdict(self)


def evaluate_prm(
    model: ProcessRewardModel,
    labeled: Sequence[LabeledProgram],
    *,
    groupings: Mapping[str, Grouping] | None = None,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> PRMMetrics:
    """Measure a reward model on labelled programs, read from their exact tokens.

    Args:
        model: The model.
        labeled: Programs with exact or estimated labels; a label of 0 makes a line neutral.
        groupings: Names to functions that give a program's group, for example its task's horizon; by policy
            if None.
        n_bootstrap: Resamples for the intervals; 0 for none. Tasks are drawn, not programs or lines, because
            the programs of one task are right and wrong together.
        seed: Of the resampling.

    Raises:
        ValueError: If there are no programs.
    """
    if not labeled:
        raise ValueError("there are no labelled programs to evaluate on")
    encoded = [encode_labeled(item, model.newlines) for item in labeled]
    readings = model.read(encoded)

    def lines_of(indices: Sequence[int]) -> ScoredLines:
        chosen = [encoded[i] for i in indices], [readings[i] for i in indices]
        return score_lines(*chosen, per_line=model.line_head.per_line)

    lines = lines_of(range(len(labeled)))
    groupings = {"policy": lambda item: item.program.policy} if groupings is None else groupings
    groups = {
        name: {
            group: _metrics(lines_of([i for i, item in enumerate(labeled) if grouping(item) == group]))
            for group in sorted({grouping(item) for item in labeled})
        }
        for name, grouping in groupings.items()
    }
    intervals = _bootstrap(lines, [item.program.task_id for item in labeled], n_bootstrap, seed)
    return _metrics(lines, intervals, groups)


def _metrics(
    lines: ScoredLines,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    groups: Mapping[str, Mapping[str, PRMMetrics]] | None = None,
) -> PRMMetrics:
    estimates = {}
    for name, value in line_metrics(lines).items():
        low, high = (intervals or {}).get(name, (None, None))
        estimates[name] = Estimate(value=value, low=low, high=high)
    return PRMMetrics(
        n_programs=int(np.sum(~lines.empty)),
        n_lines=len(lines.right),
        right_lines=float(lines.right.mean()) if len(lines.right) else None,
        calibration=calibration_bins(lines),
        groups=groups or {},
        **estimates,
    )


def _bootstrap(
    lines: ScoredLines, task_ids: Sequence[str], n_resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals over tasks drawn with replacement."""
    task_of_program = np.unique(list(task_ids), return_inverse=True)[1]
    n_tasks = int(task_of_program.max()) + 1
    generator = np.random.default_rng(seed)
    samples: dict[str, list[float]] = {}
    for _ in range(n_resamples):
        drawn = np.bincount(generator.integers(n_tasks, size=n_tasks), minlength=n_tasks)
        for name, value in line_metrics(lines, drawn[task_of_program].astype(np.float64)).items():
            if value is not None:
                samples.setdefault(name, []).append(value)
    return {
        name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
        for name, values in samples.items()
    }
