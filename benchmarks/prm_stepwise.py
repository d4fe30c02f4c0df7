"""Reward models of the default model, measured against exact labels on held-out stepwise tasks.

Programs come from the start policy and the checkpoints of a finished run's RL baseline, one of each per fresh
training task; smaller sets are the beginnings of larger ones. Every arm of a table is trained for the same
number of program passes, so that smaller sets are seen more often, not trained less. The arms of label
sources share the same programs of the start policy, except mutation, whose programs are mutants of the same
tasks' references.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from agents.samplers.transformers import TransformersSampler
from benchmarks.markdown import table_lines
from benchmarks.prm_arms import Arm, Study, arm_table, estimate, rerank_table
from codegym.task import Task
from codegym.tasks import load_tasks
from prm.config import PRMConfig
from prm.labeling import BinarySearchLabeler
from prm.mutation import MutationLabeler, mutate
from prm.program import LabeledProgram
from prm.reference import ReferenceLabeler
from prm.selection import STRATEGIES, SelectionConfig, label_statistics, select

HEADS = ("token_sum", "newline_hazard", "newline_bce", "newline")
PAPER = "newline"
"""The paper's head."""
START, LATER = "sft", ("psgpo", "oracle")
"""The policy that training programs come from, and those that moved on, by their folders in the run."""
MAX_NEW_TOKENS = 192
HORIZONS, RERANK_HORIZONS = (2, 12), (2, 6)
"""Steps of the tasks; best of n needs tasks that are passed sometimes."""
TARGETS = {START: (0.95, 0.75), **dict.fromkeys(LATER, (0.85, 0.50))}
"""Local AUC and first-error accuracy asked for."""
GAP_TARGET = 1 / 3


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of everything."""

    base: int  # programs of the tables of heads and strategies
    sizes: tuple[int, ...]  # programs of the table of sizes
    sources: int  # programs per label source
    k: int  # completions per prefix, for labels by completion
    passes: int  # program passes of each arm of heads, strategies and label sources
    size_passes: int  # program passes of each arm of the table of sizes
    held_out: int  # tasks per policy that labels are tested on
    rerank_tasks: int  # tasks per policy to choose among n programs for
    n: int = 8


SCALES = {
    "smoke": Scale(
        base=160, sizes=(160, 256), sources=32, k=2, passes=96, size_passes=128, held_out=33, rerank_tasks=15
    ),
    "small": Scale(
        base=3_000, sizes=(3_000, 10_000, 20_000), sources=600, k=8, passes=6_000, size_passes=24_000,
        held_out=330, rerank_tasks=220,
    ),
}  # fmt: skip


class StepwiseStudy:
    """The whole study.

    Args:
        study: Keeps everything.
        run: A finished run of the main job.
        scale: How much.
        seed: Of everything.
    """

    def __init__(self, study: Study, run: Path, scale: Scale, seed: int) -> None:
        self.study, self.run, self.scale, self.seed = study, run, scale, seed
        self.tokenizer = AutoTokenizer.from_pretrained(run / START)

    def measure(self) -> str:
        """Train and measure every arm that has no row yet, and return the report."""
        tests = {policy: self.test_labels(policy) for policy in (START, *self.later)}
        for arm in (arm for table in self.tables.values() for arm in table):
            self.study.train(arm, tests, self.test_tasks)
        self.study.page(self.best, [item for labels in tests.values() for item in labels], self.test_tasks)
        tasks = by_id(self._held_out(RERANK_HORIZONS, self.scale.rerank_tasks, seed=self.seed + 1))
        for policy in (START, *self.later[:1]):
            programs = self.study.programs(
                f"{policy}_best_of_{self.scale.n}", self._samplers([policy]), list(tasks.values()),
                n=self.scale.n, max_new_tokens=MAX_NEW_TOKENS, seed=self.seed + 1, at_once=32,
            )  # fmt: skip
            for arm in (self.best, self.tables["Heads"][HEADS.index(PAPER)]):
                self.study.rerank(arm, policy, programs, tasks, sizes=(1, self.scale.n))
        return self.report()

    # --- arms -----------------------------------------------------------------------------------------------

    @cached_property
    def tables(self) -> dict[str, list[Arm]]:
        """The arms of each table."""
        heads = [self.head_arm(head) for head in HEADS]
        return {
            "Heads": heads,
            "Label sources": self.source_arms(),
            "Data sizes": self.size_arms(),
            "Selection strategies": [heads[0], *self.strategy_arms()],
        }

    @property
    def best(self) -> Arm:
        """The arm with the most data."""
        return self.tables["Data sizes"][-1]

    def head_arm(self, head: str) -> Arm:
        """One head on the base set."""
        return self._arm(f"{head}, exact, {self.scale.base}", self.labels[: self.scale.base], head=head)

    def strategy_arms(self) -> list[Arm]:
        """What each strategy keeps of the base set; keeping everything is the first head's arm."""
        kept = {name: self.selected(name) for name in STRATEGIES if name != "full"}
        return [self._arm(f"token_sum, {name}", labels) for name, labels in kept.items() if labels]

    def selected(self, strategy: str) -> list[LabeledProgram]:
        """What a strategy keeps of the base set."""
        return select(self.labels[: self.scale.base], SelectionConfig(strategy=strategy))

    def source_arms(self) -> list[Arm]:
        """Equally many programs labelled by execution, by the policy's own completions, and by mutation."""
        exact = [item for item in self.labels if item.program.policy == START][: self.scale.sources]
        programs = [item.program for item in exact]
        tasks = by_id([self.tasks[program.task_id] for program in programs])
        sampler = self._samplers([START])[START]
        completions = self.study.labels(
            "labels_by_completion",
            BinarySearchLabeler(
                sampler, self.study.judge, self.tokenizer, k=self.scale.k,
                draws_at_once=min(4, self.scale.k), max_new_tokens=MAX_NEW_TOKENS, seed=self.seed,
            ),
            programs, tasks, chunk=64,
        )  # fmt: skip
        mutants = mutate(list(tasks.values()), self.study.judge, self.tokenizer, n=2, seed=self.seed)
        mutated = MutationLabeler().label(mutants[: self.scale.sources], tasks)
        sources = {"exact": exact, "completions": completions, "mutation": mutated}
        size = min(map(len, sources.values()))
        return [self._arm(f"token_sum, {name}, {size}", items[:size]) for name, items in sources.items()]

    def size_arms(self) -> list[Arm]:
        """The first head on more and more programs, with more passes than the other tables have."""
        return [
            self._arm(
                f"token_sum, {size} programs", self.labels[:size], passes=self.scale.size_passes,
            )
            for size in self.scale.sizes
        ]  # fmt: skip

    def _arm(
        self, name: str, labels: Sequence[LabeledProgram], *, head: str = HEADS[0], passes: int | None = None
    ) -> Arm:
        passes = passes or self.scale.passes
        config = PRMConfig(head=head, epochs=max(passes / len(labels), 0.5), seed=self.seed)
        return Arm(name=name, config=config, labels=labels)

    # --- programs and labels --------------------------------------------------------------------------------

    @cached_property
    def policies(self) -> list[str]:
        """Who writes training programs: the start policy and the newest checkpoints of the baseline."""
        steps = (self.run / "baseline").glob("step-*")
        newest = sorted(steps, key=lambda step: int(step.name.split("-")[1]))[-3:]
        return [START, *(f"baseline/{step.name}" for step in newest)]

    @cached_property
    def later(self) -> list[str]:
        """The policies of the run that were trained with dense rewards."""
        return [arm for arm in LATER if (self.run / arm / "policy").is_dir()]

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """Fresh training tasks, enough for the largest set."""
        n_tasks = -(-max(self.scale.sizes) // len(self.policies))
        # a seed of its own: the run's own training tasks have the run's seed
        tasks = load_tasks("stepwise", split="train", limit=n_tasks, seed=self.seed + 1000, horizons=HORIZONS)
        return by_id(tasks)

    @cached_property
    def labels(self) -> list[LabeledProgram]:
        """Training programs with exact labels, in the order that smaller sets are the beginnings of."""
        programs = self.study.programs(
            "train", self._samplers(self.policies), list(self.tasks.values()),
            n=1, max_new_tokens=MAX_NEW_TOKENS, seed=self.seed, at_once=128,
        )  # fmt: skip
        return self._exact("train_labels", programs, self.tasks)

    @cached_property
    def test_tasks(self) -> dict[str, Task]:
        """Held-out tasks of all horizons."""
        return by_id(self._held_out(HORIZONS, self.scale.held_out, seed=self.seed))

    def test_labels(self, policy: str) -> list[LabeledProgram]:
        """One program of a policy for each held-out task, with exact labels."""
        programs = self.study.programs(
            f"{policy}_held_out", self._samplers([policy]), list(self.test_tasks.values()),
            n=1, max_new_tokens=MAX_NEW_TOKENS, seed=self.seed, at_once=128,
        )  # fmt: skip
        return self._exact(f"{policy}_held_out_labels", programs, self.test_tasks)

    def _exact(self, name: str, programs: Sequence[Any], tasks: Mapping[str, Task]) -> list[LabeledProgram]:
        return self.study.labels(name, ReferenceLabeler(self.study.judge), programs, tasks, chunk=512)

    def _held_out(self, horizons: tuple[int, int], limit: int, *, seed: int) -> Sequence[Task]:
        return load_tasks("stepwise", split="test", limit=limit, seed=seed, horizons=horizons)

    def _samplers(self, policies: Sequence[str]) -> dict[str, TransformersSampler]:
        folders = {
            policy: self.run / (f"{policy}/policy" if policy in LATER else policy) for policy in policies
        }
        return {
            policy: TransformersSampler(AutoModelForCausalLM.from_pretrained(folder), self.tokenizer)
            for policy, folder in folders.items()
        }

    # --- report ---------------------------------------------------------------------------------------------

    def report(self) -> str:
        """Every table as Markdown."""
        rows = self.study.rows
        lines = []
        for title, arms in self.tables.items():
            lines += [f"## {title}", "", *arm_table(rows, [arm.name for arm in arms]), ""]
        lines += ["## What each strategy keeps", "", *self._strategy_table(), ""]
        lines += ["## Targets", "", *targets(rows, self.best.name), ""]
        lines += [f"## Best of {self.scale.n}", "", *rerank_table(rows), ""]
        return "\n".join(lines)

    def _strategy_table(self) -> list[str]:
        cells = []
        for name in STRATEGIES:
            found = label_statistics(self.selected(name))
            numbers = (found["programs"], found["correct"], found["revised"], found["wrong"])
            cells.append((name, *numbers, f"{found['positive']:.3f}", found["lines"]))
        names = ("strategy", "programs", "correct", "revised", "wrong", "right lines", "lines")
        return table_lines(names, cells)


def targets(rows: Sequence[Mapping[str, Any]], best: str) -> list[str]:
    """Lines of Markdown: what was asked for beside what the best arm reached."""
    cells: list[Sequence[object]] = []
    for row in (row for row in rows if (row["kind"], row["name"]) == ("arm", best)):
        for policy, quality in row["quality"].items():
            for name, wanted in zip(("local_auc", "first_error_accuracy"), TARGETS[policy], strict=True):
                value = quality[name]["value"]
                met = "yes" if value is not None and value >= wanted else "no"
                cells.append((policy, name.replace("_", " "), wanted, estimate(quality[name]), met))
    for row in (row for row in rows if row["kind"] == "rerank" and row["arm"] == best):
        n = str(row["n"])
        ways = {way: closed[n] for way, closed in row["gap_closed"].items() if way.startswith("prm")}
        for way, closed in ways.items():
            met = "yes" if closed["value"] is not None and closed["value"] >= GAP_TARGET else "no"
            cells.append((row["policy"], f"gap closed, {way}", f"{GAP_TARGET:.3f}", estimate(closed), met))
    return table_lines(("tested on", "number", "asked for", "reached", "met"), cells)


def by_id(tasks: Sequence[Task]) -> dict[str, Task]:
    """Tasks by their ids, in order."""
    return {task.task_id: task for task in tasks}
