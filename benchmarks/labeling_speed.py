"""Wall-clock time of labelling against a naive loop over the same prefixes, in turns in one run.

The work: K completions of each of a number of prefixes, all judged; what an exhaustive scan does, and what
every round of a binary search does. Ours is `FullScanLabeler`: one batch sampled, one batch judged in
confined processes. The naive loop calls `model.generate` once per prefix, with K sequences, and starts one
Python process per completed program, unconfined, which runs the tests as assertions. Rates are completions
per second; the machine may be busy with other work, so the two sides take turns and the ratio is what counts.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from agents.samplers.transformers import TransformersSampler
from benchmarks.markdown import table as markdown_table
from codegym.judge import make_judge
from codegym.storage import append_rows, write_text
from codegym.task import Task
from codegym.tasks import load_tasks
from prm.alignment import newlines_per_token
from prm.collect import collect
from prm.full_scan import FullScanLabeler
from prm.probing import Steps
from prm.program import SampledProgram
from prm.store import Probe

PROGRAMS = {"smoke": (1,), "small": (2, 4), "full": (4, 16)}
"""Failing programs whose prefixes are completed, per row."""
ROUNDS = {"smoke": 1, "small": 2, "full": 5}
HORIZONS = (9, 12)
TIME_LIMIT_S = 5.0
"""Wall-clock seconds that the naive loop gives a program."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure labelling speed."""

    scale: Literal["smoke", "small", "full"] = "small"  # programs and rounds
    model: Path = Path("runs/psgpo/baseline/policy")  # folder of the causal LM that writes and completes
    k: int = 8  # completions per prefix
    max_new_tokens: int = 192  # of a whole program
    threads: int = 2  # of torch
    out: Path = Path("runs/benchmarks/labeling_speed")  # where rows and report go


@dataclass(frozen=True, kw_only=True)
class Row:
    """One size: completions of the work, medians of both rates, and the ratio of ours to the loop's."""

    programs: int
    prefixes: int
    completions: int
    ours: float
    naive: float
    naive_sampling_share: float
    ratio: float
    lowest_ratio: float


class NaiveLoop:
    """What one writes first: a generate call per prefix, a process per verdict."""

    def __init__(self, model: Any, tokenizer: Any, options: Options) -> None:
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.sampling_s = 0.0

    def passes(self, probe: Probe, task: Task) -> int:
        """How many of K completions of a prefix pass."""
        began = time.perf_counter()
        head = [*probe.prompt_ids, *probe.prefix_ids]
        output = self.model.generate(
            input_ids=torch.tensor([head]), attention_mask=torch.ones(1, len(head), dtype=torch.long),
            do_sample=True, top_k=0, top_p=1.0, num_return_sequences=self.options.k,
            max_new_tokens=max(1, self.options.max_new_tokens - len(probe.prefix_ids)),
            pad_token_id=self.tokenizer.pad_token_id, eos_token_id=self.tokenizer.eos_token_id,
        )  # fmt: skip
        texts = self.tokenizer.batch_decode(
            output[:, len(probe.prompt_ids) :], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        self.sampling_s += time.perf_counter() - began
        return sum(run_alone(task, text) for text in texts)


def run_alone(task: Task, completion: str) -> bool:
    """Whether a program passes its tests in a Python process of its own."""
    checks = "\n".join(f"assert {task.entry_point}(*{t.args!r}) == {t.expected!r}" for t in task.tests)
    command = [sys.executable, "-I", "-c", f"{task.assemble(completion)}\n{checks}\n"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIME_LIMIT_S, check=False)
    except (subprocess.TimeoutExpired, ValueError):
        return False
    return done.returncode == 0


def main() -> None:
    """Run the benchmark and print its table."""
    options = tyro.cli(Options, prog="python -m benchmarks.labeling_speed")
    disable_progress_bar()
    torch.set_num_threads(options.threads)
    rows = measure(options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rows.jsonl").unlink(missing_ok=True)
    append_rows(options.out / "rows.jsonl", map(asdict, rows))
    text = table(rows)
    write_text(options.out / "report.md", text)
    print(text)


def measure(options: Options) -> list[Row]:
    """Every size."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model).eval()
    sizes = PROGRAMS[options.scale]
    tasks = {
        task.task_id: task
        for task in load_tasks("stepwise", split="test", limit=4 * max(sizes), horizons=HORIZONS)
    }
    sampler = TransformersSampler(model, tokenizer)
    # no cache: the rounds' programs are different, but no verdict may come for free
    with make_judge("local", cache=False) as judge:
        drawn = collect(
            sampler, list(tasks.values()), judge, tokenizer,
            policy="start", n=1, max_new_tokens=options.max_new_tokens,
        )  # fmt: skip
        failing = [program for program in drawn if not program.passed]
        naive = NaiveLoop(model, tokenizer, options)
        rows = []
        for size in sizes:

            def ours(seed: int, chosen: Sequence[SampledProgram] = tuple(failing[:size])) -> None:
                scan = FullScanLabeler(
                    sampler, judge, tokenizer, k=options.k, max_new_tokens=options.max_new_tokens, seed=seed
                )
                scan.label(chosen, tasks)

            rows.append(compare(failing[:size], tasks, ours, naive, options))
        return rows


def compare(
    programs: Sequence[SampledProgram],
    tasks: Mapping[str, Task],
    ours: Callable[[int], None],
    naive: NaiveLoop,
    options: Options,
) -> Row:
    """The two sides in turns on the prefixes of these programs."""
    newlines = newlines_per_token(naive.tokenizer)
    cut = [Steps(program, tasks[program.task_id], newlines) for program in programs]
    work = [(steps.prefix(n), steps.task) for steps in cut for n in range(1, len(steps) + 1)]
    seconds: dict[str, list[float]] = {"ours": [], "naive": []}
    naive.sampling_s = 0.0
    ours(0)  # warms up: worker processes, allocations
    for seed in range(1, ROUNDS[options.scale] + 1):
        began = time.perf_counter()
        ours(seed)
        seconds["ours"].append(time.perf_counter() - began)
        torch.manual_seed(seed)
        began = time.perf_counter()
        for probe, task in work:
            naive.passes(probe, task)
        seconds["naive"].append(time.perf_counter() - began)
    n = len(work) * options.k
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["naive"], strict=True)]
    return Row(
        programs=len(programs),
        prefixes=len(work),
        completions=n,
        ours=statistics.median(n / s for s in seconds["ours"]),
        naive=statistics.median(n / s for s in seconds["naive"]),
        naive_sampling_share=naive.sampling_s / sum(seconds["naive"]),
        ratio=statistics.median(ratios),
        lowest_ratio=min(ratios),
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    names = (
        "programs", "prefixes", "completions", "ours, completions/s", "naive, completions/s",
        "naive: share of time sampling", "ratio", "lowest ratio",
    )  # fmt: skip
    return markdown_table(
        names,
        [
            (r.programs, r.prefixes, r.completions, f"{r.ours:,.1f}", f"{r.naive:,.1f}",
             f"{r.naive_sampling_share:.2f}", f"{r.ratio:.1f}", f"{r.lowest_ratio:.1f}")
            for r in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
