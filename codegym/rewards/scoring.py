"""Asking a line scorer, and holding it to its contract."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode
from codegym.rewards import LineScorer
from codegym.rewards.remote import SERVED, RemoteScorer
from codegym.rewards.score_batch import score
from codegym.table import resolve

LINE_SCORERS = {"prm": "prm.model:ProcessRewardModel"}


def load_scorer(prm: str) -> LineScorer:
    """The process reward model saved in a folder, or the one served at "unix:/path/of/the/socket"."""
    if prm.startswith(SERVED):
        return RemoteScorer(prm.removeprefix(SERVED))
    model: LineScorer = resolve(LINE_SCORERS, "prm", "line scorer").from_pretrained(prm)
    return model


def checked_scores(scorer: LineScorer, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
    """The scores of programs, clipped to [-1, 1]. [n_lines] each.

    Raises:
        ValueError: If the scorer does not return one finite score per line of each program.
    """
    if not episodes:
        return []
    batch = score(scorer, episodes)
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
