"""How good a reward model is at finding the first wrong line, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from prm.batching import encode_labeled
from prm.bootstrap import Estimate, bootstrap
from prm.groupings import Grouping, by_policy, in_natural_order
from prm.metrics import ScoredLines, calibration_bins, line_metrics, score_lines
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram

MIN_TASKS = 20
"""Tasks that a group needs for intervals of its own: those of fewer are too narrow to be believed."""


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
        gap: Mean of score minus label (+1 or -1) over the lines of programs with a wrong line: how much too
            well the model thinks of failing programs. It grows when a policy learns to please the model.
        groups: The same metrics by group: {grouping: {group: metrics}}. Where lines are grouped, a program
            counts in the group of its first wrong line, or of its last line if none is wrong.
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
    gap: Estimate
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
        groupings: Names to functions that give a program's group, or one group for each of its lines; see
            `prm.groupings`. By policy if None.
        n_bootstrap: Resamples for the intervals; 0 for none. Tasks are drawn, not programs or lines, because
            the programs of one task are right and wrong together. Groups of fewer than `MIN_TASKS` tasks
            have no intervals.
        seed: Of the resampling.

    Raises:
        ValueError: If there are no programs.
    """
    if not labeled:
        raise ValueError("there are no labelled programs to evaluate on")
    encoded = [encode_labeled(item, model.newlines) for item in labeled]
    lines = score_lines(encoded, model.read(encoded), per_line=model.line_head.per_line)
    task_ids = [item.program.task_id for item in labeled]
    groupings = {"policy": by_policy} if groupings is None else groupings
    groups = {name: _groups(lines, labeled, grouping) for name, grouping in groupings.items()}

    def is_big(chosen: ScoredLines) -> bool:
        return len({task_ids[program] for program in chosen.program}) >= MIN_TASKS

    return replace(
        _metrics(lines, task_ids, n_bootstrap, seed),
        groups={
            name: {
                group: _metrics(chosen, task_ids, n_bootstrap if is_big(chosen) else 0, seed)
                for group, chosen in members.items()
            }
            for name, members in groups.items()
        },
    )


def _metrics(lines: ScoredLines, task_ids: Sequence[str], n_bootstrap: int, seed: int) -> PRMMetrics:
    estimates: dict[str, Any] = bootstrap(
        partial(line_metrics, lines), task_ids, n_resamples=n_bootstrap, seed=seed
    )
    return PRMMetrics(
        n_programs=int(np.sum(~lines.empty)),
        n_lines=len(lines.right),
        right_lines=float(lines.right.mean()) if len(lines.right) else None,
        calibration=calibration_bins(lines),
        **estimates,
    )


def _groups(
    lines: ScoredLines, labeled: Sequence[LabeledProgram], grouping: Grouping
) -> dict[str, ScoredLines]:
    """The lines of each group, by name."""
    found = [grouping(item) for item in labeled]
    of_program = [
        [name] * len(item.labels) if isinstance(name, str) else name
        for item, name in zip(labeled, found, strict=True)
    ]
    places = zip(lines.program, lines.position, strict=True)
    of_line = np.array([of_program[program][position] for program, position in places], dtype=object)
    return {name: lines.only(of_line == name) for name in in_natural_order(list(set(of_line)))}
