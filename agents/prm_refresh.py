"""Keeping a reward model true to a policy that moves."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file

from agents import ranks
from codegym.storage import write_json
from codegym.task import Task
from prm.backbone import load_trained_weights, trained_weights
from prm.labeling import Labeler
from prm.model import ProcessRewardModel
from prm.optimization import refresh_prm
from prm.program import SampledProgram

WEIGHTS = "weights.safetensors"


class PRMRefresh:
    """Labels the policy's newest programs and trains the reward model a little on them, in place.

    An `agents.refresh.Refresh`. A policy learns to please a fixed reward model; this closes the gap again.

    Args:
        prm: Changed in place; the reward scheme's scorer must be this very object.
        tasks: The tasks that programs are written for, by id.
        learning_rate: Of the pass over the programs.
        seed: Of the order of programs.
    """

    def __init__(
        self, prm: ProcessRewardModel, tasks: Mapping[str, Task], *, learning_rate: float, seed: int
    ) -> None:
        self.prm, self.tasks, self.learning_rate, self.seed = prm, tasks, learning_rate, seed
        self.labeler: Labeler | None = None
        self.n_done = 0

    def __call__(self, programs: Sequence[SampledProgram]) -> Mapping[str, float]:
        """Label the programs and train on them; returns what the pass measured.

        Raises:
            ValueError: If no labeler has been set.
        """
        if self.labeler is None:
            raise ValueError("PRMRefresh needs a labeler before its first call")
        self.n_done += 1
        result = refresh_prm(
            self.prm,
            self.labeler.label(programs, self.tasks),
            learning_rate=self.learning_rate,
            seed=self.seed + self.n_done,
        )
        ranks.equalize(trained_weights(self.prm).values())
        return {"refresh_loss": result.loss, "refresh_programs": result.n_programs}

    def save(self, folder: Path) -> None:
        """Write the reward model's weights, but for those that never change, and the count of refreshes."""
        weights = {name: weight.contiguous() for name, weight in trained_weights(self.prm).items()}
        save_file(weights, folder / WEIGHTS)
        write_json(folder / "refresh.json", {"n_done": self.n_done})

    def load(self, folder: Path) -> None:
        """Read them back into the same reward model."""
        load_trained_weights(self.prm, load_file(folder / WEIGHTS, device=str(self.prm.device)))
        self.n_done = json.loads((folder / "refresh.json").read_text(encoding="utf-8"))["n_done"]
