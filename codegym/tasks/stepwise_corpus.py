"""A deliberately imperfect corpus of stepwise programs, to train the starting policy on.

The law of the corpus: program number i has `shortest + i % (longest - shortest + 1)` steps, each a
uniformly drawn operation with a uniformly drawn parameter, the whole belonging to the train split. Every
step is written independently of all others: with probability `bug_rate` of its operation by one of the
`wrong` templates, else by one of the `right` ones, uniformly in both cases. The bug rates are .68 for 14
operations (a policy that imitates the corpus greedily gets these wrong), .32 for 11 and .05 for 11. Returns
are always right. So length does not change how often a step is wrong, and a program of N steps is right
with probability `pass_rate(N)`, the mean of (1 - bug_rate) to the power N: .62, .39, .24, .15 for 1 to 4
steps, .014, .0087, .0054, .0034 for 9 to 12.
"""

from collections.abc import Iterable, Iterator
from math import prod
from random import Random

from codegym.tasks.operations import OPERATIONS
from codegym.tasks.stepwise_programs import (
    ENDINGS,
    Step,
    check_horizons,
    draw_step,
    split_of,
    write_program,
    write_prompt,
)


def corpus(n: int, *, seed: int = 0, horizons: tuple[int, int] = (1, 12)) -> Iterator[tuple[str, str]]:
    """Yield `n` pairs of prompt and completion by the law above; a completion ends with a newline.

    Raises:
        ValueError: If `n` is negative or `horizons` are not 1 <= shortest <= longest.
    """
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")
    low, high = check_horizons(horizons)
    rng = Random(f"stepwise corpus {seed}")
    return (_write(rng, horizon=low + number % (high - low + 1)) for number in range(n))


def pass_rate(horizon: int) -> float:
    """Probability that a corpus program of `horizon` steps is right."""
    mean = sum(1 - operation.bug_rate for operation in OPERATIONS.values()) / len(OPERATIONS)
    return float(mean**horizon)


def pass_rate_of(operations: Iterable[str]) -> float:
    """Probability that a corpus program of just these operations (by name) is right.

    The mean over a task set's `metadata["operations"]` is what a perfect imitator of the corpus would pass.
    """
    return prod(1 - OPERATIONS[name].bug_rate for name in operations)


def _write(rng: Random, *, horizon: int) -> tuple[str, str]:
    steps: list[Step] = [draw_step(rng) for _ in range(horizon)]
    while split_of(steps) != "train":
        steps[-1] = draw_step(rng)
    ending = rng.choice(ENDINGS)
    templates = [
        rng.choice(step.operation.wrong if rng.random() < step.operation.bug_rate else step.operation.right)
        for step in steps
    ]
    return write_prompt(rng, steps, ending), write_program(templates, steps, ending)
