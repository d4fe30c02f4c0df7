"""When a reward model learns from the policy that it pays, and what waits for that moment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from agents.rollout import Rollout, to_program
from codegym.storage import append_rows, read_rows
from prm.program import SampledProgram

WAITING, STATE = "waiting.jsonl", "state"


class Refresh(Protocol):
    """Keeps a reward model true to a policy that moves; its state is part of the checkpoint."""

    def __call__(self, programs: Sequence[SampledProgram]) -> Mapping[str, float]:
        """Learn from the newest programs; the returned metrics are logged under "prm/"."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything that later calls depend on to an empty folder."""
        ...

    def load(self, folder: Path) -> None:
        """Read it back."""
        ...


class RefreshQueue:
    """Gathers the programs of some iterations, then hands them to the hook.

    Args:
        hook: Called with the programs; without one nothing is gathered.
        every: Iterations between calls.
        name: Of the policy, in the programs' ids.
    """

    def __init__(self, hook: Refresh | None, every: int, *, name: str = "psgpo") -> None:
        self.hook, self.every, self.name = hook, every, name
        self.waiting: list[SampledProgram] = []

    def add(self, rollout: Rollout, iteration: int) -> dict[str, float]:
        """Take in what an iteration wrote; returns the hook's metrics if it was its turn."""
        if self.hook is None:
            return {}
        policy = f"{self.name}/iteration-{iteration}"
        rows = zip(rollout.prompts, rollout.completions, rollout.episodes, strict=True)
        self.waiting += [to_program(*row, f"{policy}/{place}") for place, row in enumerate(rows)]
        if iteration % self.every:
            return {}
        programs, self.waiting = self.waiting, []
        return {f"prm/{name}": value for name, value in self.hook(programs).items()}

    def save(self, folder: Path) -> None:
        """Write the waiting programs and the hook's state."""
        folder.mkdir()
        append_rows(folder / WAITING, (program.to_row() for program in self.waiting))
        if self.hook is not None:
            (folder / STATE).mkdir()
            self.hook.save(folder / STATE)

    def load(self, folder: Path) -> None:
        """Read them back."""
        self.waiting = [SampledProgram.from_row(row) for row in read_rows(folder / WAITING)]
        if self.hook is not None:
            self.hook.load(folder / STATE)
