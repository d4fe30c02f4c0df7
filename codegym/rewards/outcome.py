"""Rewards that depend on the tests alone, paid on the last action."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode
from codegym.errors import TaskError
from codegym.task import Task
from codegym.verdict import Judgement, Verdict

BELOW_ONE = math.nextafter(1.0, 0.0)
"""The most that a share of tests can be while one of them fails."""


def judgement_of(episode: Episode) -> Judgement:
    """The judge's record of a finished episode.

    Raises:
        ValueError: If the episode has not ended or was not judged.
    """
    if not episode.over or episode.judgement is None:
        raise ValueError(f"the episode of task {episode.task.task_id!r} has not ended with a judgement yet")
    return episode.judgement


def outcome(episode: Episode) -> float:
    """R_UT of PSGPO (arXiv:2410.17621): 1 if the program passes every test, else 0.

    Raises:
        ValueError: If the episode has not ended or was not judged.
    """
    return float(judgement_of(episode).passed)


class TerminalReward(ABC):
    """A scheme that pays one number, on the last action. Subclasses say which."""

    @abstractmethod
    def reward(self, episode: Episode) -> float:
        """What the last action of a finished episode earns."""

    def credit(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """Hindsight: zeros, then the reward. [n_actions] each.

        Raises:
            ValueError: If an episode has not ended with a judgement.
        """
        rewards = []
        for episode in episodes:
            reward = np.zeros(episode.n_actions)
            reward[-1:] = self.reward(episode)
            rewards.append(reward)
        return rewards

    def step(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        """Streaming: nothing is known before the tests have run. [B]."""
        return np.zeros(len(episodes))


class PassFail(TerminalReward):
    """Pays `outcome`: the reward of `CodeGen-v0` itself."""

    def reward(self, episode: Episode) -> float:
        """1 if every test passes, else 0."""
        return outcome(episode)

    def parts(self, episodes: Sequence[Episode]) -> list[dict[str, NDArray[np.float64]]]:
        """The one part `outcome`, as in `CodeGen-v0` itself. [n_actions] each."""
        return [{"outcome": credit} for credit in self.credit(episodes)]

    def bounds(self, *, passed: bool) -> tuple[float, float]:
        """Exactly 0 or 1."""
        return float(passed), float(passed)


class WeightedTests(TerminalReward):
    """Pays the share of the tests' weight that passes: Σ_j w_j · passed_j / Σ_j w_j.

    Hard tests should weigh more: unweighted, the many easy ones of a suite drown the few that tell programs
    apart (VeRPO, arXiv:2601.03525, which estimates the weights from rollouts; see `difficulty_weights`).
    A program that is caught tampering earns 0, whatever passed.

    Args:
        weights: Positive weights by task id, one per test. Tasks that are not in it are weighted by
            `task.metadata["test_weights"]`, and those without either by 1 per test.

    Raises:
        TaskError: When a task's weights are not one positive number per test.
    """

    def __init__(self, weights: Mapping[str, Sequence[float]] | None = None) -> None:
        self.weights = dict(weights or {})

    def reward(self, episode: Episode) -> float:
        """The weighted share of tests passed; 1 only for a program that passes."""
        judgement = judgement_of(episode)
        if judgement.passed:
            return 1.0
        if judgement.verdict is Verdict.TAMPERED:
            return 0.0
        weights = self._weights(episode.task)
        passed = sum(w for w, ok in zip(weights, judgement.results, strict=True) if ok)
        return min(passed / sum(weights), BELOW_ONE)

    def bounds(self, *, passed: bool) -> tuple[float, float]:
        """1 for a pass, anything below for a failure."""
        return (1.0, 1.0) if passed else (0.0, BELOW_ONE)

    def _weights(self, task: Task) -> Sequence[float]:
        weights = self.weights.get(task.task_id, task.metadata.get("test_weights"))
        if weights is None:
            return [1.0] * len(task.tests)
        if len(weights) != len(task.tests) or not all(0 < weight < math.inf for weight in weights):
            raise TaskError(
                f"task {task.task_id!r} needs {len(task.tests)} positive test weights, got {list(weights)}"
            )
        return weights


class PassRate(WeightedTests):
    """Pays the share of tests that pass: partial credit, the obvious rival of a process reward."""

    def __init__(self) -> None:
        super().__init__()

    def _weights(self, task: Task) -> Sequence[float]:
        return [1.0] * len(task.tests)


def difficulty_weights(episodes: Sequence[Episode]) -> dict[str, list[float]]:
    """Weights for `WeightedTests` from judged rollouts: 1 minus the test's pass rate.

    The rate is (passes + 1) / (rollouts + 2), Laplace's estimate, so no weight is 0 or 1. The idea is
    VeRPO's (arXiv:2601.03525), its exact weighting is not.

    Raises:
        ValueError: If an episode has not ended with a judgement.
    """
    results: dict[str, list[tuple[bool, ...]]] = {}
    for episode in episodes:
        results.setdefault(episode.task.task_id, []).append(judgement_of(episode).results)
    return {
        task_id: [1.0 - (sum(test) + 1) / (len(rows) + 2) for test in zip(*rows, strict=True)]
        for task_id, rows in results.items()
    }
