"""Cells: the independent parts of a study, each in a run folder and a process of its own.

A cell is resumed by what exists in its folder, so a study that was interrupted, or killed, goes on when the
same command is given again; a cell that fails does not stop the others.
"""

import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from agents.config import SCALES, PipelineConfig
from agents.pipeline import run_pipeline, run_stage
from agents.progress import progress
from agents.run_folder import RunFolderError, open_run
from agents.stages import Context, Stage
from codegym.render import printable

START = "start"
"""Folder of the run that makes the starting policy of all cells."""


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """What every study is told."""

    scale: Literal["smoke", "small", "full"] = "small"  # seeds, regimes, and the main job's scale
    jobs: int = 2  # cells at a time, one thread of torch each
    cell: str | None = None  # work on this cell alone, for example sparse/0
    start: Path | None = None  # folder of a policy to start from; None: one is made first
    out: Path  # where run folders, rows and report go

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")
        if self.start is not None and not self.start.is_dir():
            raise FileNotFoundError(f"no policy at {self.start}")

    @property
    def start_folder(self) -> Path:
        """Where the starting policy lies, or will."""
        return (self.out / START / "sft" if self.start is None else self.start).resolve()

    def arguments(self) -> list[str]:
        """The command line that says the same, but for `cell` and `jobs`."""
        parts = []
        for name in (f.name for f in fields(self) if f.name not in ("cell", "jobs")):
            value = getattr(self, name)
            if value is not None:
                values = value if isinstance(value, tuple) else (value,)
                parts += [f"--{name}", *map(str, values)]
        return parts


def train_start(options: StudyOptions, console: Console) -> None:
    """Train the policy that every cell starts from, unless there is one."""
    if not options.start_folder.is_dir():
        config = SCALES[options.scale].with_seed()
        run_pipeline(config, options.out / START, stage="sft", console=console)


def run_cells(module: str, options: StudyOptions, cells: Sequence[str], console: Console) -> None:
    """Bring every cell as far as it can go, `jobs` processes at a time.

    Args:
        module: The study's, which runs one cell when it is given `--cell`.
        options: The study's.
        cells: Names of the cells, those to begin with first.
        console: Where progress is drawn.

    Raises:
        RuntimeError: If a cell failed; the others are finished first.
    """
    failed = {}
    with progress("cells", console) as report, ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(run_process, module, options, cell): cell for cell in cells}
        for done, future in enumerate(as_completed(running), start=1):
            if future.result():
                failed[running[future]] = future.result()
            report(done, len(cells))
    if failed:
        raise RuntimeError(
            f"cells failed: {', '.join(sorted(failed))}; the end of each log:\n" + "\n".join(failed.values())
        )


def run_process(module: str, options: StudyOptions, cell: str) -> str:
    """Run one cell in a process of its own; the end of its log if it failed, else nothing."""
    log = options.out / f"{cell.replace('/', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", module, *options.arguments(), "--cell", cell]
    with log.open("a") as file:
        done = subprocess.run(command, stdout=file, stderr=file, check=False)
    end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    return "" if done.returncode == 0 else "\n".join(map(printable, end.splitlines()))


@contextmanager
def open_cell(folder: Path, config: PipelineConfig, links: Sequence[Mapping[str, Path]]) -> Iterator[Context]:
    """Work in a cell's run folder.

    Args:
        folder: The run folder.
        config: Its settings, which the folder must agree with.
        links: Files and folders of other runs that the cell reads as if they were its own, by name, in groups
            that rest on each other: from the first group on of which the cell has made something itself, it
            makes all itself.

    Raises:
        RunFolderError: If the folder belongs to other settings, another process works in it, or what it links
            to is gone.
        FileNotFoundError: If there is nothing to link to.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run = open_run(folder, asdict(config))
    torch.set_num_threads(config.threads)
    with run.locked(), Context(run, config) as context:
        _check_links(folder)
        for group in links:
            if not link_whole(folder, group):
                break
        yield context


def link_whole(folder: Path, links: Mapping[str, Path]) -> bool:
    """Link all of `links`; nothing, and the answer is no, if the folder has something else in a place."""
    places = {folder / name: source.resolve(strict=True) for name, source in links.items()}
    if any(place.exists() and place.resolve() != source for place, source in places.items()):
        return False
    for place, source in places.items():
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(source)
    return True


def _check_links(folder: Path) -> None:
    """Refuse to write through a link to something that is gone: it would come back in another run."""
    for place in (*folder.glob("*"), *folder.glob("*/*")):
        if place.is_symlink() and not place.exists():
            raise RunFolderError(
                f"{place} is a link to {place.readlink()}, which is gone: bring it back, or delete {folder} "
                "to make the cell anew"
            )


def run_missing(context: Context, stages: Mapping[str, Stage]) -> None:
    """Run every stage that has not finished, in order."""
    for name, stage in stages.items():
        if context.run.finished(name) is None:
            run_stage(name, stage, context, Console(stderr=True))
