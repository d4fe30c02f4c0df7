"""`codegym label`: a label for every line of every program."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from agents.progress import progress
from agents.run_folder import open_run
from agents.samplers import make_sampler
from agents.stages.labels import COMPLETIONS, LABELS, read_programs
from agents.task_lookup import find_tasks, load_named
from codegym.judge import Judge, make_judge
from codegym.storage import write_json
from codegym.table import check_name
from codegym.task import Task
from prm.dataset import write_parquet, write_stepwise
from prm.display import show_labels, show_statistics
from prm.labelers import LABELERS, make_labeler, needs, options_of
from prm.labeling import label_to_file, read_labels
from prm.mutation import mutate
from prm.program import LabeledProgram, SampledProgram
from prm.selection import strategy_statistics
from prm.store import CompletionStore

PARQUET, STEPWISE, STATISTICS = "labels.parquet", "stepwise.jsonl", "statistics.json"


@dataclass(frozen=True, kw_only=True)
class LabelerOptions:
    """What is left out has the labeler's own default."""

    k: int | None = None
    """Completions of a prefix before it counts as lost."""
    draws_at_once: int | None = None
    """binary_search: completions drawn before looking whether one passes; divides k."""
    k_per_step: float | None = None
    """binary_search: more completions for each step that a prefix leaves out."""
    reuse: bool = False
    """binary_search: count completions of shorter prefixes that pass through the probed one."""
    kind: str | None = None
    """full_scan: labels hard, soft or marginal."""
    step: str | None = None
    """What is labelled as one: line or statement."""
    max_new_tokens: int | None = None
    """Most tokens of a whole completed program."""
    temperature: float | None = None
    """Of the completions."""

    def given(self, labeler: str) -> dict[str, Any]:
        """The options that were given.

        Raises:
            ValueError: If the labeler has no such option; names it and those that it has.
        """
        known = options_of(labeler)
        # by identity: 0 equals False, and a temperature of 0 was given
        options = {
            name: value for name, value in asdict(self).items() if value is not None and value is not False
        }
        if foreign := [name for name in options if name not in known]:
            mine = ", ".join(name for name in asdict(self) if name in known) or "none of these"
            raise ValueError(f"labeler {labeler!r} has no option {foreign[0]!r}; it has {mine}")
        return options


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Label the lines of programs into OUT/labels.jsonl, with every completion in OUT/completions.jsonl.

    Interrupted or killed, the same command goes on where it was. Labels by mutation need no programs: they
    make their own from the reference solutions of --tasks.
    """

    out: Path
    """The folder to write to."""
    programs: Path | None = None
    """Programs as JSON Lines, such as runs/psgpo/programs.jsonl."""
    model: Path | None = None
    """Folder of the causal LM that completes prefixes; its tokenizer must be the programs'."""
    labeler: str = "binary_search"
    """binary_search, full_scan, reference or mutation."""
    tasks: str | None = None
    """Task source, or a JSON Lines file of tasks; by default the source that the programs' task ids name."""
    limit: int | None = None
    """Label only the first so many programs, or mutate so many tasks."""
    failing: bool = False
    """Leave out programs that pass."""
    mutants: int = 8
    """mutation: programs per task."""
    options: Annotated[LabelerOptions, tyro.conf.arg(name="")] = LabelerOptions()
    """The labeler's settings."""
    seed: int = 0
    """Of all draws."""
    chunk: int = 64
    """Programs labelled in one batch."""
    format: Literal["jsonl", "parquet", "stepwise"] = "jsonl"
    """A copy of the labels in another format, written at the end."""
    inspect: str | None = None
    """Label nothing; show the program of that id or number (from 1) in OUT, tokens and labels aligned."""
    judge: str = "local"
    """Which judge."""
    sampler: str = "transformers"
    """Which sampler."""
    threads: int = 0
    """Of torch; 0 for one per core."""

    def __post_init__(self) -> None:
        check_name(self.labeler, LABELERS, "labeler")
        for name in ("limit", "mutants", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.options.given(self.labeler)

    @property
    def mutates(self) -> bool:
        """Whether the programs are made here."""
        return self.labeler == "mutation"

    def settings(self) -> dict[str, Any]:
        """What the labels depend on: a folder of labels made with others is refused."""
        names = ("labeler", "tasks", "limit", "failing", "mutants", "seed", "chunk")
        return {
            **{name: getattr(self, name) for name in names},
            "programs": None if self.programs is None else str(self.programs.resolve()),
            "model": None if self.model is None else str(self.model.resolve()),
            "options": self.options.given(self.labeler),
        }


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    options = tyro.cli(LabelOptions, args=list(argv), prog="codegym label")
    disable_progress_bar()
    if options.inspect is not None:
        sys.stdout.write(show_labels(_chosen(options), _Parts(options).tokenizer))
        return 0
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    parts = _Parts(options)
    parts.check()
    run = open_run(options.out, options.settings())
    with run.locked(), make_judge(options.judge) as judge:
        labels = _label(options, parts, judge)
    _export(options, labels, parts)
    statistics = strategy_statistics(labels)
    write_json(options.out / STATISTICS, statistics)
    sys.stdout.write(show_statistics(statistics))
    return 0


class _Parts:
    """Model and tokenizer, loaded when first needed."""

    def __init__(self, options: LabelOptions) -> None:
        self.options = options

    def check(self) -> None:
        """Find out before any work what is missing.

        Raises:
            FileNotFoundError: If the programs or the model are not there.
            ValueError: If an option that the labeler needs was not given.
        """
        options = self.options
        if options.programs is None and not options.mutates:
            raise ValueError("--programs must name a file of programs to label")
        if options.mutates and options.tasks is None:
            raise ValueError("labels by mutation need --tasks: the source of the reference solutions")
        if options.mutates and options.programs is not None:
            raise ValueError("labels by mutation are of programs made here: leave --programs out")
        if options.programs is not None and not options.programs.is_file():
            raise FileNotFoundError(f"no file of programs at {options.programs}")
        wants_model = options.mutates or needs(options.labeler) != ["judge"] or options.format == "stepwise"
        if wants_model and (options.model is None or not (options.model / "config.json").is_file()):
            raise FileNotFoundError(f"--model must name the folder of a causal LM, got {options.model}")

    @cached_property
    def tokenizer(self) -> Any:
        if self.options.model is None:
            raise ValueError("--model must name a folder with the programs' tokenizer")
        return AutoTokenizer.from_pretrained(self.options.model)

    @cached_property
    def completer(self) -> Any:
        model = AutoModelForCausalLM.from_pretrained(self.options.model)
        return make_sampler(self.options.sampler, model, self.tokenizer)


def _label(options: LabelOptions, parts: _Parts, judge: Judge) -> list[LabeledProgram]:
    programs, tasks = _work(options, parts, judge)
    given = options.options.given(options.labeler)
    wanted = needs(options.labeler)
    if "completer" in wanted:
        given |= {"seed": options.seed, "store": CompletionStore(options.out / COMPLETIONS)}
    labeler = make_labeler(
        options.labeler,
        judge=judge,
        completer=parts.completer if "completer" in wanted else None,
        tokenizer=parts.tokenizer if "tokenizer" in wanted else None,
        **given,
    )
    path = options.out / LABELS
    with progress("label", Console(stderr=True)) as report:
        label_to_file(labeler, programs, tasks, path, chunk=options.chunk, progress=report)
    return read_labels(path)


def _work(
    options: LabelOptions, parts: _Parts, judge: Judge
) -> tuple[Sequence[SampledProgram], Mapping[str, Task]]:
    """What is to be labelled, and its tasks."""
    if options.mutates or options.programs is None:
        tasks = load_named(options.tasks or "", limit=options.limit, seed=options.seed)
        mutants = mutate(tasks, judge, parts.tokenizer, n=options.mutants, seed=options.seed)
        return mutants, {task.task_id: task for task in tasks}
    programs = [p for p in read_programs(options.programs) if not (options.failing and p.passed)]
    programs = programs[: options.limit]
    wanted = dict.fromkeys(program.task_id for program in programs)
    return programs, find_tasks(wanted, options.tasks, seed=options.seed)


def _chosen(options: LabelOptions) -> LabeledProgram:
    labels = read_labels(options.out / LABELS)
    name = options.inspect or ""
    by_id = {item.program.program_id: item for item in labels}
    if name in by_id:
        return by_id[name]
    if name.isdecimal() and 1 <= int(name) <= len(labels):
        return labels[int(name) - 1]
    raise ValueError(f"{options.out / LABELS} has {len(labels)} programs and none of id or number {name!r}")


def _export(options: LabelOptions, labels: Sequence[LabeledProgram], parts: _Parts) -> None:
    if options.format == "parquet":
        write_parquet(options.out / PARQUET, labels)
    elif options.format == "stepwise":
        write_stepwise(options.out / STEPWISE, labels, parts.tokenizer)
