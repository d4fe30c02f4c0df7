"""Rewards by the kind of failure: how far a program got."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode, is_neutral
from codegym.rewards.outcome import BELOW_ONE, TerminalReward, judgement_of
from codegym.rewards.source import line_index
from codegym.verdict import Verdict

_WHOLE = {Verdict.TIME_LIMIT, Verdict.MEMORY_LIMIT, Verdict.OUTPUT_LIMIT, Verdict.TAMPERED}


@dataclass(frozen=True, kw_only=True)
class CodeRL(TerminalReward):
    """The four levels of CodeRL (arXiv:2207.01780, eq. 4), paid on the last action.

    Exceeding a limit of time, memory or output is a runtime error, as in its code. Tampering, which CodeRL
    does not know, is worth as little as not compiling.
    """

    compile_error: float = -1.0  # the program does not parse
    runtime_error: float = -0.6  # it raises, or exceeds a limit
    failed_test: float = -0.3  # it runs, and some test fails
    passed: float = 1.0  # it passes every test

    def __post_init__(self) -> None:
        levels = (self.compile_error, self.runtime_error, self.failed_test, self.passed)
        if not (np.isfinite(levels).all() and max(levels[:3]) < self.passed):
            raise ValueError(
                "compile_error, runtime_error, failed_test and passed must be finite, "
                f"and passed the largest, got {levels}"
            )

    def reward(self, episode: Episode) -> float:
        """The level of the program's verdict."""
        verdict = judgement_of(episode).verdict
        if verdict is Verdict.PASSED:
            return self.passed
        if verdict is Verdict.WRONG_ANSWER:
            return self.failed_test
        if verdict in (Verdict.SYNTAX_ERROR, Verdict.TAMPERED):
            return self.compile_error
        return self.runtime_error

    def bounds(self, *, passed: bool) -> tuple[float, float]:
        """The levels' range."""
        failed = (self.compile_error, self.runtime_error, self.failed_test)
        return (self.passed, self.passed) if passed else (min(failed), max(failed))


@dataclass(frozen=True, kw_only=True)
class RLTF:
    """RLTF (arXiv:2307.04349): CodeRL's levels, raised by the share of tests passed, and blame per line.

    coarse, on the last action: -1 (does not parse), -0.6 (raises, exceeds a limit), 1 (passes), and for a
    wrong answer -0.3 + 1.3 · n_passed / n_tests (the paper's adaptive feedback), or -0.3 without `adaptive`.

    fine, -`fine_penalty` in all: on the line that raised or does not parse, where the judge knows it; spread
    over all lines that are not blank or comment for an exceeded limit (the paper's U_global); none for a
    wrong answer (U_ignore). The paper weighs tokens in its loss where this pays lines; the amount is that of
    its code.
    """

    fine_penalty: float = 0.3  # what the lines at fault lose, together
    adaptive: bool = True  # whether a wrong answer earns by the share of tests passed

    def __post_init__(self) -> None:
        if not 0 <= self.fine_penalty < float("inf"):
            raise ValueError(f"fine_penalty must be finite and >= 0, got {self.fine_penalty}")

    def parts(self, episodes: Sequence[Episode]) -> list[dict[str, NDArray[np.float64]]]:
        """The level, and the blame. [n_actions] each."""
        parts = []
        for episode in episodes:
            coarse, fine = np.zeros(episode.n_actions), np.zeros(episode.n_actions)
            coarse[-1:] = self._level(episode)
            blamed = _blamed_lines(episode)
            if blamed:
                fine[blamed] = -self.fine_penalty / len(blamed)
            parts.append({"coarse": coarse, "fine": fine})
        return parts

    def credit(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """Hindsight: the blame on lines, the level on the last action. [n_actions] each.

        Raises:
            ValueError: If an episode has not ended with a judgement.
        """
        return [part["coarse"] + part["fine"] for part in self.parts(episodes)]

    def step(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        """Streaming: nothing is known before the tests have run. [B]."""
        return np.zeros(len(episodes))

    def bounds(self, *, passed: bool) -> tuple[float, float]:
        """1 for a pass; the lowest level less the blame, up to just below 1, for a failure."""
        return (1.0, 1.0) if passed else (-1.0 - self.fine_penalty, BELOW_ONE if self.adaptive else -0.3)

    def _level(self, episode: Episode) -> float:
        judgement = judgement_of(episode)
        if self.adaptive and judgement.verdict is Verdict.WRONG_ANSWER:
            return min(-0.3 + 1.3 * judgement.tests_passed / judgement.tests_total, BELOW_ONE)
        return CodeRL().reward(episode)


def _blamed_lines(episode: Episode) -> list[int]:
    """Indices of the lines at fault."""
    judgement = judgement_of(episode)
    if judgement.verdict in _WHOLE:
        return [index for index, line in enumerate(episode.lines) if not is_neutral(line)]
    if judgement.verdict in (Verdict.SYNTAX_ERROR, Verdict.RUNTIME_ERROR) and judgement.error_line:
        index = line_index(episode.task, episode.lines, judgement.error_line)
        return [] if index is None else [index]
    return []
