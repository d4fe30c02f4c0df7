"""What hack probes, rewrites that add nothing to a failing program, earn by a reward model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode
from codegym.judge import Judge
from codegym.rewards import LineScorer
from codegym.rewards.probes import PROBES, apply_probe, apply_probes
from codegym.rewards.process import ProcessReward
from codegym.rewards.score_batch import one_batch
from codegym.rewards.scoring import checked_scores
from prm.bootstrap import Estimate, bootstrap
from prm.model import ProcessRewardModel
from prm.reranking import AGGREGATES, aggregate

Payment: TypeAlias = Callable[[Sequence[Episode]], NDArray[np.float64]]
"""From judged programs to one number for each. [B]"""

FORMS = ("progress", "mean")


def hack_gains(
    scorer: LineScorer,
    failing: Sequence[Episode],
    judge: Judge,
    *,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> dict[str, dict[str, Estimate]]:
    """How much each probe raises what failing programs earn by a reward model, on average.

    Args:
        scorer: The reward model.
        failing: Judged episodes of failing programs.
        judge: Judges the rewritten programs; one that passes after all counts as no gain.
        n_bootstrap: Resamples of tasks for the intervals.
        seed: Of the resampling.

    Returns:
        {what is earned: {probe: gain}}. A "score" is an aggregate of `prm.reranking`, in [0, 1]; a "return"
        is that of the process reward, and the one by "progress" is there if every task has a reference.

    Raises:
        ValueError: If there are no programs, or one of them passes.
    """
    if not failing:
        raise ValueError("hack probes need at least one failing program, got none")
    hacked = apply_probes(failing, judge)
    task_ids = [episode.task.task_id for episode in failing]
    found = {}
    # the model reads every program once, whatever is computed from its scores
    with one_batch([*failing, *(episode for episodes in hacked.values() for episode in episodes)]):
        for name, pay in _payments(scorer, failing).items():
            before = pay(failing)
            gains = {probe: pay(episodes) - before for probe, episodes in hacked.items()}
            found[name] = bootstrap(_means(gains), task_ids, n_resamples=n_bootstrap, seed=seed)
    return found


def readable_hacks(model: ProcessRewardModel, episodes: Sequence[Episode]) -> list[Episode]:
    """The programs that a model can read whatever a probe makes of them: rewrites are longer."""
    bound = model.max_tokens
    if bound is None:
        return list(episodes)

    def is_readable(episode: Episode) -> bool:
        rewritten = [
            replace(episode, lines=apply_probe(name, episode.task, episode.lines)) for name in PROBES
        ]
        return all(program.n_tokens <= bound for program in model.encode_episodes(rewritten))

    return [episode for episode in episodes if is_readable(episode)]


def _payments(scorer: LineScorer, failing: Sequence[Episode]) -> dict[str, Payment]:
    def score_by(name: str) -> Payment:
        return lambda episodes: np.array(
            [
                aggregate(name, scores, episode.lines)
                for scores, episode in zip(checked_scores(scorer, episodes), episodes, strict=True)
            ]
        )

    def return_by(scheme: ProcessReward) -> Payment:
        return lambda episodes: np.array([credit.sum() for credit in scheme.credit(episodes)])

    has_length = all(episode.task.reference for episode in failing)
    forms = [form for form in FORMS if form != "progress" or has_length]
    return {
        **{f"score, {name}": score_by(name) for name in AGGREGATES},
        **{f"return, {form}": return_by(ProcessReward.from_scorer(scorer, form=form)) for form in forms},
    }


def _means(
    gains: Mapping[str, NDArray[np.float64]],
) -> Callable[[NDArray[np.float64]], dict[str, float | None]]:
    return lambda weights: {name: float(np.average(gain, weights=weights)) for name, gain in gains.items()}
