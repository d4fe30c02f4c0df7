"""Credit assignments: what each line of a program earns by the scores of all, before any weight."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

UNBOUNDED = float("inf")


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a credit assignment may need besides the scores."""

    divisor: int  # T, T' or T0; see `Form.divisor`
    eta: float  # threshold of "clip"
    temperature: float  # of "softmin"


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """One way to turn the scores of lines into shares."""

    shares: Callable[[Floats, Terms], Floats]  # what each scored line earns, from their scores
    total: tuple[float, float]  # the least and the most that the shares of a program add up to
    lambdas: tuple[float, float]  # default weights (on failure, on a pass)
    divisor: Literal["lines", "scored", "reference"] | None = None  # the program's lines, those scored, T0
    cap: float | None = None  # default bound on the size of the running total
    is_causal: bool = True  # whether a line's share does not depend on the lines after it


def _progress(scores: Floats, terms: Terms) -> Floats:
    return (scores + 1.0) / 2.0 / terms.divisor


def _mean(scores: Floats, terms: Terms) -> Floats:
    return scores / max(terms.divisor, 1)


def _sum(scores: Floats, _: Terms) -> Floats:
    return scores


def _min(scores: Floats, _: Terms) -> Floats:
    shares = np.zeros_like(scores)
    if len(scores):
        lowest = int(np.argmin(scores))
        shares[lowest] = scores[lowest]
    return shares


def _softmin(scores: Floats, terms: Terms) -> Floats:
    if not len(scores):
        return scores
    weights: Floats = np.exp((scores.min() - scores) / terms.temperature)
    return weights * scores / float(weights.sum())


def _delta(scores: Floats, _: Terms) -> Floats:
    if not len(scores):
        return scores
    # the last line's own score is left to the tests' verdict, which comes right after it
    kept: Floats = np.append(scores[:-1], 0.0)
    following: Floats = np.append(kept[1:], 0.0)
    return kept - following


def _clip(scores: Floats, terms: Terms) -> Floats:
    return np.minimum(scores - terms.eta, 0.0)


_PSGPO_LAMBDAS = (0.25, 0.025)
_UNIT = (-1.0, 1.0)

FORMS: dict[str, Form] = {
    "progress": Form(
        shares=_progress, total=(0.0, UNBOUNDED), lambdas=(1.0, 0.1), divisor="reference", cap=0.95
    ),
    "mean": Form(shares=_mean, total=_UNIT, lambdas=_PSGPO_LAMBDAS, divisor="lines"),
    "scored_mean": Form(shares=_mean, total=_UNIT, lambdas=_PSGPO_LAMBDAS, divisor="scored"),
    "sum": Form(shares=_sum, total=(-UNBOUNDED, UNBOUNDED), lambdas=_PSGPO_LAMBDAS),
    "min": Form(shares=_min, total=_UNIT, lambdas=_PSGPO_LAMBDAS, is_causal=False),
    "softmin": Form(shares=_softmin, total=_UNIT, lambdas=_PSGPO_LAMBDAS, is_causal=False),
    "delta": Form(shares=_delta, total=_UNIT, lambdas=_PSGPO_LAMBDAS, is_causal=False),
    "clip": Form(shares=_clip, total=(-UNBOUNDED, 0.0), lambdas=_PSGPO_LAMBDAS),
}
"""Formulas and sources are in `codegym.rewards.process.ProcessReward`."""


def capped(shares: Floats, cap: float | None) -> Floats:
    """Shares whose running total stays within ±cap: what goes beyond it is not paid."""
    if cap is None:
        return shares
    return np.diff(np.clip(np.cumsum(shares), -cap, cap), prepend=0.0)


def potential_shares(potential: Floats, n_actions: int, *, gamma: float, is_over: bool) -> Floats:
    """γ · Φ(s') - Φ(s) of each action, with Φ = 0 for the empty and for the finished program. [n_actions].

    Args:
        potential: Φ after each line. [n_lines]
        n_actions: The program's lines, and one more for END_OF_PROGRAM.
        gamma: Discount of the learner.
        is_over: Whether the last action finished the program.
    """
    before: Floats = np.append(0.0, potential)[:n_actions]
    after: Floats = np.append(potential, 0.0)[:n_actions]
    if is_over:
        after[-1:] = 0.0
    return gamma * after - before


def held(values: Floats, mask: NDArray[np.bool_]) -> Floats:
    """Each value where the mask holds, elsewhere the last such value before it, 0 before the first."""
    latest = np.maximum.accumulate(np.where(mask, np.arange(1, len(values) + 1), 0))
    padded: Floats = np.append(0.0, values)
    return padded[latest]
