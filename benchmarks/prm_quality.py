"""How good reward models are: of the default model against exact labels, and of a real pretrained one.

`--model default` needs a finished run of the main job. It compares heads, label sources, data sizes and
selection strategies on held-out stepwise tasks, on programs of the start policy and of later ones, and lets
the best model choose among 8 programs. `--model smollm2` samples, labels and measures SmolLM2-135M-Instruct
on easy MBPP or HumanEval tasks. Killed, the same command goes on.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from agents.run_folder import open_run
from benchmarks import prm_smollm2, prm_stepwise
from benchmarks.prm_arms import Study, cost_table
from benchmarks.prm_smollm2 import SmolLM2Study
from benchmarks.prm_stepwise import START, StepwiseStudy
from benchmarks.smollm2 import smollm2_folder
from codegym.judge import Judge, make_judge
from codegym.storage import write_text
from codegym.tasks import load_tasks


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure reward models."""

    model: Literal["default", "smollm2"] = "default"  # the bundled tiny model, or a real pretrained one
    scale: Literal["smoke", "small"] = "small"  # programs and passes
    run: Path = Path("runs/psgpo")  # default: folder of a finished run of the main job
    mbpp: Path | None = (
        None  # smollm2: mbpp.jsonl or sanitized-mbpp.json; HumanEval from its package if not given
    )
    threads: int = 2  # of torch
    seed: int = 0  # of everything
    out: Path | None = None  # where programs, labels, models, rows and report go; None: by model, below runs/


def main() -> None:
    """Run a study and print its tables."""
    options = tyro.cli(Options, prog="python -m benchmarks.prm_quality")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    disable_progress_bar()
    torch.set_num_threads(options.threads)
    out = options.out or Path("runs/benchmarks/prm_quality") / options.model
    text = measure(options, out)
    write_text(out / "report.md", text)
    print(text)


def measure(options: Options, out: Path) -> str:
    """Do whatever is not in the folder yet, and return the report."""
    paths = {"run": str(options.run.resolve()), "mbpp": str(options.mbpp and options.mbpp.resolve())}
    with open_run(out, {**asdict(options), **paths, "out": None}).locked(), make_judge("local") as judge:
        make = stepwise_study if options.model == "default" else smollm2_study
        study = make(options, out, judge)
        text = study.measure()
        costs = cost_table(study.study.rows)
    return "\n".join([text, "## Cost", "", *costs, ""])


def stepwise_study(options: Options, out: Path, judge: Judge) -> StepwiseStudy:
    """The study of the default model."""
    study = Study(out, judge, options.run / START, Console())
    return StepwiseStudy(study, options.run, prm_stepwise.SCALES[options.scale], options.seed)


def smollm2_study(options: Options, out: Path, judge: Judge) -> SmolLM2Study:
    """The study of SmolLM2."""
    folder = smollm2_folder()
    if options.mbpp is None:
        tasks = load_tasks("humaneval")
    else:
        tasks = load_tasks("mbpp", path=options.mbpp, on_bad_row="skip")
    return SmolLM2Study(
        Study(out, judge, folder, Console()),
        AutoModelForCausalLM.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
        tasks,
        prm_smollm2.SCALES[options.scale],
        options.seed,
    )


if __name__ == "__main__":
    main()
