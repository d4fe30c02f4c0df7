"""Progress of long work: a bar with an ETA on a terminal, a line now and then in a log."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 15.0


class Report(Protocol):
    """Tells how far a piece of work is."""

    def __call__(self, step: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        """`step` of `total` units are done; `metrics` are shown beside."""
        ...


@contextmanager
def progress(title: str, console: Console) -> Iterator[Report]:
    """Show the progress of one stage while the block runs."""
    if console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(title, total=None, note="")

            def show(step: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
                bar.update(task, completed=step, total=total, note=_note(metrics))

            yield show
    else:
        yield _log_lines(title)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def _log_lines(title: str) -> Report:
    start = last = time.monotonic()
    first_step: int | None = None

    def show(step: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        nonlocal last, first_step
        now = time.monotonic()
        if first_step is None:
            first_step = step
        if now - last < SECONDS_BETWEEN_LINES and step < total:
            return
        last = now
        done = step - first_step
        # the first report may come after a resume: only what this process did counts for the ETA
        eta = f"{(total - step) * (now - start) / done:.0f} s" if done > 0 else "?"
        log.info("%s: %d/%d, %.0f s, eta %s %s", title, step, total, now - start, eta, _note(metrics))

    return show


def _note(metrics: Mapping[str, float] | None) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in (metrics or {}).items())
