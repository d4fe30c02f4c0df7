"""Rewards per line from a process reward model (PSGPO, arXiv:2410.17621)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode, is_neutral
from codegym.errors import TaskError
from codegym.rewards import LineScorer
from codegym.rewards.assignment import FORMS, Terms, capped, held, potential_shares
from codegym.rewards.outcome import PassFail, outcome
from codegym.rewards.process_options import ProcessOptions
from codegym.rewards.scoring import checked_scores, load_scorer
from codegym.rewards.source import n_statements, statement_ends
from codegym.task import Task


@dataclass(frozen=True, kw_only=True)
class ProcessReward(ProcessOptions):
    """R_UT + λ · Σ_m share_m: the tests' verdict, and a share of a line's score on that line.

    With s_m the score of line m of those that are scored (neither blank nor comment), clipped to [-1, 1]:

        mean         share_m = s_m / T, T the program's own number of lines (PSGPO's equation)
        progress     share_m = (s_m + 1) / (2 T0), T0 fixed per task, running total within `cap`
        scored_mean  share_m = s_m / T', T' the program's own number of scored lines
        sum          share_m = s_m; no bound
        min          share_m = s_m on the first lowest line, 0 on others (PURE, arXiv:2504.15275)
        softmin      share_m = w_m s_m, w = softmax(-s / temperature): PURE's smooth minimum
        delta        share_m = s_m - s_(m+1); s_m on the last line but one, 0 on the last, so that all from
                     line m on add up to s_m (Delta, arXiv:2410.15115)
        clip         share_m = min(s_m - eta, 0); no lower bound (Clip, arXiv:2410.15115)
        potential    γ Φ(s') - Φ(s) per action, Φ = (s_m + 1) / 2 after line m, unchanged by lines without a
                     score, 0 for the empty and the finished program (Ng et al. 1999)

    Dividing by the program's own T pays a policy for stopping early, since after the first error every
    line costs; "progress" pays nothing there instead, and its T0 does not move with the program.
    λ is by `gate`:

        psgpo      lambda_fail for a failing program, lambda_pass for a passing one (PSGPO)
        pass_only  0 for a failing one, lambda_pass for a passing one (Posterior-GRPO, arXiv:2508.05170)
        both       lambda_fail for both
        schedule   as psgpo, times a factor that goes from first to last in the first n programs, where
                   schedule=(first, last, n) (O1-CODER, arXiv:2412.00154); `after` moves it on

    No failing program earns as much as a passing one, whatever the scores are: options that break this are
    refused. Exceptions, whose `bounds` say so, are "sum" and "clip" without a `cap`, and "potential" with
    γ < 1, which leaves the order of *discounted* returns alone and only that.

    With unit="statement" only the last line of a statement is scored (`statement_ends`), and T, T', T0 count
    statements: one statement written on more lines earns no more.

    Streaming pays each line what it adds to the shares of a failing program that ends there, with T0 in the
    place of T and T', and the wrapper settles the rest on the last action. The scorer sees the whole program
    so far on every step.
    """

    @classmethod
    def from_scorer(cls, scorer: LineScorer, **options: Any) -> "ProcessReward":
        """Build the scheme around a model, or an oracle, that is already in memory."""
        return cls(scorer=scorer, **options)

    def parts(self, episodes: Sequence[Episode]) -> list[dict[str, NDArray[np.float64]]]:
        """The tests' `outcome` on the last action, and λ times the shares as `process`. [n_actions] each.

        Raises:
            TaskError: If T0 is needed and the task has no reference.
            ValueError: If an episode has not ended with a judgement, or the scorer broke its contract.
        """
        parts = PassFail().parts(episodes)
        for part, episode, scores in zip(parts, episodes, self._scores(episodes), strict=True):
            share = self._shares(episode, scores)
            part["process"] = np.zeros(episode.n_actions)
            part["process"][: len(share)] = self._lambda(passed=bool(outcome(episode))) * share
        return parts

    def credit(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """Hindsight: the share of each line, and the outcome on the last action. [n_actions] each.

        Raises:
            TaskError: If T0 is needed and the task has no reference.
            ValueError: If an episode has not ended with a judgement, or the scorer broke its contract.
        """
        return [part["outcome"] + part["process"] for part in self.parts(episodes)]

    def step(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        """Streaming: what the newest line earns if the program fails. [B].

        Raises:
            TaskError: If the task has no reference and `n_lines` is not given.
            ValueError: If the scorer broke its contract.
        """
        rewards = np.zeros(len(episodes))
        weight = self._lambda(passed=False)
        for index, (episode, scores) in enumerate(zip(episodes, self._scores(episodes), strict=True)):
            if episode.lines:
                rewards[index] = weight * self._newest_share(episode, scores)
        return rewards

    def after(self, n_programs: int) -> "ProcessReward":
        """The scheme once that many programs have been paid; itself unless the gate is "schedule"."""
        if self.gate != "schedule":
            return self
        # the model goes along: it must not be loaded again for every program
        return replace(self, prm=None, scorer=self._scorer, n_programs=n_programs)

    # --- parts ---------------------------------------------------------------------------------------------

    @cached_property
    def _scorer(self) -> LineScorer:
        return load_scorer(self.prm or "") if self.scorer is None else self.scorer

    def _scores(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        return checked_scores(self._scorer, episodes) if episodes else []

    def _newest_share(self, episode: Episode, scores: NDArray[np.float64]) -> float:
        shares = self._shares(episode, scores)
        if self.form == "potential" or (self.unit == "line" and FORMS[self.form].is_causal):
            return float(shares[-1])
        earlier = replace(episode, lines=episode.lines[:-1])
        return float(shares.sum() - self._shares(earlier, scores[:-1]).sum())

    def _shares(self, episode: Episode, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each line earns before λ; for "potential" what each action does. [n_lines] or [n_actions]."""
        scored = self._scored(episode)
        if self.form == "potential":
            potential = held((scores + 1.0) / 2.0, scored)
            return potential_shares(potential, episode.n_actions, gamma=self.gamma, is_over=episode.over)
        form = FORMS[self.form]
        terms = Terms(divisor=self._divisor(episode, scored), eta=self.eta, temperature=self.temperature)
        shares = np.zeros(len(scores))
        shares[scored] = capped(form.shares(scores[scored], terms), self._cap)
        return shares

    def _scored(self, episode: Episode) -> NDArray[np.bool_]:
        if self.unit == "statement":
            return statement_ends(episode.task, episode.lines)
        return np.array([not is_neutral(line) for line in episode.lines], dtype=bool)

    def _divisor(self, episode: Episode, scored: NDArray[np.bool_]) -> int:
        divisor = FORMS[self.form].divisor
        if divisor is None:
            return 1
        if divisor == "reference" or not episode.over:
            return self._reference_size(episode.task)
        return int(scored.sum()) if divisor == "scored" or self.unit == "statement" else len(scored)

    def _reference_size(self, task: Task) -> int:
        if self.n_lines is not None:
            return self.n_lines
        reference = task.reference or ""
        if self.unit == "statement":
            count = n_statements(task.prompt if task.prompt_is_code else "", reference)
        else:
            count = sum(not is_neutral(line) for line in reference.split("\n"))
        if not count:
            raise TaskError(f"task {task.task_id!r} has no reference to count {self.unit}s of; give n_lines=")
        return count
