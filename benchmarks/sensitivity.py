"""How much each choice of the method matters where it pays: variants of PSGPO in the sparse regime.

A variant differs from another one, or from an arm of the ablation, in one thing: the form of the dense
reward, its unit or weight, the head, the selection, the size of the reward model, the refresh, the labels'
source, their K, temperature and completer, the policies whose programs are labelled. It takes over what the
ablation's cell has made up to that point and makes the rest anew. Labels by completion cost too much to
refresh with, so they are compared without refresh and on a quarter of the programs.

A cell is a variant and a seed. The ablation must have made the reward models of its sparse regime; its arms
stand beside the variants once it has tested them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import (
    disable_progress_bar,
    get_verbosity,
    set_verbosity,
    set_verbosity_error,
)

from agents.checkpoint import whole_folder
from agents.config import PipelineConfig
from agents.progress import Report
from agents.stages import STAGES, Context, Stage
from agents.stages.context import Metrics, load_sampler
from agents.stages.evaluate import evaluate_arms
from agents.stages.labels import LABELS as LABELS_FILE
from agents.stages.labels import label_programs
from agents.stages.prm import held_out, quality, train_reward_model
from agents.stages.rl import Arm, train_arm
from benchmarks.ablation import ARMS as ABLATION_ARMS
from benchmarks.ablation import LABELS, cell_config, test_tasks
from benchmarks.sensitivity_report import ACCURACY, write_report
from benchmarks.study.base import MADE_BY, ContinuingOptions, finished_links
from benchmarks.study.cells import open_cell, run_cells, run_missing
from codegym.table import check_name
from prm.labeling import read_labels
from prm.model import ProcessRewardModel

REGIME = "sparse"
SEEDS = {"smoke": 1, "small": 2, "full": 5}
BOTH, DENSE = (replace(arm, name="") for arm in (ABLATION_ARMS["both"], ABLATION_ARMS["dense"]) if arm)
STILL = replace(BOTH, refresh=False)
"""The same as `both` without a refresh of the reward model."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An arm with one thing changed.

    Attributes:
        varies: What is changed.
        against: Of what: another variant, or an arm of the ablation.
        shares: The last stage of the ablation's cell that it takes over.
        settings: What is set otherwise than in the ablation.
        arm: How it trains; its name is the variant's.
        completer: The ablation's arm whose policy completes the prefixes; None: the policy that wrote them.
        prm_layers: Layers of the reward model; None: as many as the policy has.
    """

    varies: str
    against: str = "both"
    shares: str = "prm"
    settings: Callable[[PipelineConfig], PipelineConfig] = lambda config: config
    arm: Arm = BOTH
    completer: str | None = None
    prm_layers: int | None = None


def dense(**changes: object) -> Callable[[PipelineConfig], PipelineConfig]:
    """A change of how lines are paid."""
    return lambda config: replace(config, dense=replace(config.dense, **changes))  # type: ignore[arg-type]


def label(**changes: object) -> Callable[[PipelineConfig], PipelineConfig]:
    """A change of how lines are labelled."""
    return lambda config: replace(config, label=replace(config.label, **changes))  # type: ignore[arg-type]


def few(varies: str, against: str, completer: str | None = None, **changes: object) -> Variant:
    """Labels of one program per task, by completion or, without changes, exact."""
    return Variant(
        varies=varies,
        against=against,
        shares="baseline",
        settings=label(programs_per_task=1, **changes),
        arm=STILL,
        completer=completer,
    )


VARIANTS: Mapping[str, Variant] = {
    "no_refresh": Variant(varies="no refresh of the reward model", arm=STILL),
    "statement": Variant(varies="pay per statement, not per line", settings=dense(unit="statement")),
    "lambda_quarter": Variant(
        varies="the paper's lambdas, a quarter of ours", settings=dense(lambda_fail=0.25, lambda_pass=0.025)
    ),
    "paper_form": Variant(
        varies="the paper's form of the pay",
        against="lambda_quarter",
        settings=dense(lambda_fail=0.25, lambda_pass=0.025, form="mean"),
    ),
    "paper_head": Variant(
        varies="the paper's head of the reward model",
        shares="label",
        settings=lambda config: replace(config, prm=replace(config.prm, head="newline")),
    ),
    "revised_only": Variant(
        varies="training programs of the reward model: revised and right ones",
        shares="label",
        settings=lambda config: replace(config, selection=replace(config.selection, strategy="revised_only")),
    ),
    "one_layer": Variant(
        varies="reward model of one layer", against="dense", shares="label", arm=DENSE, prm_layers=1
    ),
    "from_checkpoints": Variant(
        varies="labels of programs of the baseline's checkpoints",
        shares="baseline",
        settings=label(policies="checkpoints", programs_per_task=1),
    ),
    "few_exact": few("labels of a quarter of the programs", "no_refresh"),
    "few_k8": few("labels by completion", "few_exact", source="binary_search"),
    "few_k2": few("two completions of a prefix", "few_k8", source="binary_search", k=2),
    "few_cool": few("completions at temperature 0.5", "few_k8", source="binary_search", temperature=0.5),
    "few_by_trained": few("completions of the policy of 'both'", "few_k8", "both", source="binary_search"),
}
"""One thing changed each, by name."""
SMOKE = ("no_refresh", "one_layer", "few_k2")


@dataclass(frozen=True, kw_only=True)
class Options(ContinuingOptions):
    """Change one choice of the method at a time, going on from the ablation in `base`."""

    out: Path = Path("runs/benchmarks/sensitivity")
    variants: tuple[str, ...] | None = None  # only these; None: all, at scale smoke three

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.variants or ():
            check_name(name, VARIANTS, "variant")
        if self.variants == ():
            raise ValueError("variants must not be empty")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The variants to make."""
        return self.variants or (SMOKE if self.scale == "smoke" else tuple(VARIANTS))


def main() -> None:
    """Run what has not finished and print the tables."""
    options = tyro.cli(Options, prog="python -m benchmarks.sensitivity")
    disable_progress_bar()
    seeds = range(SEEDS[options.scale])
    cells = [f"{name}/{seed}" for seed in seeds for name in options.chosen]
    if options.cell is not None:
        check_name(options.cell, cells, "cell")
        check_base(options, [int(options.cell.split("/")[1])])
        run_cell(options, options.cell)
        return
    check_base(options, seeds)
    run_cells("benchmarks.sensitivity", options, cells, Console(stderr=True))
    told = {name: (VARIANTS[name].varies, VARIANTS[name].against) for name in options.chosen}
    config = cell_config(options.scale, REGIME, 0)
    part = f" --variants {' '.join(options.variants)}" if options.variants else ""
    command = f"python -m benchmarks.sensitivity --scale {options.scale}{part}"
    print(write_report(options.out, options.base / REGIME, told, seeds, config, command))


def check_base(options: Options, seeds: Iterable[int]) -> None:
    """Refuse to begin where the ablation has not made what the variants part from.

    Raises:
        FileNotFoundError: If a seed's baseline, labels, reward model or an arm that completes are missing.
        RunFolderError: If they were made with other settings.
    """
    for seed in seeds:
        base = options.base / REGIME / str(seed)
        made = finished_links(base, cell_config(options.scale, REGIME, seed), "prm")
        if len(made) < len(MADE_BY):
            raise FileNotFoundError(
                f"{base} has not finished {list(MADE_BY)[len(made)]!r}: run python -m benchmarks.ablation "
                f"--scale {options.scale} --out {options.base} first"
            )
        for arm in {VARIANTS[name].completer for name in options.chosen} - {None}:
            if not (base / f"stages/{arm}.json").exists():
                raise FileNotFoundError(f"{base} has not finished the arm {arm!r}, whose policy completes")


def run_cell(options: Options, cell: str) -> None:
    """Make one variant of a seed, from where it parts from the ablation's cell, and test it."""
    name, seed = cell.split("/")
    variant, config = VARIANTS[name], cell_config(options.scale, REGIME, int(seed))
    base = options.base / REGIME / seed
    links = finished_links(base, config, variant.shares)
    with open_cell(
        options.out / cell, variant.settings(config), [{"sft": options.start_folder}, *links]
    ) as context:
        run_missing(context, stages(name, variant, base))


def stages(name: str, variant: Variant, base: Path) -> dict[str, Stage]:
    """The stages of a cell, in order.

    Args:
        name: The variant's.
        variant: What it is.
        base: The ablation's cell, on whose held-out labelled programs all reward models are measured.
    """
    works = {stage: Stage(work=STAGES[stage].work) for stage in ("baseline", *LABELS)}
    if variant.completer is not None:
        policy = base / variant.completer / "policy"
        works["label"] = Stage(work=lambda context, report: _label(context, report, policy))
    if variant.prm_layers is not None:
        layers = variant.prm_layers
        works["prm"] = Stage(work=lambda context, report: _small_model(context, report, layers))
    works[ACCURACY] = Stage(work=lambda context, report: _measure(context, report, base / LABELS_FILE))
    arm = replace(variant.arm, name=name)
    works[name] = Stage(work=lambda context, report: train_arm(context, report, arm))
    works["test"] = Stage(work=lambda context, report: _test(context, report, name))
    return works


def _label(context: Context, report: Report, policy: Path) -> Metrics:
    """Label by completions of another policy than the one that wrote the programs."""
    return label_programs(context, report, load_sampler(context, policy)[0])


def _small_model(context: Context, report: Report, n_layers: int) -> Metrics:
    """Train a reward model on the first layers of the starting policy."""
    folder = context.path / "backbone"
    if not folder.exists():
        save_first_layers(context.path / "sft", n_layers, folder)
    return train_reward_model(context, report, backbone=folder)


def save_first_layers(source: Path, n_layers: int, folder: Path) -> None:
    """Write a causal LM that has the first layers of another one, with its tokenizer."""
    config = AutoConfig.from_pretrained(source)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        config.layer_types = kinds[:n_layers]
    config.num_hidden_layers = n_layers
    verbosity = get_verbosity()
    set_verbosity_error()  # the layers left out are no surprise
    try:
        model = AutoModelForCausalLM.from_pretrained(source, config=config)
    finally:
        set_verbosity(verbosity)
    with whole_folder(folder) as draft:
        model.save_pretrained(draft)
        AutoTokenizer.from_pretrained(source).save_pretrained(draft)


def _measure(context: Context, report: Report, labels: Path) -> Metrics:
    """The reward model on held-out programs and exact labels that are the same for every variant."""
    unseen = held_out(read_labels(labels), context.config.prm)
    model = ProcessRewardModel.from_pretrained(context.path / "prm")
    rows = quality(model, unseen, {"all": lambda _: True})
    report(1, 1)
    return {"validation": rows}


def _test(context: Context, report: Report, name: str) -> Metrics:
    """Programs of the variant on the ablation's test tasks that are like those it trained on."""
    low, high = context.config.rl_horizons
    tasks = [task for task in test_tasks(context.config) if low <= task.metadata["horizon"] <= high]
    evaluate_arms(context, [name], tasks, context.path / "test.jsonl", report)
    return {"tasks": len(tasks)}


if __name__ == "__main__":
    main()
