"""`codegym train-prm`: a process reward model from files of labels."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from stable_baselines3.common.utils import get_device
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from agents.models import check_folder, loading
from agents.progress import progress
from agents.run_folder import RunFolder
from prm.bootstrap import Estimate
from prm.config import PRMConfig
from prm.label_files import read_label_files
from prm.selection import SelectionConfig, select
from prm.training import train_prm
from prm.training_report import PRMReport
from prm.validation import METRICS


@dataclass(frozen=True, kw_only=True)
class TrainPRMOptions:
    """Train a process reward model on labelled programs and write it to OUT, with a model card.

    Interrupted or killed, the same command goes on where it was and ends with the same weights. Repeated
    after it has finished, it shows what it measured.
    """

    labels: tuple[Path, ...]
    """Files of labels: JSON Lines as `codegym label` writes them, or with the columns prompt, completions and
    labels; or Parquet."""
    backbone: str
    """Causal LM to start from, a folder or hub name; its tokenizer must have written the programs."""
    out: Path
    """The folder to write to."""
    config: Annotated[PRMConfig, tyro.conf.arg(name="")] = field(default_factory=PRMConfig)
    """How to train."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    """Which programs to train on; the same selection of the held-out tasks measures the model."""
    seed: int = 0
    """Of the held-out tasks, the order of programs and an adapter's first weights."""
    device: str = "auto"
    """cpu, cuda or auto."""
    threads: int = 0
    """Of torch; 0 for one per core."""

    def __post_init__(self) -> None:
        if not self.labels:
            raise ValueError("--labels must name at least one file")
        if self.threads < 0:
            raise ValueError(f"threads must not be negative, got {self.threads}")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    options = tyro.cli(TrainPRMOptions, args=list(argv), prog="codegym train-prm")
    disable_progress_bar()
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    check_folder("--backbone", options.backbone)
    with loading("--backbone", options.backbone):
        tokenizer = AutoTokenizer.from_pretrained(options.backbone)
    labeled = select(read_label_files(options.labels, tokenizer), options.selection)
    if options.out.exists() and not options.out.is_dir():
        raise NotADirectoryError(f"{options.out} is a file; --out must name a folder")
    options.out.mkdir(parents=True, exist_ok=True)
    with RunFolder(options.out).locked(), progress("train-prm", Console(stderr=True)) as report:
        result = train_prm(
            labeled,
            replace(options.config, seed=options.seed),
            backbone=options.backbone,
            tokenizer=tokenizer,
            folder=options.out,
            progress=report,
            device=get_device(options.device),
        )
    sys.stdout.write(show_training(result, options.out))
    return 0


def show_training(report: PRMReport, folder: Path) -> str:
    """What a training run did and measured, as text for people."""
    sources = ", ".join(f"{sum(n.values())} by {source}" for source, n in sorted(report.sources.items()))
    early = f" of {report.n_planned} planned" if report.n_steps < report.n_planned else ""
    metrics = [f"{name:<22}{Estimate(**report.held_out[name])}\n" for name in METRICS if report.held_out]
    measured = "".join(metrics) or "nothing was held out: the quality is not known\n"
    return (
        f"labels: {sources}\n"
        f"trained on {report.n_train} programs, {report.n_validation} held out by task; "
        f"{report.n_weights} weights\n"
        f"step {report.best_step} kept of {report.n_steps}{early}\n"
        f"\nheld-out tasks, with 95 % intervals\n{measured}"
        f"\nmodel and card: {folder}\n"
    )
