"""`codegym psgpo`: the whole method in one command."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from transformers.utils.logging import disable_progress_bar

from agents.config import SCALES, PipelineConfig
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
    config: Annotated[PipelineConfig, tyro.conf.arg(name="")]


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    options = parse(argv)
    # the library's bars for every file read and written would drown the run's own progress
    disable_progress_bar()
    page = run_pipeline(options.config, options.out, stage=options.stage)
    sys.stdout.write(f"report: {page}\n")
    return 0


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
