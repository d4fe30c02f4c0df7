"""What each part of PSGPO adds: arms that differ in one thing, over paired seeds, in two regimes.

Every arm of a seed starts from the same policy, draws the same tasks in the same order and takes the same
number of rollouts and updates. `baseline_long` gets as many more iterations as PSGPO's labels, PRM and pay
cost in seconds, the baseline run that the labels came from included. The arm that stands for PSGPO is
chosen by its pass rate on the validation split, before any test task is read.

A cell is a regime and a seed: a run folder of its own, resumed by what exists. Cells run in processes of
their own, `jobs` at a time.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from agents.config import SCALES, PipelineConfig
from agents.pipeline import run_pipeline, run_stage
from agents.progress import Report, progress
from agents.run_folder import open_run
from agents.stages import STAGES, Context, Stage
from agents.stages.context import Metrics
from agents.stages.evaluate import evaluate_arms
from agents.stages.rl import Arm, train_arm
from benchmarks.ablation_report import CHOICE, choose_arm, write_report
from codegym.table import check_name

SEEDS = {"smoke": 2, "small": 5, "full": 8}
REGIMES: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "smoke": {"sparse": (2, 2), "mixed": (1, 2)},
    "small": {"sparse": (9, 12), "mixed": (2, 12)},
    "full": {"sparse": (9, 12), "mixed": (2, 12)},
}
"""Steps of the training tasks: where the starting policy passes almost never, and of every length."""
START = "start"
ARMS = {
    "sft": None,
    "baseline": None,
    "dense": Arm(name="dense", pays="prm", refresh=True),
    "value": Arm(name="value", critic_init="prm"),
    "both": Arm(name="both", pays="prm", critic_init="prm", refresh=True),
    "no_refresh": Arm(name="no_refresh", pays="prm", critic_init="prm"),
    "oracle": Arm(name="oracle", pays="oracle"),
    "baseline_long": Arm(name="baseline_long"),
}
"""Ways to train, by name; the first two are made by the main job's own stages."""
ARMS_OF = {
    "sparse": tuple(ARMS),
    "mixed": ("sft", "baseline", "both", "oracle", "baseline_long"),
}
CANDIDATES = ("dense", "value", "both")
"""Arms that may stand for PSGPO."""
LABELS = ("collect", "label", "prm")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure what dense reward, value initialisation and both add to the RL baseline."""

    scale: Literal["smoke", "small", "full"] = "small"  # seeds, regimes, and the main job's scale
    jobs: int = 2  # cells at a time, one thread of torch each
    cell: str | None = None  # work on this cell alone, for example sparse/0
    out: Path = Path("runs/benchmarks/ablation")  # where run folders, rows and report go


def main() -> None:
    """Run what has not finished and print the tables."""
    options = tyro.cli(Options, prog="python -m benchmarks.ablation")
    disable_progress_bar()
    cells = [f"{regime}/{seed}" for regime in REGIMES[options.scale] for seed in range(SEEDS[options.scale])]
    if options.cell is not None:
        check_name(options.cell, cells, "cell")
        run_cell(options, options.cell)
        return
    console = Console(stderr=True)
    run_pipeline(start_config(options.scale), options.out / START, stage="sft", console=console)
    run_cells(options, cells, console)
    choice = choose_arm(options.out, CANDIDATES)
    run_cells(options, cells, console)
    buckets = SCALES[options.scale].eval_horizons
    print(write_report(options.out, [cell.split("/") for cell in cells], ARMS_OF, choice, buckets))


def run_cells(options: Options, cells: Sequence[str], console: Console) -> None:
    """Bring every cell as far as it can go, `jobs` processes at a time.

    Raises:
        RuntimeError: If a cell failed; the others are finished first.
    """
    failed = {}
    with progress("cells", console) as report, ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(_run_process, options, cell): cell for cell in cells}
        for done, future in enumerate(as_completed(running), start=1):
            if future.result():
                failed[running[future]] = future.result()
            report(done, len(cells))
    if failed:
        raise RuntimeError(
            f"cells failed: {', '.join(sorted(failed))}; the end of each log:\n" + "\n".join(failed.values())
        )


def _run_process(options: Options, cell: str) -> str:
    """Run one cell in a process of its own; the end of its log if it failed, else nothing."""
    log = options.out / f"{cell.replace('/', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.ablation", "--scale", options.scale]
    with log.open("a") as file:
        done = subprocess.run(
            [*command, "--out", str(options.out), "--cell", cell], stdout=file, stderr=file, check=False
        )
    return "" if done.returncode == 0 else log.read_text()[-2000:]


def start_config(scale: str) -> PipelineConfig:
    """Settings of the run that makes the starting policy of every cell."""
    return SCALES[scale].with_seed()


def cell_config(scale: str, regime: str, seed: int) -> PipelineConfig:
    """Settings of one cell: the main job's, other tasks, another seed, one thread."""
    config = SCALES[scale]
    label = replace(config.label, audited=0)
    return replace(config, seed=seed, rl_horizons=REGIMES[scale][regime], label=label, threads=1).with_seed()


def run_cell(options: Options, cell: str) -> None:
    """Train and validate every arm of a cell; test them once the choice has been made."""
    regime, seed = cell.split("/")
    folder = options.out / cell
    config = cell_config(options.scale, regime, int(seed))
    run = open_run(folder, asdict(config))
    torch.set_num_threads(config.threads)
    with run.locked(), Context(run, config) as context:
        start = folder / "sft"
        if not start.exists():
            start.symlink_to((options.out / START / "sft").resolve())
        for name, stage in stages(regime, chosen=(options.out / CHOICE).exists()).items():
            if run.finished(name) is None:
                run_stage(name, stage, context, Console(stderr=True))


def stages(regime: str, *, chosen: bool) -> dict[str, Stage]:
    """The stages of a cell of that regime, in order; test tasks are read only after the choice."""
    works = {name: Stage(work=STAGES[name].work) for name in ("baseline", *LABELS)}
    for name in ARMS_OF[regime]:
        arm = ARMS[name]
        if arm is not None:
            works[name] = Stage(work=lambda context, report, arm=arm: _train(context, report, arm))
    for split in ("validation", *(["test"] if chosen else [])):
        works[split] = Stage(
            work=lambda context, report, split=split: _evaluate(context, report, split, regime)
        )
    return works


def _train(context: Context, report: Report, arm: Arm) -> Metrics:
    if arm.name == "baseline_long":
        arm = replace(arm, n_iterations=equal_iterations(context))
    return train_arm(context, report, arm)


def equal_iterations(context: Context) -> int:
    """Iterations of the baseline that take as many seconds as all that the arm "both" needed."""
    spent = {
        name: float((context.run.finished(name) or {})["seconds"]) for name in ("baseline", *LABELS, "both")
    }
    return round(context.config.rl.n_iterations * sum(spent.values()) / spent["baseline"])


def _evaluate(context: Context, report: Report, split: str, regime: str) -> Metrics:
    """One program per arm, decoding and task of a split into `SPLIT.jsonl`; all seeds have the same tasks."""
    config = replace(context.config, seed=0)
    loaded = [config.load(split=split, limit=config.eval_tasks, horizons=h) for h in config.eval_horizons]
    tasks = list({task.task_id: task for part in loaded for task in part}.values())
    evaluate_arms(context, ARMS_OF[regime], tasks, context.path / f"{split}.jsonl", report)
    return {"tasks": len(tasks)}


if __name__ == "__main__":
    main()
