"""Rewards per line from a process reward model (PSGPO, arXiv:2410.17621)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode, is_neutral
from codegym.errors import TaskError
from codegym.rewards import LineScorer
from codegym.rewards.outcome import PassFail, outcome
from codegym.table import check_name, resolve
from codegym.task import Task

LINE_SCORERS = {"prm": "prm.model:ProcessRewardModel"}

LAMBDAS: dict[str, tuple[float, float]] = {"progress": (1.0, 0.1), "mean": (0.25, 0.025)}
"""Default weights (on failure, on a pass) of each form; those of "mean" are the paper's."""


@dataclass(frozen=True, kw_only=True)
class ProcessReward:
    """R_UT + λ(outcome) · Σ_m share_m: the tests' verdict, and a share of a line's score on that line.

    With s_m the score of line m, clipped to [-1, 1], and 0 for blank and comment lines in both forms:

        mean      share_m = s_m / T, T the program's own number of lines (the paper's equation)
        progress  share_m = P_m - P_(m-1),  P_m = min(cap, Σ_(i<=m) (s_i + 1) / (2 T0)),  T0 fixed per task

    Dividing by the program's own T pays a policy for stopping early, since after the first error every
    line costs; "progress" pays nothing there instead, and its T0 does not move with the program.
    In both forms no failing program earns as much as a passing one, whatever the scores are.

    Streaming pays each line λ(failure) · share_m, with T0 in the place of T, and the wrapper settles the rest
    on the last action. The scorer sees the whole program so far on every step.
    """

    prm: str | None = None  # folder of a saved process reward model, loaded when first needed
    scorer: LineScorer | None = field(default=None, repr=False)  # an object in the place of `prm`
    form: Literal["progress", "mean"] = "progress"  # how scores become shares
    lambda_fail: float | None = None  # weight of the shares of a failing program; None: LAMBDAS[form]
    lambda_pass: float | None = None  # weight of the shares of a passing program; None: LAMBDAS[form]
    cap: float = 0.95  # "progress": the most that all shares of a program add up to
    n_lines: int | None = None  # T0; None: the lines of the task's reference that are not blank or comment

    def __post_init__(self) -> None:
        check_name(self.form, LAMBDAS, "form of process reward")
        if (self.prm is None) == (self.scorer is None):
            raise ValueError(
                "ProcessReward needs exactly one of prm= (the folder of a saved model) and scorer="
            )
        if not 0 < self.cap <= 1:
            raise ValueError(f"cap must be in (0, 1], got {self.cap}")
        if self.n_lines is not None and self.n_lines < 1:
            raise ValueError(f"n_lines must be at least 1, got {self.n_lines}")
        for name, value in (("fail", self._lambda(passed=False)), ("pass", self._lambda(passed=True))):
            if not 0 <= value < float("inf"):
                raise ValueError(f"lambda_{name} must be finite and >= 0, got {value}")
        worst_pass = 1.0 - (self._lambda(passed=True) if self.form == "mean" else 0.0)
        best_fail = self._lambda(passed=False) * (1.0 if self.form == "mean" else self.cap)
        if not best_fail < worst_pass:
            raise ValueError(
                f"a failing program could earn {best_fail:g} and a passing one only {worst_pass:g}: "
                f"lower lambda_fail={self.lambda_fail} or cap={self.cap}"
            )

    @classmethod
    def from_scorer(cls, scorer: LineScorer, **options: Any) -> "ProcessReward":
        """Build the scheme around a model, or an oracle, that is already in memory."""
        return cls(scorer=scorer, **options)

    def credit(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """Hindsight: the share of each line, and the outcome on the last action. [n_actions] each.

        Raises:
            TaskError: If T0 is needed and the task has no reference.
            ValueError: If an episode has not ended with a judgement, or the scorer broke its contract.
        """
        rewards = PassFail().credit(episodes)
        for reward, episode, scores in zip(rewards, episodes, self._scores(episodes), strict=True):
            divisor = len(scores) if self.form == "mean" else self._reference_lines(episode.task)
            share = self._shares(episode, scores, divisor)
            reward[: len(share)] += self._lambda(passed=bool(outcome(episode))) * share
        return rewards

    def step(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        """Streaming: what the newest line earns if the program fails. [B].

        Raises:
            TaskError: If the task has no reference and `n_lines` is not given.
            ValueError: If the scorer broke its contract.
        """
        rewards = np.zeros(len(episodes))
        for index, (episode, scores) in enumerate(zip(episodes, self._scores(episodes), strict=True)):
            if episode.lines:
                share = self._shares(episode, scores, self._reference_lines(episode.task))
                rewards[index] = self._lambda(passed=False) * share[-1]
        return rewards

    @cached_property
    def _scorer(self) -> LineScorer:
        if self.scorer is not None:
            return self.scorer
        model: LineScorer = resolve(LINE_SCORERS, "prm", "line scorer").from_pretrained(self.prm)
        return model

    def _lambda(self, *, passed: bool) -> float:
        given = self.lambda_pass if passed else self.lambda_fail
        return LAMBDAS[self.form][passed] if given is None else given

    def _reference_lines(self, task: Task) -> int:
        if self.n_lines is not None:
            return self.n_lines
        count = sum(not is_neutral(line) for line in (task.reference or "").split("\n"))
        if not count:
            raise TaskError(f"task {task.task_id!r} has no reference to count lines of; give n_lines=")
        return count

    def _scores(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """Checked and clipped scores. [n_lines] each."""
        if not episodes:
            return []
        batch = self._scorer.score(episodes)
        if len(batch) != len(episodes):
            raise ValueError(f"the scorer returned {len(batch)} results for {len(episodes)} episodes")
        checked = []
        for episode, scores in zip(episodes, batch, strict=True):
            scores = np.asarray(scores, dtype=np.float64)
            if scores.shape != (len(episode.lines),) or not np.isfinite(scores).all():
                raise ValueError(
                    f"the scorer must return {len(episode.lines)} finite scores for the program of task "
                    f"{episode.task.task_id!r}, got {scores}"
                )
            checked.append(np.clip(scores, -1.0, 1.0))
        return checked

    def _shares(self, episode: Episode, scores: NDArray[np.float64], divisor: int) -> NDArray[np.float64]:
        """What each line earns before λ; `divisor` is T or T0. [n_lines]."""
        scored = np.array([not is_neutral(line) for line in episode.lines], dtype=np.float64)
        if self.form == "mean":
            return scores * scored / max(divisor, 1)
        gains = (scores + 1.0) / 2.0 * scored / divisor
        return np.diff(np.minimum(np.cumsum(gains), self.cap), prepend=0.0)
