"""One call of a line scorer for all the programs of a step, whoever asks for their scores, and how often."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode
from codegym.rewards import LineScorer

_announced: ContextVar["_ScoreBatch | None"] = ContextVar("announced", default=None)


class _ScoreBatch:
    """The announced episodes and, once a scorer was asked, its scores of all of them."""

    def __init__(self, episodes: Sequence[Episode]) -> None:
        self._episodes = list(episodes)
        self._places = {id(episode): place for place, episode in enumerate(self._episodes)}
        self._scores: dict[int, Sequence[NDArray[np.float64]]] = {}

    def holds(self, episodes: Sequence[Episode]) -> bool:
        return all(id(episode) in self._places for episode in episodes)

    def scores(self, scorer: LineScorer, episodes: Sequence[Episode]) -> Sequence[NDArray[np.float64]]:
        if id(scorer) not in self._scores:
            found = scorer.score(self._episodes)
            if len(found) != len(self._episodes):
                raise ValueError(
                    f"the scorer returned {len(found)} results for {len(self._episodes)} episodes"
                )
            self._scores[id(scorer)] = found
        return [self._scores[id(scorer)][self._places[id(episode)]] for episode in episodes]


@contextmanager
def one_batch(episodes: Sequence[Episode]) -> Iterator[None]:
    """Within it, a scorer asked about some of these very episodes scores all of them, once.

    A scheme reads running programs in `step` and finished ones in `credit`, and a composed scheme asks once
    per part; for a model each of these calls is a forward pass.
    """
    token = _announced.set(_ScoreBatch(episodes))
    try:
        yield
    finally:
        _announced.reset(token)


def score(scorer: LineScorer, episodes: Sequence[Episode]) -> Sequence[NDArray[np.float64]]:
    """The scorer's answer; from the announced batch, where the episodes belong to it."""
    batch = _announced.get()
    return batch.scores(scorer, episodes) if batch and batch.holds(episodes) else scorer.score(episodes)
