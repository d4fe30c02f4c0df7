"""A training budget in seconds, and what an arm writes down while it lasts."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.judge_speed import tree_cpu_s
from codegym.storage import append_rows, write_json

CURVE, CHECKPOINTS, MARK = "curve.jsonl", "checkpoints", "mark.json"


class Clock:
    """Counts seconds of training alone: wall, and CPU of the process and the judge's workers.

    Args:
        budget: Wall seconds until it is `over`.
    """

    def __init__(self, budget: float) -> None:
        if not budget > 0:
            raise ValueError(f"budget must be positive, got {budget}")
        self.budget = budget
        self._wall = self._cpu = 0.0
        self._since: tuple[float, float] | None = None

    def start(self) -> None:
        """Start counting, once everything is loaded."""
        self._since = (time.perf_counter(), tree_cpu_s())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the block: saving a checkpoint is no training."""
        self._wall, self._cpu, self._since = self.wall, self.cpu, None
        yield
        self.start()

    @property
    def wall(self) -> float:
        """Wall seconds so far."""
        return self._wall + (0.0 if self._since is None else time.perf_counter() - self._since[0])

    @property
    def cpu(self) -> float:
        """CPU seconds so far."""
        return self._cpu + (0.0 if self._since is None else tree_cpu_s() - self._since[1])

    @property
    def progress(self) -> float:
        """Share of the budget that is used up, at most 1."""
        return min(self.wall / self.budget, 1.0)

    @property
    def over(self) -> bool:
        """Whether the budget is used up."""
        return self.wall >= self.budget


class Recorder:
    """Writes a row per iteration, and the policy whenever another share of the budget has passed.

    Args:
        folder: Where both go.
        clock: The arm's.
        n_checkpoints: Policies to keep, evenly spaced; the last one when the budget is over.
        save: Writes the policy to a folder.
    """

    def __init__(
        self, folder: Path, clock: Clock, *, n_checkpoints: int, save: Callable[[Path], None]
    ) -> None:
        self.folder, self.clock, self.n_checkpoints = folder, clock, n_checkpoints
        self._save = save
        self._starter = os.getppid()
        self._totals = {"iteration": 0, "programs": 0, "tokens": 0}
        self._n_saved, self._before = 0, 0.0

    def add(self, *, programs: int, tokens: int, passed: int, sampling_s: float, judging_s: float) -> None:
        """Write down an iteration that has just ended; what was neither sampling nor judging is learning.

        Raises:
            SystemExit: If whoever started this process is gone: nobody would read the rest.
        """
        if os.getppid() != self._starter:
            raise SystemExit("the benchmark that started this arm has ended")
        wall, cpu = self.clock.wall, self.clock.cpu
        with self.clock.paused():
            for name, amount in (("iteration", 1), ("programs", programs), ("tokens", tokens)):
                self._totals[name] += amount
            spent = wall - self._before
            self._before = wall
            row = {
                **self._totals,
                "seconds": wall,
                "cpu_seconds": cpu,
                "success_rate": passed / programs,
                "sampling_s": sampling_s,
                "judging_s": judging_s,
                "learning_s": spent - sampling_s - judging_s,
            }
            append_rows(self.folder / CURVE, [row])
            share = min(int(wall / self.clock.budget * self.n_checkpoints), self.n_checkpoints)
            if share > self._n_saved:
                self._n_saved = share
                place = self.folder / CHECKPOINTS / str(share)
                self._save(place)
                write_json(place / MARK, row)
