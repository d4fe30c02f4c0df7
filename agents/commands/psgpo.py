"""`codegym psgpo`: the whole method in one command."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from transformers import AutoConfig
from transformers.utils.logging import disable_progress_bar

from agents import ranks
from agents.bundled import llama_config
from agents.config import SCALES, PipelineConfig
from agents.memory import announce_memory
from agents.pipeline import run_pipeline
from codegym.table import check_name

DEFAULT_SCALE = "small"


@dataclass(frozen=True, kw_only=True)
class PsgpoOptions:
    """Run PSGPO from nothing to a report: SFT, RL baseline, labels, PRM, PSGPO, oracle, evaluation.

    A run that was interrupted, or killed, goes on where it was when the same command is given again.
    """

    out: Path
    """The run folder."""
    stage: str | None = None
    """Run this stage alone."""
    max_memory_gb: float | None = None
    """Do not start a run that is estimated to need more GiB; without, it is only warned of."""
    config: Annotated[PipelineConfig, tyro.conf.arg(name="")]


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    options = parse(argv)
    if ranks.launched() > 1:
        raise ValueError(
            f"codegym psgpo runs in one process, got {ranks.launched()}; codegym train shares its work"
        )
    # the library's bars for every file read and written would drown the run's own progress
    disable_progress_bar()
    announce(options.config, options.max_memory_gb)
    page = run_pipeline(options.config, options.out, stage=options.stage)
    sys.stdout.write(f"report: {page}\n")
    return 0


def announce(config: PipelineConfig, max_memory_gb: float | None) -> None:
    """Say what the longest stage, PSGPO, will need, and warn or refuse where it is too much.

    Raises:
        NotEnoughMemoryError: If it is more than `max_memory_gb`.
    """
    try:
        shape = (
            llama_config(config.tiny) if config.model is None else AutoConfig.from_pretrained(config.model)
        )
    except (OSError, ValueError):
        return  # the first stage that reads the model says what is wrong with it
    announce_memory(shape, config.rl, what="the stage psgpo", prm="whole", max_memory_gb=max_memory_gb)


def parse(argv: Sequence[str]) -> PsgpoOptions:
    """Options from the command line; `--scale` sets the defaults of all others.

    Raises:
        UnknownNameError: If there is no such scale.
        SystemExit: If an option is unknown or has a value of the wrong kind; the message says which.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--scale", default=DEFAULT_SCALE)
    scale = early.parse_known_args(argv)[0].scale
    check_name(scale, SCALES, "scale")
    default = PsgpoOptions(out=Path("runs/psgpo"), config=SCALES[scale])
    options = tyro.cli(PsgpoOptions, args=list(argv), default=default, prog="codegym psgpo")
    return replace(options, config=options.config.with_seed())
