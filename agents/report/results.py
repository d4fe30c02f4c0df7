"""What a finished run measured, read back from its files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from agents.evaluation import EvaluationRow, read_evaluation
from codegym.storage import read_rows

ARM_TITLES = {
    "sft": "SFT",
    "baseline": "RL baseline",
    "psgpo": "PSGPO",
    "oracle": "Oracle-dense",
}


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share with its 95 % Wilson interval."""

    passed: int
    total: int

    @property
    def value(self) -> float:
        """The share, 0 where nothing was counted."""
        return self.passed / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson score interval (scipy); (0, 1) where nothing was counted."""
        if not self.total:
            return (0.0, 1.0)
        interval = binomtest(self.passed, self.total).proportion_ci(confidence_level=0.95, method="wilson")
        return (float(interval.low), float(interval.high))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}]"


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A range of horizons reported together; `low` None is every task."""

    low: int | None
    high: int | None

    @property
    def title(self) -> str:
        """For example "2-4"."""
        return "all" if self.low is None else f"{self.low}-{self.high}"

    def holds(self, row: EvaluationRow) -> bool:
        """Whether the row's task is in the range."""
        if self.low is None or self.high is None:
            return True
        return row.horizon is not None and self.low <= row.horizon <= self.high


@dataclass(frozen=True, kw_only=True)
class Results:
    """A run folder's contents, parsed."""

    config: Mapping[str, Any]
    stages: Sequence[Mapping[str, Any]]
    rows: Sequence[EvaluationRow]
    curves: Mapping[str, Sequence[Mapping[str, Any]]]
    samples: Sequence[Mapping[str, Any]]

    def stage(self, name: str) -> Mapping[str, Any]:
        """Metrics of a finished stage, empty if it did not run."""
        for stage in self.stages:
            if stage["stage"] == name:
                metrics: Mapping[str, Any] = stage["metrics"]
                return metrics
        return {}

    @property
    def arms(self) -> list[str]:
        """Evaluated policies, in the report's order."""
        present = {row.arm for row in self.rows}
        return [arm for arm in ARM_TITLES if arm in present]

    @property
    def buckets(self) -> list[Bucket]:
        """Horizon ranges of the run; one bucket of everything where tasks have no horizon."""
        ranges = self.config.get("eval_horizons") or []
        if not any(row.horizon is not None for row in self.rows):
            return [Bucket(low=None, high=None)]
        return [Bucket(low=low, high=high) for low, high in ranges]

    def rate(self, arm: str, bucket: Bucket, decoding: str) -> Rate:
        """pass@1 of an arm in a bucket."""
        return count_passes(
            row for row in self.rows if row.arm == arm and row.decoding == decoding and bucket.holds(row)
        )


def count_passes(rows: Iterable[EvaluationRow]) -> Rate:
    """Passing programs among `rows`."""
    flags = [row.passed for row in rows]
    return Rate(passed=sum(flags), total=len(flags))


def read_results(folder: Path, stage_order: Sequence[str]) -> Results:
    """Read a run folder; stages that have not finished are absent."""
    markers = [folder / "stages" / f"{name}.json" for name in stage_order]
    samples = folder / "samples.json"
    return Results(
        config=json.loads((folder / "config.json").read_text())["config"],
        stages=[json.loads(marker.read_text()) for marker in markers if marker.exists()],
        rows=read_evaluation(folder / "rows.jsonl"),
        curves={
            arm: list(read_rows(folder / arm / "curve.jsonl"))
            for arm in ARM_TITLES
            if (folder / arm / "curve.jsonl").exists()
        },
        samples=json.loads(samples.read_text()) if samples.exists() else [],
    )
