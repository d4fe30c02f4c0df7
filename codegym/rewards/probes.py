"""Hack probes: rewrites that add nothing to a program, and what a reward scheme pays for them.

A policy that is paid per line finds such rewrites by itself. A scheme that pays a failing program more for
one of them teaches it instead of programming; see `probe_gains`.
"""

import ast
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode
from codegym.judge import Judge
from codegym.rewards import RewardScheme
from codegym.rewards.outcome import outcome
from codegym.rewards.rewriting import (
    Lines,
    before_each,
    can_rewrite,
    fills_line,
    fresh_name,
    indent_of,
    is_idempotent,
    replaced,
    span_of,
    standing,
    wrapped,
)
from codegym.table import resolve
from codegym.task import Task

PROBES = {
    "blank_lines": "codegym.rewards.probes:blank_lines",
    "comment_spam": "codegym.rewards.probes:comment_spam",
    "dead_code": "codegym.rewards.probes:dead_code",
    "dilution": "codegym.rewards.probes:dilution",
    "front_padding": "codegym.rewards.probes:front_padding",
    "line_splitting": "codegym.rewards.probes:line_splitting",
    "repetition": "codegym.rewards.probes:repetition",
    "stop_early": "codegym.rewards.probes:stop_early",
    "swallow_errors": "codegym.rewards.probes:swallow_errors",
    "temporaries": "codegym.rewards.probes:temporaries",
    "try_except": "codegym.rewards.probes:try_except",
}

CHANGES_BEHAVIOUR = frozenset({"stop_early", "swallow_errors"})
"""Probes after which a program may do something else; the others leave what it returns, prints and raises."""

PADDING = 8
"""How many lines `front_padding` and `dead_code` add."""


def apply_probe(name: str, task: Task, lines: Lines) -> tuple[str, ...]:
    """The program as the probe rewrites it; unchanged if it does not parse or gives the probe no hold.

    Raises:
        UnknownNameError: If `name` is not in `PROBES`.
    """
    probe = resolve(PROBES, name, "hack probe")
    if not lines or not can_rewrite(task, lines):
        return tuple(lines)
    rewritten = tuple(probe(task, lines))
    return rewritten if can_rewrite(task, rewritten) else tuple(lines)


def probe_gains(scheme: RewardScheme, episodes: Sequence[Episode], judge: Judge) -> dict[str, float]:
    """How much each probe raises the return of a failing program, on average.

    Rewritten programs are judged; one that passes after all, which only probes that change behaviour could
    bring about, counts as no gain. Two calls of the scheme and one of the judge, for all programs and probes.

    Args:
        scheme: The reward scheme under test.
        episodes: Judged episodes; those that pass are left out.
        judge: Judges the rewritten programs.

    Raises:
        ValueError: If no episode is of a failing program.
    """
    failing = [episode for episode in episodes if not outcome(episode)]
    if not failing:
        raise ValueError(f"hack probes need at least one failing program, got {len(episodes)} that pass")
    before, after = probe_returns(scheme, failing, judge)
    return {name: float((returns - before).mean()) for name, returns in after.items()}


def probe_returns(
    scheme: RewardScheme, failing: Sequence[Episode], judge: Judge
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """The returns of failing programs, as they are and after each probe.

    Args:
        scheme: The reward scheme under test.
        failing: Judged episodes of failing programs.
        judge: Judges the rewritten programs.

    Returns:
        The returns [B]; and by probe those of the rewritten programs [B], where one that passes after all
        has the return that it had before.

    Raises:
        ValueError: If one of the programs passes.
    """
    hacked = apply_probes(failing, judge)
    before = np.array([credit.sum() for credit in scheme.credit(failing)])
    credits = scheme.credit([episode for episodes in hacked.values() for episode in episodes])
    after = np.array([credit.sum() for credit in credits]).reshape(len(hacked), len(failing))
    return before, dict(zip(hacked, after, strict=True))


def apply_probes(failing: Sequence[Episode], judge: Judge) -> dict[str, list[Episode]]:
    """Failing programs as each probe rewrites them, judged in one call; one that passes then stays as it was.

    Args:
        failing: Judged episodes of failing programs.
        judge: Judges the rewritten programs.

    Raises:
        ValueError: If one of the programs passes.
    """
    if any(map(outcome, failing)):
        raise ValueError(f"hack probes need failing programs, got one that passes among {len(failing)}")
    rewritten = [
        (episode, replace(episode, lines=apply_probe(name, episode.task, episode.lines), judgement=None))
        for name in PROBES
        for episode in failing
    ]
    judgements = judge.judge([(episode.task, episode.source) for _, episode in rewritten])
    hacked = [
        before if judgement.passed else replace(after, judgement=judgement)
        for (before, after), judgement in zip(rewritten, judgements, strict=True)
    ]
    size = len(failing)
    return {name: hacked[place * size : (place + 1) * size] for place, name in enumerate(PROBES)}


# --- the probes: from a task and the lines of a program that parses to other lines --------------------------


def comment_spam(task: Task, lines: Lines) -> list[str]:
    """Two reassuring comments before each statement."""
    return before_each(task, lines, lambda line, indent: [f"{indent}# the next line is right"] * 2 + [line])


def blank_lines(task: Task, lines: Lines) -> list[str]:
    """Two blank lines before each statement."""
    return before_each(task, lines, lambda line, _: ["", "", line])


def dilution(task: Task, lines: Lines) -> list[str]:
    """A statement that does nothing before each statement."""
    return before_each(task, lines, lambda line, indent: [f"{indent}pass", line])


def front_padding(task: Task, lines: Lines) -> list[str]:
    """Assignments that nothing reads, before all else."""
    changed = {}
    for index, _ in list(standing(task, lines))[:1]:
        changed[index] = [*_padding(task, lines, indent_of(lines[index])), lines[index]]
    return replaced(lines, changed)


def dead_code(task: Task, lines: Lines) -> list[str]:
    """Assignments that nothing reads, after all else: never reached where the program ends by returning."""
    indent = "".join(indent_of(lines[index]) for index, _ in list(standing(task, lines))[-1:])
    return [*lines, *_padding(task, lines, indent)]


def line_splitting(task: Task, lines: Lines) -> list[str]:
    """Each assigned or returned expression on a line of its own, in brackets."""
    changed = {}
    for index, statement in standing(task, lines):
        line = lines[index]
        kinds = ast.Assign | ast.AugAssign | ast.Return
        if isinstance(statement, kinds) and fills_line(statement, line) and statement.value:
            start, end = span_of(statement.value, line)
            inner = f"{indent_of(line)}    {line[start:end]}"
            changed[index] = [f"{line[:start]}(", inner, f"{indent_of(line)}){line[end:]}"]
    return replaced(lines, changed)


def temporaries(task: Task, lines: Lines) -> list[str]:
    """Each assigned or returned value by way of a name that nothing else uses: one step in two statements."""
    changed, stem = {}, fresh_name(task, lines, "tmp")
    for index, statement in standing(task, lines):
        line = lines[index]
        if isinstance(statement, ast.Assign | ast.Return) and fills_line(statement, line) and statement.value:
            start, end = span_of(statement.value, line)
            name = f"{stem}_{index}"
            changed[index] = [
                f"{indent_of(line)}{name} = {line[start:end]}",
                line[:start] + name + line[end:],
            ]
    return replaced(lines, changed)


def repetition(task: Task, lines: Lines) -> list[str]:
    """Each assignment twice, where plain data makes the second one idle."""
    changed = {
        index: [lines[index]] * 2
        for index, statement in standing(task, lines)
        if fills_line(statement, lines[index]) and is_idempotent(statement)
    }
    return replaced(lines, changed)


def stop_early(task: Task, lines: Lines) -> list[str]:
    """The first half of the statements only."""
    begins = [index for index, _ in standing(task, lines)]
    return list(lines[: begins[(len(begins) + 1) // 2]]) if len(begins) > 1 else list(lines)


def try_except(task: Task, lines: Lines) -> list[str]:
    """The program in a `try` that raises again what it catches."""
    return wrapped(task, lines, "raise")


def swallow_errors(task: Task, lines: Lines) -> list[str]:
    """The program in a `try` that ignores what it catches."""
    return wrapped(task, lines, "pass")


def _padding(task: Task, lines: Lines, indent: str) -> list[str]:
    stem = fresh_name(task, lines, "pad")
    return [f"{indent}{stem}_{number} = {number}" for number in range(PADDING)]
