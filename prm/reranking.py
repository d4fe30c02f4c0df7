"""Best of n: how many more tasks are solved if a reward model, a vote, or nobody chooses among n programs.

Every number is an expectation over all choices of n of a task's N programs, and over all orders of programs
that tie: nothing is drawn but the tasks of the intervals.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegym.episode import is_neutral
from codegym.judge import Judge
from codegym.table import check_name
from codegym.task import Task
from prm.behaviour import observe
from prm.bootstrap import Estimate, bootstrap
from prm.labeling import task_of
from prm.model import ProcessRewardModel
from prm.program import SampledProgram

AGGREGATES: Mapping[str, Callable[[NDArray[np.float64]], float]] = {
    "min": lambda probabilities: float(probabilities.min()),
    "mean": lambda probabilities: float(probabilities.mean()),
    "last": lambda probabilities: float(probabilities[-1]),
    "product": lambda probabilities: float(probabilities.prod()),
}
"""From the probabilities of a program's lines, (score + 1) / 2, to what it is ranked by; all in [0, 1]."""

SIZES = (1, 2, 4, 8)


def aggregate(name: str, scores: NDArray[np.float64], lines: Sequence[str]) -> float:
    """What a program is worth by the scores of its lines; 0 if all of them are blank or comments.

    Args:
        name: An entry of `AGGREGATES`.
        scores: In [-1, 1], one per line. [L]
        lines: The program's lines; blank and comment lines have no say. [L]

    Raises:
        UnknownNameError: If there is no such aggregate.
        ValueError: If scores and lines differ in number.
    """
    check_name(name, AGGREGATES, "aggregate")
    if len(scores) != len(lines):
        raise ValueError(f"{len(lines)} lines but {len(scores)} scores")
    probabilities = (scores[[not is_neutral(line) for line in lines]] + 1) / 2
    return AGGREGATES[name](probabilities) if len(probabilities) else 0.0


# --- expectations over the choices of n of N programs -------------------------------------------------------


def best_of(n: int, values: Sequence[float] | NDArray[np.float64], passed: Sequence[bool]) -> float:
    """Chance that the program of highest value passes; equal ones are as likely to be taken.

    Args:
        n: Programs to choose from.
        values: One per program. [N]
        passed: Which programs pass. [N]

    Raises:
        ValueError: If n is not in 1 ... N.
    """
    _check_size(n, len(passed))
    flags = np.asarray(passed, dtype=bool)
    levels, level = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True)
    chance, n_below = 0.0, 0
    for index in range(len(levels)):
        members = flags[level == index]
        ways = comb(n_below + len(members), n) - comb(n_below, n)
        chance += float(members.mean()) * (ways / comb(len(flags), n))
        n_below += len(members)
    return chance


def any_of(n: int, passed: Sequence[bool]) -> float:
    """Chance that any of the n programs passes, pass@n (arXiv:2107.03374): the oracle's choice.

    Raises:
        ValueError: If n is not in 1 ... N.
    """
    _check_size(n, len(passed))
    return 1.0 - comb(len(passed) - sum(map(bool, passed)), n) / comb(len(passed), n)


def majority_of(n: int, votes: Sequence[int | None], passed: Sequence[bool]) -> float:
    """Chance that a program passes which behaves as most of the n do (self-consistency, arXiv:2203.11171).

    Args:
        n: Programs to choose from.
        votes: How each program behaves; None if it has no vote, which wins only if nobody has one. [N]
        passed: Which programs pass. [N]

    Raises:
        ValueError: If n is not in 1 ... N.
    """
    _check_size(n, len(passed))
    flags = np.asarray(passed, dtype=bool)
    sizes = Counter(vote for vote in votes if vote is not None)
    silent = np.array([vote is None for vote in votes])
    chance = float(flags[silent].mean()) * comb(int(silent.sum()), n) if silent.any() else 0.0
    wins: dict[int, float] = {}
    for vote, size in sizes.items():
        if size not in wins:
            others = [other for name, other in sizes.items() if name != vote]
            wins[size] = _ways_to_win(n, size, others, int(silent.sum()))
        share = float(np.mean([flag for flag, other in zip(flags, votes, strict=True) if other == vote]))
        chance += share * wins[size]
    return chance / comb(len(flags), n)


def _ways_to_win(n: int, size: int, others: Sequence[int], n_silent: int) -> float:
    """Choices of n in which a behaviour of `size` programs has most votes; shared among those that tie."""
    ways = 0.0
    for most in range(1, min(size, n) + 1):
        # choices of other programs, by how many they are and how many behaviours among them have `most` votes
        reached = {(j, 0): comb(n_silent, j) for j in range(min(n_silent, n - most) + 1)}
        for other in others:
            fresh: Counter[tuple[int, int]] = Counter()
            for (count, ties), so_far in reached.items():
                for votes in range(min(other, most, n - most - count) + 1):
                    fresh[count + votes, ties + (votes == most)] += so_far * comb(other, votes)
            reached = dict(fresh)
        alone = comb(size, most)
        ways += sum(alone * c / (ties + 1) for (count, ties), c in reached.items() if count == n - most)
    return ways


def _check_size(n: int, n_programs: int) -> None:
    if not 1 <= n <= n_programs:
        raise ValueError(f"n must be in 1 ... {n_programs}, the number of programs, got {n}")


# --- a reward model among other ways to choose --------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reranking:
    """How many tasks are solved by each way to choose among n programs.

    Attributes:
        n_tasks: Tasks compared.
        n_programs: Their programs.
        n_left_out: Tasks that have fewer programs than the largest n.
        solved: Share of tasks by way to choose and n: "random", "majority" (if programs were observed),
            "prm min" and so on, and "oracle", which takes a passing program if there is one.
        gap_closed: Of what the oracle gains over random choice, the share that a way to choose gains; not
            defined for n = 1, where all ways are one.
    """

    n_tasks: int
    n_programs: int
    n_left_out: int
    solved: Mapping[str, Mapping[int, Estimate]]
    gap_closed: Mapping[str, Mapping[int, Estimate]]

    def to_row(self) -> dict[str, Any]:
        """A JSON-able row."""
        return asdict(self)


def rerank(
    model: ProcessRewardModel,
    programs: Sequence[SampledProgram],
    *,
    tasks: Mapping[str, Task] | None = None,
    judge: Judge | None = None,
    sizes: Sequence[int] = SIZES,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Reranking:
    """Choose among the programs of each task by a reward model, by majority, at random and by the verdicts.

    Args:
        model: The reward model; reads the exact tokens.
        programs: Judged programs, several per task.
        tasks: By id, for the majority.
        judge: Runs the programs for the majority, on the inputs of the tests; no majority without it.
        sizes: The n to choose from.
        n_bootstrap: Resamples of tasks for the intervals.
        seed: Of the resampling.

    Raises:
        TaskError: If a program's task is missing, and the majority is wanted.
        ValueError: If no task has as many programs as the largest n.
    """
    programs, n_left_out = _with_enough(programs, max(sizes))
    columns: dict[str, Sequence[Any]] = {"passed": [program.passed for program in programs]}
    scores = model.score_programs(programs)
    for name in AGGREGATES:
        values = [aggregate(name, s, p.lines) for s, p in zip(scores, programs, strict=True)]
        columns[f"prm {name}"] = values
    if judge is not None:
        written = [(task_of(program, tasks or {}), program.completion) for program in programs]
        columns["majority"] = observe(judge, written)
    of_task: dict[str, list[int]] = {}
    for index, program in enumerate(programs):
        of_task.setdefault(program.task_id, []).append(index)
    mine = [
        {name: [column[i] for i in places] for name, column in columns.items()} for places in of_task.values()
    ]
    chances = {n: [_chances(n, parts) for parts in mine] for n in sizes}
    estimates = bootstrap(partial(_compared, chances), list(of_task), n_resamples=n_bootstrap, seed=seed)
    solved, gap_closed = (
        {way: {n: estimates[f"{kind} {way} {n}"] for n in sizes} for way in chances[sizes[0]][0]}
        for kind in ("solved", "gap_closed")
    )
    return Reranking(
        n_tasks=len(of_task),
        n_programs=len(programs),
        n_left_out=n_left_out,
        solved=solved,
        gap_closed={way: row for way, row in gap_closed.items() if way not in ("random", "oracle")},
    )


def _with_enough(programs: Sequence[SampledProgram], n: int) -> tuple[list[SampledProgram], int]:
    """The programs of tasks that have at least `n`, and how many tasks have fewer."""
    counts = Counter(program.task_id for program in programs)
    if max(counts.values(), default=0) < n:
        most = max(counts.values(), default=0)
        raise ValueError(f"no task has {n} programs to choose from; the most that one has is {most}")
    enough = [program for program in programs if counts[program.task_id] >= n]
    return enough, sum(count < n for count in counts.values())


def _chances(n: int, parts: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """The chance that each way to choose among n programs of one task solves it."""
    passed = parts["passed"]
    chances = {"random": float(np.mean(passed))}
    if "majority" in parts:
        chances["majority"] = majority_of(n, parts["majority"], passed)
    for name in AGGREGATES:
        chances[f"prm {name}"] = best_of(n, parts[f"prm {name}"], passed)
    return {**chances, "oracle": any_of(n, passed)}


def _compared(
    chances: Mapping[int, Sequence[Mapping[str, float]]], weights: NDArray[np.float64]
) -> dict[str, float | None]:
    """Shares of tasks solved, and of the gap between random choice and oracle that is closed."""
    numbers: dict[str, float | None] = {}
    for n, rows in chances.items():
        means = {way: float(np.average([row[way] for row in rows], weights=weights)) for way in rows[0]}
        gap = means["oracle"] - means["random"]
        for way, mean in means.items():
            numbers[f"solved {way} {n}"] = mean
            numbers[f"gap_closed {way} {n}"] = (mean - means["random"]) / gap if gap > 1e-12 else None
    return numbers
