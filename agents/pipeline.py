"""The main job: PSGPO from nothing to a report, stage by stage, resumable by what exists."""

import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from agents.config import PipelineConfig
from agents.progress import Report, progress
from agents.run_folder import RunFolder, open_run
from agents.stages import STAGES, Context, Stage
from codegym.table import check_name


def run_pipeline(
    config: PipelineConfig, out: Path, *, stage: str | None = None, console: Console | None = None
) -> Path:
    """Run every stage that has not finished in `out`, or just `stage`.

    Killed at any moment, the same call goes on from the last finished unit of work.

    Args:
        config: The run's settings; kept in the folder, which refuses others.
        out: The run folder.
        stage: Run this stage alone. It is an error if a stage it reads from has not finished.
        console: Where progress is drawn.

    Returns:
        The HTML report's path.

    Raises:
        RunFolderError: If the folder is not this run's, or another process works in it.
        UnknownNameError: If there is no such stage.
    """
    if stage is not None:
        check_name(stage, STAGES, "stage")
    console = console or Console(stderr=True)
    run = open_run(out, asdict(config))
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    with run.locked(), Context(run, config) as context:
        for name in STAGES if stage is None else [stage]:
            # the report is cheap and shows whatever there is: it is written anew each time
            if run.finished(name) is None or name == "report":
                run_stage(name, STAGES[name], context, console)
    return out / "report.html"


def run_stage(name: str, stage: Stage, context: Context, console: Console) -> None:
    """Run one stage, with its progress shown, and mark it as finished.

    Raises:
        ValueError: If a stage that it reads from has not finished.
    """
    run = context.run
    for needed in stage.needs:
        if run.finished(needed) is None:
            raise ValueError(
                f"stage {name!r} reads what stage {needed!r} writes, which has not finished in {run.path}"
            )
    with progress(name, console) as report:
        clock = _Clock(run, name, report)
        metrics = stage.work(context, clock)
    run.finish(name, seconds=clock.seconds, metrics=metrics)


SECONDS_BETWEEN_RECORDS = 2.0


class _Clock:
    """Passes progress on, and keeps the seconds spent on a stage across interruptions."""

    def __init__(self, run: RunFolder, stage: str, report: Report) -> None:
        self.run, self.stage, self.report = run, stage, report
        self.before = run.spent(stage)
        self.start = self.recorded = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start

    def __call__(self, step: int, total: int, metrics: Mapping[str, Any] | None = None) -> None:
        if time.monotonic() - self.recorded > SECONDS_BETWEEN_RECORDS:
            self.run.record_spent(self.stage, self.seconds)
            self.recorded = time.monotonic()
        self.report(step, total, metrics)
