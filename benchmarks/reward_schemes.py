"""Every reward scheme under the same agent: what does it teach, and what does it teach to game?

All arms of a seed start from the same policy and take the same tasks, rollouts and updates, on tasks of every
length; only what a program earns differs. Schemes that read scores of lines get those of one reward model,
which is not refreshed, so that its weaknesses show. Length and syntax are added to the verdict: alone they
teach nothing. Hard tests weigh more in `weighted`: the weights come from the programs of the baseline's
checkpoints, which the reward model has learnt from too.

A cell is a seed. Starting policy, baseline and reward model are those of the ablation's mixed regime, as far
as it has made them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from agents.progress import Report
from agents.stages import STAGES, Context, Stage
from agents.stages.context import Metrics
from agents.stages.evaluate import evaluate_arms
from agents.stages.labels import PROGRAMS, read_programs
from agents.stages.rl import Arm, train_arm
from benchmarks.ablation import LABELS, cell_config, test_tasks
from benchmarks.scheme_report import write_report
from benchmarks.study.base import ContinuingOptions, finished_links
from benchmarks.study.cells import open_cell, run_cells, run_missing, train_start
from codegym.rewards.assignment import FORMS
from codegym.rewards.outcome import difficulty_weights
from codegym.table import check_name

REGIME = "mixed"
SEEDS = {"smoke": 1, "small": 2, "full": 5}
CAPPED = {"sum": 0.95, "clip": 0.95}
"""Forms without a bound get one here: else a failing program may earn more than a passing one."""


def shaped(name: str) -> Arm:
    """The verdict plus a scheme that does not read it."""
    schemes = [{"name": "pass_fail"}, {"name": name}]
    return Arm(name=name, scheme="compose", scheme_options={"schemes": schemes})


def process_arms() -> list[Arm]:
    """One arm per form of the process reward, paid for whole statements too, and potential shaping."""
    forms = [
        Arm(name=f"process_{form}", pays="prm", scheme="process", scheme_options=options(form))
        for form in FORMS
    ]
    statement = {"form": "progress", "unit": "statement"}
    return [
        *forms,
        Arm(name="process_statement", pays="prm", scheme="process", scheme_options=statement),
        Arm(name="potential", pays="prm", scheme="potential"),
    ]


def options(form: str) -> dict[str, object]:
    """Options of a form: its own defaults, and a bound where it has none."""
    return {"form": form, **({"cap": CAPPED[form]} if form in CAPPED else {})}


ARMS = {
    arm.name: arm
    for arm in (
        *(Arm(name=name, scheme=name) for name in ("pass_rate", "weighted", "coderl", "rltf")),
        *process_arms(),
        *(shaped(name) for name in ("length", "syntax")),
    )
}
"""Ways to pay, by name; `pass_fail` is the baseline's."""
AT_LEAST = ("process_progress", "process_mean")
"""Kinds of process reward that are trained at scale small; all are at full."""
SMOKE = ("pass_rate", "process_progress", "length")


@dataclass(frozen=True, kw_only=True)
class Options(ContinuingOptions):
    """Train with every reward scheme and compare what comes of it; what `base` lacks is made anew."""

    out: Path = Path("runs/benchmarks/reward_schemes")


def main() -> None:
    """Run what has not finished and print the tables."""
    options = tyro.cli(Options, prog="python -m benchmarks.reward_schemes")
    disable_progress_bar()
    cells, console = [str(seed) for seed in range(SEEDS[options.scale])], Console(stderr=True)
    if options.cell is not None:
        check_name(options.cell, cells, "cell")
    train_start(options, console)
    if options.cell is not None:
        run_cell(options, options.cell)
        return
    run_cells("benchmarks.reward_schemes", options, cells, console)
    config = cell_config(options.scale, REGIME, 0)
    folders = [options.out / cell for cell in cells]
    print(write_report(options.out, folders, ["sft", "baseline", *arms_of(options.scale)], config))


def arms_of(scale: str) -> Sequence[str]:
    """The arms of a scale."""
    if scale == "smoke":
        return SMOKE
    if scale == "full":
        return tuple(ARMS)
    return tuple(name for name, arm in ARMS.items() if arm.scheme != "process" or name in AT_LEAST)


def run_cell(options: Options, cell: str) -> None:
    """Train and test every arm of a seed."""
    config = cell_config(options.scale, REGIME, int(cell))
    links = finished_links(options.base / REGIME / cell, config, "prm")
    with open_cell(options.out / cell, config, [{"sft": options.start_folder}, *links]) as context:
        run_missing(context, stages(options.scale))


def stages(scale: str) -> dict[str, Stage]:
    """The stages of a cell, in order."""
    works = {name: Stage(work=STAGES[name].work) for name in ("baseline", *LABELS)}
    for name in arms_of(scale):
        works[name] = Stage(work=lambda context, report, arm=ARMS[name]: _train(context, report, arm))
    works["test"] = Stage(work=lambda context, report: _test(context, report, scale))
    return works


def _train(context: Context, report: Report, arm: Arm) -> Metrics:
    if arm.name == "weighted":
        tasks = {task.task_id: task for task in context.train_tasks}
        programs = read_programs(context.path / PROGRAMS)
        weights = difficulty_weights([program.episode(tasks[program.task_id]) for program in programs])
        arm = replace(arm, scheme_options={"weights": weights})
    return train_arm(context, report, arm)


def _test(context: Context, report: Report, scale: str) -> Metrics:
    tasks = test_tasks(context.config)
    arms = ["sft", "baseline", *arms_of(scale)]
    evaluate_arms(context, arms, tasks, context.path / "test.jsonl", report)
    return {"tasks": len(tasks)}


if __name__ == "__main__":
    main()
