"""How much each choice of the method matters where it pays: variants of PSGPO in the sparse regime.

A variant differs from the arm "both" of the ablation in one thing: the form of the dense reward, its weight,
the head, the labels' source and their K and temperature, the number of checkpoints, the selection, the size
of the reward model, the refresh. It takes over what the ablation's cell has made up to that point and makes
the rest anew. Labels by completion cost too much to refresh with, so they are compared on the programs of the
last checkpoint alone, without refresh, with exact labels of the same programs (`few_exact`).

A cell is a seed; `both` and the baseline beside it are read from the ablation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from agents.checkpoint import whole_folder
from agents.config import PipelineConfig
from agents.progress import Report
from agents.stages import STAGES, Context, Stage
from agents.stages.context import Metrics
from agents.stages.evaluate import evaluate_arms
from agents.stages.prm import train_reward_model
from agents.stages.rl import Arm, train_arm
from benchmarks.ablation import ARMS as ABLATION_ARMS
from benchmarks.ablation import LABELS, cell_config
from benchmarks.sensitivity_report import write_report
from benchmarks.study.cells import (
    ContinuingOptions,
    finished_links,
    open_cell,
    run_cells,
    run_missing,
    train_start,
)
from codegym.table import check_name

REGIME = "sparse"
SEEDS = {"smoke": 1, "small": 2, "full": 5}
BOTH = ABLATION_ARMS["both"]
assert BOTH is not None
STILL = replace(BOTH, refresh=False)
"""The same without a refresh of the reward model."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The arm "both" with one thing changed.

    Attributes:
        varies: Which choice it is about.
        shares: The last stage of the ablation's cell that it takes over.
        settings: The change, if it is one of settings.
        arm: How it trains.
        checkpoint: The one policy that programs are collected from, a folder's name; None: all.
        prm_layers: Layers of the reward model; None: as many as the policy has.
    """

    varies: str
    shares: str = "prm"
    settings: Callable[[PipelineConfig], PipelineConfig] = lambda config: config
    arm: Arm = BOTH
    checkpoint: str | None = None
    prm_layers: int | None = None


def dense(**changes: object) -> Callable[[PipelineConfig], PipelineConfig]:
    """A change of how lines are paid."""
    return lambda config: replace(config, dense=replace(config.dense, **changes))  # type: ignore[arg-type]


def label(**changes: object) -> Callable[[PipelineConfig], PipelineConfig]:
    """A change of how lines are labelled."""
    return lambda config: replace(config, label=replace(config.label, **changes))  # type: ignore[arg-type]


def few(**changes: object) -> Variant:
    """Labels of the last checkpoint's programs, by completion or, without changes, exact."""
    varies = "labels of one checkpoint's programs"
    return Variant(varies=varies, shares="baseline", settings=label(**changes), arm=STILL, checkpoint="last")


VARIANTS: Mapping[str, Variant] = {
    "no_refresh": Variant(varies="refresh", arm=STILL),
    "paper_form": Variant(varies="form", settings=dense(form="mean")),
    "statement": Variant(varies="unit", settings=dense(unit="statement")),
    "lambda_quarter": Variant(varies="lambda", settings=dense(lambda_fail=0.25, lambda_pass=0.025)),
    "paper_head": Variant(
        varies="head", shares="label", settings=lambda c: replace(c, prm=replace(c.prm, head="newline"))
    ),
    "revised_only": Variant(
        varies="selection",
        shares="label",
        settings=lambda c: replace(c, selection=replace(c.selection, strategy="revised_only")),
    ),
    "one_layer": Variant(
        varies="size of the reward model", shares="label", arm=replace(BOTH, critic_init=None), prm_layers=1
    ),
    "few_exact": few(),
    "few_k8": few(source="binary_search"),
    "few_k2": few(source="binary_search", k=2),
    "few_cool": few(source="binary_search", temperature=0.5),
    "few_from_start": replace(
        few(source="binary_search"), varies="completer: the start policy", checkpoint="start"
    ),
}
"""One thing changed each, by name."""
SMOKE = ("no_refresh", "one_layer", "few_k2")


@dataclass(frozen=True, kw_only=True)
class Options(ContinuingOptions):
    """Change one choice of the method at a time."""

    out: Path = Path("runs/benchmarks/sensitivity")


def main() -> None:
    """Run what has not finished and print the tables."""
    options = tyro.cli(Options, prog="python -m benchmarks.sensitivity")
    disable_progress_bar()
    cells = [f"{name}/{seed}" for seed in range(SEEDS[options.scale]) for name in variants_of(options.scale)]
    if options.cell is not None:
        check_name(options.cell, cells, "cell")
        run_cell(options, options.cell)
        return
    console = Console(stderr=True)
    train_start(options, console)
    run_cells("benchmarks.sensitivity", options, cells, console)
    seeds = range(SEEDS[options.scale])
    varies = {name: VARIANTS[name].varies for name in variants_of(options.scale)}
    config = cell_config(options.scale, REGIME, 0)
    print(write_report(options.out, options.base / REGIME, varies, seeds, config))


def variants_of(scale: str) -> tuple[str, ...]:
    """The variants of a scale."""
    return SMOKE if scale == "smoke" else tuple(VARIANTS)


def run_cell(options: Options, cell: str) -> None:
    """Make one variant of a seed, from where it parts from the ablation's cell, and test it."""
    name, seed = cell.split("/")
    variant = VARIANTS[name]
    config = variant.settings(cell_config(options.scale, REGIME, int(seed)))
    base = options.base / REGIME / seed
    links = {"sft": options.start_folder} | finished_links(base, variant.shares)
    if variant.checkpoint is not None:
        links |= only_checkpoint(links.pop("baseline", base / "baseline"), variant.checkpoint, links["sft"])
    with open_cell(options.out / cell, config, links) as context:
        run_missing(context, stages(name, variant))


def only_checkpoint(baseline: Path, which: str, start: Path) -> dict[str, Path]:
    """Links to the one policy that programs are collected from: the baseline's last, or the start.

    Raises:
        FileNotFoundError: If the baseline has kept no policy.
    """
    if which == "start":
        return {"baseline/step-0": start}
    steps = sorted(baseline.glob("step-*"), key=lambda step: int(step.name.split("-")[1]))
    if not steps:
        raise FileNotFoundError(f"no kept policy in {baseline}: run benchmarks.ablation first")
    return {f"baseline/{steps[-1].name}": steps[-1]}


def stages(name: str, variant: Variant) -> dict[str, Stage]:
    """The stages of a cell, in order."""
    works = {stage: Stage(work=STAGES[stage].work) for stage in ("baseline", *LABELS)}
    if variant.prm_layers is not None:
        layers = variant.prm_layers
        works["prm"] = Stage(work=lambda context, report: _small_model(context, report, layers))
    arm = replace(variant.arm, name=name)
    works[name] = Stage(work=lambda context, report: train_arm(context, report, arm))
    works["test"] = Stage(work=lambda context, report: _test(context, report, name))
    return works


def _small_model(context: Context, report: Report, n_layers: int) -> Metrics:
    """Train a reward model on the first layers of the starting policy."""
    start, folder = context.path / "sft", context.path / "backbone"
    if not folder.exists():
        with whole_folder(folder) as draft:
            AutoModelForCausalLM.from_pretrained(start, num_hidden_layers=n_layers).save_pretrained(draft)
            AutoTokenizer.from_pretrained(start).save_pretrained(draft)
    return train_reward_model(context, report, backbone=folder)


def _test(context: Context, report: Report, name: str) -> Metrics:
    """Programs of the variant on test tasks like those it trained on."""
    config = replace(context.config, seed=0)
    tasks = config.load(split="test", limit=config.eval_tasks, horizons=config.rl_horizons)
    evaluate_arms(context, [name], tasks, context.path / "test.jsonl", report)
    return {"tasks": len(tasks)}


if __name__ == "__main__":
    main()
