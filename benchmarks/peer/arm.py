"""One arm: what it is given, and the process that trains it.

`python -m benchmarks.peer.arm FOLDER` reads `FOLDER/assignment.json` and trains what it asks for.
"""

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from codegym.storage import write_json
from codegym.table import check_name, resolve
from codegym.task import Task
from codegym.tasks import load_tasks

ARMS = {
    "ppo": "benchmarks.peer.ours:train_ppo",
    "psgpo": "benchmarks.peer.ours:train_psgpo",
    "grpo": "benchmarks.peer.ours:train_grpo",
    "rloo": "benchmarks.peer.ours:train_rloo",
    "trl_grpo": "benchmarks.peer.trl:train_grpo",
    "trl_rloo": "benchmarks.peer.trl:train_rloo",
}
"""What can be compared: functions that train for the time an `Assignment` gives them."""
PEERS = tuple(arm for arm, place in ARMS.items() if place.startswith("benchmarks.peer.trl:"))
"""Arms that need TRL."""
ASSIGNMENT, RESULT = "assignment.json", "result.json"
REWARDS = ("pass_fail", "pass_rate")


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What an arm is given; the same for all of them but for `arm`, `seed` and `learning_rate`."""

    arm: str  # an entry of ARMS
    run: str  # run folder of a main job: sft/ is the policy to start from, prm/ the reward model
    horizons: tuple[int, int]  # steps of the training tasks
    n_tasks: int  # training tasks
    seconds: float  # the clock's budget
    n_checkpoints: int  # policies kept
    reward: str = "pass_fail"  # what the verdict pays: "pass_fail" or "pass_rate"
    learning_rate: float | None = None  # at its peak; None: the arm's default
    rollouts: int = 128  # programs per iteration
    seed: int = 0  # of the arm, not of the tasks
    threads: int = 2  # of torch

    def __post_init__(self) -> None:
        check_name(self.arm, ARMS, "arm")
        check_name(self.reward, REWARDS, "reward")
        for name in ("n_tasks", "n_checkpoints", "rollouts", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("seconds", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")

    @classmethod
    def read(cls, folder: Path) -> "Assignment":
        """What `FOLDER/assignment.json` says."""
        fields = json.loads((folder / ASSIGNMENT).read_text(encoding="utf-8"))
        return cls(**{**fields, "horizons": tuple(fields["horizons"])})

    @property
    def policy(self) -> Path:
        """Folder of the policy that every arm starts from."""
        return Path(self.run) / "sft"

    @cached_property
    def tasks(self) -> Sequence[Task]:
        """The training tasks."""
        return load_tasks("stepwise", split="train", limit=self.n_tasks, horizons=self.horizons)


def main() -> None:
    """Train the arm of the folder named on the command line."""
    folder = Path(sys.argv[1])
    assignment = Assignment.read(folder)
    disable_progress_bar()
    torch.set_num_threads(assignment.threads)
    settings = resolve(ARMS, assignment.arm, "arm")(assignment, folder)
    write_json(folder / RESULT, {"settings": settings, "versions": versions()})


def versions() -> dict[str, str]:
    """Versions that decide the numbers; of those packages that are there."""
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "trl", "accelerate"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
