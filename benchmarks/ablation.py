"""What each part of PSGPO adds: arms that differ in one thing, over paired seeds, in two regimes.

Every arm of a seed starts from the same policy, draws the same tasks in the same order and takes the same
number of rollouts and updates. `baseline_long` gets as many more iterations as PSGPO's labels, PRM and pay
cost in seconds, the baseline run included where the labels came from it. The arm that stands for PSGPO is
chosen by its pass rate on the validation split, before any test task is read.

A cell is a regime and a seed. `benchmarks.sensitivity` goes on from the cells of the sparse regime.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from rich.console import Console
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from agents.config import SCALES, LabelPolicies, PipelineConfig
from agents.progress import Report
from agents.stages import STAGES, Context, Stage
from agents.stages.context import Metrics
from agents.stages.evaluate import evaluate_arms
from agents.stages.rl import Arm, train_arm
from benchmarks.ablation_report import CHOICE, choose_arm, write_report
from benchmarks.study.cells import StudyOptions, open_cell, run_cells, run_missing, train_start
from codegym.table import check_name
from codegym.task import Task

SEEDS = {"smoke": 2, "small": 5, "full": 8}
ITERATIONS = {"smoke": 4, "small": 20, "full": 60}
"""Of every arm but the long baseline."""
REGIMES: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "smoke": {"sparse": (2, 2), "mixed": (1, 2)},
    "small": {"sparse": (9, 12), "mixed": (2, 12)},
    "full": {"sparse": (9, 12), "mixed": (2, 12)},
}
"""Steps of the training tasks: where the starting policy passes almost never, and of every length."""
ARMS = {
    "sft": None,
    "baseline": None,
    "dense": Arm(name="dense", pays="prm", refresh=True),
    "value": Arm(name="value", critic_init="prm"),
    "both": Arm(name="both", pays="prm", critic_init="prm", refresh=True),
    "oracle": Arm(name="oracle", pays="oracle"),
    "baseline_long": Arm(name="baseline_long"),
}
"""Ways to train, by name; the first two are made by the main job's own stages."""
ARMS_OF = {
    "sparse": tuple(ARMS),
    "mixed": ("sft", "baseline", "both", "oracle", "baseline_long"),
}
LABELLED: Mapping[str, LabelPolicies] = {"sparse": "start", "mixed": "checkpoints"}
"""Whose programs the reward model learns from. A baseline that hardly ever passes stays where it starts, so
in the sparse regime its run is not needed; the start writes as many programs as its checkpoints would."""
CANDIDATES = ("dense", "value", "both")
"""Arms that may stand for PSGPO."""
LABELS = ("collect", "label", "prm")
OUT = Path("runs/benchmarks/ablation")


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Measure what dense reward, value initialisation and both add to the RL baseline."""

    out: Path = OUT
    regimes: tuple[str, ...] | None = None  # only these; sparse among them, where the arm is chosen

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.regimes or ():
            check_name(name, REGIMES[self.scale], "regime")
        if self.regimes is not None and "sparse" not in self.regimes:
            raise ValueError(f"regimes must include 'sparse', got {self.regimes}")


def main() -> None:
    """Run what has not finished and print the tables."""
    options = tyro.cli(Options, prog="python -m benchmarks.ablation")
    disable_progress_bar()
    cells, console = cell_names(options.scale, options.regimes), Console(stderr=True)
    if options.cell is not None:
        check_name(options.cell, cells, "cell")
    train_start(options, console)
    if options.cell is not None:
        run_cell(options, options.cell)
        return
    run_cells("benchmarks.ablation", options, cells, console)
    choice = choose_arm(options.out, [cell for cell in cells if cell.startswith("sparse/")], CANDIDATES)
    run_cells("benchmarks.ablation", options, cells, console)
    config = cell_config(options.scale, "sparse", 0)
    print(write_report(options.out, cells, ARMS_OF, choice, config, reference_tokens(options, config)))


def cell_names(scale: str, regimes: Sequence[str] | None = None) -> list[str]:
    """All cells, seed by seed: a study that is cut short has whole seeds of every regime."""
    return [f"{regime}/{seed}" for seed in range(SEEDS[scale]) for regime in regimes or REGIMES[scale]]


def cell_config(scale: str, regime: str, seed: int) -> PipelineConfig:
    """Settings of one cell: the main job's, other tasks, another length and seed, one thread."""
    config, policies = SCALES[scale], LABELLED[regime]
    draws = config.label.programs_per_task * (config.label.checkpoints if policies == "start" else 1)
    return replace(
        config,
        seed=seed,
        threads=1,
        rl_horizons=REGIMES[scale][regime],
        rl=replace(config.rl, n_iterations=ITERATIONS[scale]),
        label=replace(config.label, audited=0, policies=policies, programs_per_task=draws),
    ).with_seed()


def run_cell(options: StudyOptions, cell: str) -> None:
    """Train and validate every arm of a cell; test them once the choice has been made."""
    regime, seed = cell.split("/")
    config = cell_config(options.scale, regime, int(seed))
    with open_cell(options.out / cell, config, [{"sft": options.start_folder}]) as context:
        run_missing(context, stages(regime, chosen=(options.out / CHOICE).exists()))


def stages(regime: str, *, chosen: bool) -> dict[str, Stage]:
    """The stages of a cell of that regime, in order; test tasks are read only after the choice."""
    works = {name: Stage(work=STAGES[name].work) for name in ("baseline", *LABELS)}
    for name in ARMS_OF[regime]:
        arm = ARMS[name]
        if arm is not None:
            works[name] = Stage(work=lambda context, report, arm=arm: _train(context, report, arm))
    if regime == "sparse":
        works["validation"] = Stage(work=_validate)
    if chosen:
        works["test"] = Stage(work=lambda context, report: _test(context, report, regime))
    return works


def _train(context: Context, report: Report, arm: Arm) -> Metrics:
    if arm.name == "baseline_long":
        arm = replace(arm, n_iterations=equal_iterations(context))
    return train_arm(context, report, arm)


def equal_iterations(context: Context) -> int:
    """Iterations of the baseline that take as many seconds as all that the arm "both" needed."""
    needed = (*LABELS, "both")
    if context.config.label.policies == "checkpoints":
        needed = ("baseline", *needed)
    seconds = {name: float((context.run.finished(name) or {})["seconds"]) for name in ("baseline", *needed)}
    total = sum(seconds[name] for name in needed)
    return round(context.config.rl.n_iterations * total / seconds["baseline"])


def _validate(context: Context, report: Report) -> Metrics:
    """Sampled programs of the candidates on validation tasks like those they trained on."""
    config = replace(context.config, seed=0)
    tasks = config.load(split="validation", limit=config.eval_tasks, horizons=config.rl_horizons)
    path = context.path / "validation.jsonl"
    evaluate_arms(context, CANDIDATES, tasks, path, report, decodings=("sampled",))
    return {"tasks": len(tasks)}


def _test(context: Context, report: Report, regime: str) -> Metrics:
    """One program per arm, decoding and test task; all seeds have the same tasks."""
    tasks = test_tasks(context.config)
    evaluate_arms(context, ARMS_OF[regime], tasks, context.path / "test.jsonl", report)
    return {"tasks": len(tasks)}


def test_tasks(config: PipelineConfig) -> list[Task]:
    """The test tasks of every seed, those of few steps first."""
    shared = replace(config, seed=0)
    loaded = [shared.load(split="test", limit=shared.eval_tasks, horizons=h) for h in shared.eval_horizons]
    return list({task.task_id: task for part in loaded for task in part}.values())


def reference_tokens(options: StudyOptions, config: PipelineConfig) -> dict[str, int]:
    """Tokens of each test task's reference, as the starting policy's tokenizer cuts it."""
    tokenizer = AutoTokenizer.from_pretrained(options.start_folder)
    return {task.task_id: len(tokenizer.encode(task.reference or "")) for task in test_tasks(config)}


if __name__ == "__main__":
    main()
