"""`codegym serve-prm`: one reward model for environments in many processes."""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from stable_baselines3.common.utils import get_device
from transformers.utils.logging import disable_progress_bar

from prm.model import ProcessRewardModel
from prm.serving import ScorerServer


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Serve a reward model at a Unix socket until interrupted or terminated.

    Environments pay by it with RewardWrapper(env, "process", prm="unix:SOCKET").
    """

    prm: Path
    """Folder of the reward model."""
    socket: Path
    """Where to listen; only this user may connect."""
    device: str = "auto"
    """cpu, cuda or auto."""
    window_ms: float = 3.0
    """How long a request waits for others to share its batch."""
    max_programs: int = 512
    """A batch of so many programs waits for no more."""
    threads: int = 0
    """Of torch; 0 for one per core."""


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    options = tyro.cli(ServeOptions, args=list(argv), prog="codegym serve-prm")
    disable_progress_bar()
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    model = ProcessRewardModel.from_pretrained(options.prm, device=get_device(options.device))
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    server = ScorerServer(
        model, options.socket, window_s=options.window_ms / 1000, max_programs=options.max_programs
    )
    try:
        with server:
            sys.stdout.write(f"{model.identity} at unix:{options.socket}\n")
            sys.stdout.flush()
            stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    done = server.statistics
    sys.stdout.write(
        f"{done.requests} requests, {done.programs} programs in {done.batches} batches of the model\n"
    )
    return 0
