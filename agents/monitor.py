"""What a training run says about itself: time per phase, the programs' shape, the reward model's honesty."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from agents.rollout import Rollout
from codegym.episode import Episode, is_neutral
from codegym.rewards import LineScorer
from codegym.task import Task
from prm.completion import Completion


class PhaseTimer:
    """Wall seconds per phase of an iteration, and what was done beside other phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.hidden: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block's time as `name`'s."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def hide(self, name: str, worked: float) -> None:
        """Say how long a phase's work took; what the phase did not wait for ran beside other phases."""
        self.hidden[name] = max(0.0, worked - self.seconds.get(name, 0.0))

    def rate(self, amount: float, phase: str) -> float:
        """Amount per second of work on a phase."""
        return amount / max(self.seconds.get(phase, 0.0) + self.hidden.get(phase, 0.0), 1e-9)

    def waited(self, phase: str) -> float:
        """The share of the work on a phase that was not hidden behind other phases."""
        seconds = self.seconds.get(phase, 0.0)
        return seconds / max(seconds + self.hidden.get(phase, 0.0), 1e-9)

    @property
    def elapsed(self) -> float:
        """Seconds since the timer was made."""
        return max(time.perf_counter() - self._start, 1e-9)

    def shares(self) -> dict[str, float]:
        """Each phase's share of the time since the timer was made; the rest is "other"."""
        total = self.elapsed
        shares = {name: seconds / total for name, seconds in self.seconds.items()}
        return {**shares, "other": 1.0 - sum(shares.values())}


class LastScores:
    """A line scorer that remembers its last batch, so that reward and monitoring pay for it once.

    Args:
        scorer: The scorer asked when the batch is a new one.
    """

    def __init__(self, scorer: LineScorer) -> None:
        self.scorer = scorer
        self._episodes: list[Episode] = []
        self._scores: list[NDArray[np.float64]] = []

    def score(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """One score per line, from memory if these very episodes were the last ones scored."""
        same = len(episodes) == len(self._episodes) and all(
            new is old for new, old in zip(episodes, self._episodes, strict=True)
        )
        if not same:
            self._scores = self.scorer.score(episodes)
            self._episodes = list(episodes)
        return self._scores


def program_metrics(episodes: Sequence[Episode], completions: Sequence[Completion]) -> dict[str, float]:
    """How long the programs are and how much of the task they address.

    A policy that is paid per line may learn to stop early or to pad; both show here before they show in
    the pass rate. `steps_addressed` is there where tasks carry a trace of the values to compute.
    """
    metrics = {
        "lines_per_program": _mean([len(episode.lines) for episode in episodes]),
        "tokens_per_program": _mean([len(completion.token_ids) for completion in completions]),
        "finished": _mean([completion.finished for completion in completions]),
        "has_return": _mean([any(_returns(line) for line in episode.lines) for episode in episodes]),
    }
    addressed = [
        all(any(re.match(rf"\s*{name}\s*=", line) for line in episode.lines) for name in names)
        for episode in episodes
        if (names := _traced_names(episode.task))
    ]
    if addressed:
        metrics["steps_addressed"] = _mean(addressed)
    return metrics


def rollout_metrics(
    rollout: Rollout, scorer: LineScorer | None, oracle: LineScorer | None
) -> dict[str, float]:
    """All that a rollout's programs say, by log key."""
    episodes = rollout.episodes
    passed = [episode.judgement is not None and episode.judgement.passed for episode in episodes]
    scores = score_metrics(episodes, scorer, oracle)
    shape = program_metrics(episodes, rollout.completions) | horizon_metrics(episodes)
    if "prefix_correct" in scores:
        shape["prefix_correct"] = scores.pop("prefix_correct")
    return {
        "rollout/ep_rew_mean": float(rollout.batch.rewards.sum() / len(episodes)),
        "rollout/ep_len_mean": _mean([episode.n_actions for episode in episodes]),
        "rollout/success_rate": _mean(passed),
        **{f"codegen/{name}": value for name, value in shape.items()},
        **{f"prm/{name}": value for name, value in scores.items()},
    }


def speed_metrics(rollout: Rollout, timer: PhaseTimer, n_epochs: int) -> dict[str, float]:
    """Throughput and share of time per phase, by log key; prompt tokens count as updated, not as sampled."""
    batch = rollout.batch
    metrics = {
        "iteration_seconds": timer.elapsed,
        "fps": sum(episode.n_actions for episode in rollout.episodes) / timer.elapsed,
        "sampled_tokens_per_second": timer.rate(batch.n_tokens, "sampling"),
        "updated_tokens_per_second": timer.rate(int(batch.lengths.sum()) * n_epochs, "update"),
        "verdicts_per_second": timer.rate(len(batch), "judging"),
        "judging_wait_share": timer.waited("judging"),
        **{f"share_{name}": share for name, share in timer.shares().items()},
    }
    return {f"time/{name}": value for name, value in metrics.items()}


def passes_by_horizon(episodes: Sequence[Episode]) -> dict[int, list[bool]]:
    """Whether each judged program passed, by the number of steps that its task asks for, if it says so."""
    groups: dict[int, list[bool]] = {}
    for episode in episodes:
        horizon = episode.task.metadata.get("horizon")
        if isinstance(horizon, int) and episode.judgement is not None:
            groups.setdefault(horizon, []).append(episode.judgement.passed)
    return dict(sorted(groups.items()))


def horizon_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Pass rate by the number of steps that a task asks for, where tasks say so."""
    groups = passes_by_horizon(episodes)
    return {f"pass_horizon_{horizon}": _mean(passed) for horizon, passed in groups.items()}


def score_metrics(
    episodes: Sequence[Episode], scorer: LineScorer | None, reference: LineScorer | None
) -> dict[str, float]:
    """What scorer and reference say about the programs.

    Args:
        episodes: Judged episodes.
        scorer: The reward model in use, if any.
        reference: Exact labels, if any.

    Returns:
        `prefix_correct`, right lines before the first wrong one over all lines (needs the reference);
        `score_on_failing`, the scorer's mean over lines of failing programs; and `gap`, that minus the
        reference's: it grows when a policy learns to please the scorer instead of the tests.
    """
    metrics: dict[str, float] = {}
    failing = [i for i, e in enumerate(episodes) if e.judgement is not None and not e.judgement.passed]
    exact = reference.score(episodes) if reference else None
    if exact is not None:
        shares = [_prefix_correct(e, labels) for e, labels in zip(episodes, exact, strict=True)]
        metrics["prefix_correct"] = _mean([share for share in shares if share is not None])
    if scorer is not None:
        scores = scorer.score(episodes)
        lines = [(i, m) for i in failing for m, line in enumerate(episodes[i].lines) if not is_neutral(line)]
        metrics["score_on_failing"] = _mean([scores[i][m] for i, m in lines])
        if exact is not None:
            metrics["gap"] = _mean([scores[i][m] - exact[i][m] for i, m in lines])
    return metrics


def _prefix_correct(episode: Episode, labels: NDArray[np.float64]) -> float | None:
    scored = [label for line, label in zip(episode.lines, labels, strict=True) if not is_neutral(line)]
    if not scored:
        return None
    right = next((m for m, label in enumerate(scored) if label < 0), len(scored))
    return right / len(scored)


def _traced_names(task: Task) -> list[str]:
    trace = task.metadata.get("trace")
    return [name for name in trace["values"] if name != "return"] if trace else []


def _returns(line: str) -> bool:
    return re.match(r"\s*return\b", line) is not None


def _mean(numbers: Sequence[float]) -> float:
    return float(np.mean(numbers)) if len(numbers) else float("nan")
