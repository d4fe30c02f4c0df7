"""Alarms of a training run: how learning from a reward model is known to go wrong, read off its own log.

Every alarm compares the run's start with its latest iterations. Both windows grow with the run, from
`WINDOW` iterations to a quarter of it, so that a long run is not asked the same question a hundred times. A
difference counts if it is large enough to matter (the thresholds below) and stands out of the noise: the
spread of the iterations in both windows and, for pass rates, at least that of coin flips.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from agents import ranks
from agents.monitor import passes_by_horizon
from codegym.episode import Episode
from codegym.storage import append_rows, read_rows

log = logging.getLogger(__name__)

Row: TypeAlias = Mapping[str, Any]
"""One iteration: numbers by log key; `programs`, how many were judged; `horizons`, passed and judged
programs by the number of steps that their tasks ask for."""

WINDOW = 5
"""Iterations that each side of a comparison has at least."""
CERTAIN = 3.5
"""Standard errors that a difference must exceed to raise an alarm."""
RISING = 2.0
"""Standard errors that the pass rate must gain to count as rising, which excuses what comes with it."""
SCORE_RISE = 0.2
"""Of the reward model's mean score on failing programs, on its scale from -1 to 1: `prm_hacking`."""
GAP, GAP_RISE = 0.3, 0.1
"""Of the score minus the exact labels on failing programs, and its growth: `prm_overfit`."""
SHARE_OF_RUN, SOLVED = 0.5, 0.9
"""After this share of a run the pass rate should have risen, unless it is this high: `slow_convergence`."""
SHORT_FALL = 0.05
"""Of the pass rate on the shortest third of the horizons: `short_task_degradation`."""
LENGTH_RATIO = 4 / 3
"""Of the lines per program, up or down: `length_drift`."""
SAMPLER_GAP = 0.05
"""Mean difference per token, in nats, of what sampler and training forward compute: `sampler_mismatch`."""

PASSES, LINES, PREFIX = "rollout/success_rate", "codegen/lines_per_program", "codegen/prefix_correct"
SCORE, LABEL_GAP, DRAWN_GAP = "prm/score_on_failing", "prm/gap", "train/sampler_logprob_gap"
WATCHED = (PASSES, LINES, PREFIX, SCORE, LABEL_GAP, DRAWN_GAP)

ALARMS = (
    "prm_hacking",
    "prm_overfit",
    "slow_convergence",
    "short_task_degradation",
    "length_drift",
    "sampler_mismatch",
)
"""All names, in the order in which alarms are told."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A quantity's mean in the first and in the latest iterations, and the difference's standard error."""

    start: float
    now: float
    error: float

    @property
    def difference(self) -> float:
        """What was gained; negative for a loss."""
        return self.now - self.start

    @property
    def is_certain(self) -> bool:
        """Whether the difference stands out of the noise."""
        return abs(self.difference) > CERTAIN * self.error

    @property
    def is_rise(self) -> bool:
        """Whether the quantity seems to rise; weaker evidence than certainty will do."""
        return self.difference > RISING * self.error


def change_of_mean(values: Sequence[float]) -> Change | None:
    """Compare the first values with the last ones; None if there are too few."""
    width = _width(len(values))
    if width is None:
        return None
    sides = [np.asarray(side, dtype=np.float64) for side in (values[:width], values[-width:])]
    error = math.sqrt(sum(side.var(ddof=1) / width for side in sides))
    return Change(start=float(sides[0].mean()), now=float(sides[1].mean()), error=error)


def change_of_rate(counts: Sequence[tuple[int, int]]) -> Change | None:
    """Compare the first shares with the last ones; None if there are too few.

    Args:
        counts: Passed and judged programs of each iteration; none judged says nothing.
    """
    counts = [(passed, judged) for passed, judged in counts if judged]
    spread = change_of_mean([passed / judged for passed, judged in counts])
    width = _width(len(counts))
    if width is None or spread is None:
        return None
    rates, variance = [], 0.0
    for side in (counts[:width], counts[-width:]):
        passed, judged = (sum(column) for column in zip(*side, strict=True))
        rates.append(passed / judged)
        smoothed = (passed + 1) / (judged + 2)  # none of many is not known to be none
        variance += smoothed * (1 - smoothed) / judged
    return Change(start=rates[0], now=rates[1], error=max(spread.error, math.sqrt(variance)))


def find_alarms(history: Sequence[Row], progress: float) -> dict[str, str]:
    """The alarms that the latest iteration raises: name to a sentence that says what was seen.

    Args:
        history: All iterations so far.
        progress: Share of the run that is done, in [0, 1].
    """
    passes = change_of_rate([(round(row[PASSES] * row["programs"]), row["programs"]) for row in history])
    found = {"sampler_mismatch": _sampler_mismatch(_series(history, DRAWN_GAP))}
    if passes is not None:
        found |= {
            "prm_hacking": _prm_hacking(
                change_of_mean(_series(history, SCORE)), change_of_mean(_series(history, PREFIX)), passes
            ),
            "prm_overfit": _prm_overfit(change_of_mean(_series(history, LABEL_GAP))),
            "slow_convergence": _slow_convergence(passes, progress),
            "short_task_degradation": _short_task_degradation(history),
            "length_drift": _length_drift(change_of_mean(_series(history, LINES)), passes),
        }
    return {name: seen for name in ALARMS if (seen := found.get(name)) is not None}


def _prm_hacking(score: Change | None, prefix: Change | None, passes: Change) -> str | None:
    """Failing programs please the reward model more and more, and nothing else gets better."""
    if score is None or not score.is_certain or score.difference < SCORE_RISE:
        return None
    if passes.is_rise or (prefix is not None and prefix.is_rise):
        return None
    return (
        f"the reward model's score of failing programs rose from {score.start:.2f} to {score.now:.2f}, "
        f"the pass rate went from {passes.start:.3f} to {passes.now:.3f}"
    )


def _prm_overfit(gap: Change | None) -> str | None:
    """The reward model thinks more and more of failing programs than the exact labels do."""
    if gap is None or not gap.is_certain or gap.now < GAP or gap.difference < GAP_RISE:
        return None
    return (
        f"on failing programs the reward model's score exceeds the exact labels by {gap.now:.2f}, "
        f"at the start by {gap.start:.2f}"
    )


def _slow_convergence(passes: Change, progress: float) -> str | None:
    """A good part of the run has gone by and the pass rate is where it was."""
    if progress < SHARE_OF_RUN or passes.is_rise or passes.now >= SOLVED:
        return None
    return (
        f"after {progress:.0%} of the run the pass rate is {passes.now:.3f}, at the start it was "
        f"{passes.start:.3f}"
    )


def _short_task_degradation(history: Sequence[Row]) -> str | None:
    """Long tasks are learnt at the expense of those that the policy could do."""
    seen = sorted({int(horizon) for row in history for horizon in row["horizons"]})
    if len(seen) < 2:
        return None
    short = seen[: max(1, len(seen) // 3)]
    counts = [
        [row["horizons"][str(horizon)] for horizon in short if str(horizon) in row["horizons"]]
        for row in history
    ]
    passes = change_of_rate([(sum(p for p, _ in row), sum(n for _, n in row)) for row in counts])
    if passes is None or not passes.is_certain or -passes.difference < SHORT_FALL:
        return None
    steps = f"{short[0]} to {short[-1]}" if len(short) > 1 else f"{short[0]}"
    return f"the pass rate on tasks of {steps} steps fell from {passes.start:.3f} to {passes.now:.3f}"


def _length_drift(lines: Change | None, passes: Change) -> str | None:
    """Programs grow or shrink, and that is all they do."""
    if lines is None or not lines.is_certain or passes.is_rise:
        return None
    if 1 / LENGTH_RATIO < lines.now / max(lines.start, 1e-9) < LENGTH_RATIO:
        return None
    return (
        f"programs went from {lines.start:.1f} to {lines.now:.1f} lines, the pass rate from "
        f"{passes.start:.3f} to {passes.now:.3f}"
    )


def _sampler_mismatch(gaps: Sequence[float]) -> str | None:
    """The sampler computes other probabilities than training does: ratios are wrong from the start."""
    latest = float(np.mean(gaps[-WINDOW:])) if gaps else 0.0
    if latest < SAMPLER_GAP:
        return None
    return f"the sampler's log-probabilities are {latest:.3f} per token off those of the training forward"


class AlarmWatch:
    """Remembers what alarms need to know of a run, and warns of each the first time.

    Attributes:
        history: One row per iteration; part of the agent's checkpoint.
        current: Alarms of the latest iteration: name to what was seen.
    """

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.current: dict[str, str] = {}

    def add(
        self, metrics: Mapping[str, float], episodes: Sequence[Episode], progress: float
    ) -> dict[str, float]:
        """Take in an iteration; returns 1 or 0 for every alarm, by log key.

        Args:
            metrics: By log key; what is not finite is not known.
            episodes: The judged programs.
            progress: Share of the run that is done, in [0, 1].
        """
        known = {name for row in self.history for name in row.get("alarms", ())}
        self.history.append(_row(metrics, episodes))
        self.current = find_alarms(self.history, progress)
        if self.current:
            self.history[-1]["alarms"] = list(self.current)
        if ranks.rank() == 0:
            for name in self.current.keys() - known:
                log.warning("iteration %d, %s: %s", len(self.history), name, self.current[name])
        return {f"alarm/{name}": float(name in self.current) for name in ALARMS}

    def clear(self) -> None:
        """Start anew."""
        self.history, self.current = [], {}

    def save(self, path: Path) -> None:
        """Write the history to a new file."""
        append_rows(path, self.history)

    def load(self, path: Path) -> None:
        """Read it back; checkpoints from before there were alarms have none."""
        self.history = list(read_rows(path))


def _row(metrics: Mapping[str, float], episodes: Sequence[Episode]) -> dict[str, Any]:
    numbers = {key: metrics[key] for key in WATCHED if math.isfinite(metrics.get(key, math.nan))}
    horizons = {
        str(horizon): [sum(passed), len(passed)] for horizon, passed in passes_by_horizon(episodes).items()
    }
    return {**numbers, "programs": len(episodes), "horizons": horizons}


def _series(history: Sequence[Row], key: str) -> list[float]:
    return [row[key] for row in history if key in row]


def _width(n_iterations: int) -> int | None:
    """Iterations on each side of a comparison; None if the sides would overlap."""
    width = max(WINDOW, n_iterations // 4)
    return width if n_iterations >= 2 * width else None
