"""Where the steps of a program end: at every line, or at every statement."""

import tokenize
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence

from codegym.episode import is_neutral
from codegym.table import check_name


def step_ends(lines: Sequence[str], step: str) -> list[int]:
    """Index of the last line of each step, in order; comment and blank lines are no steps.

    Args:
        lines: A program's lines, without their newlines.
        step: An entry of `STEPS`.

    Raises:
        UnknownNameError: If there is no such kind of step.
    """
    check_name(step, STEPS, "kind of step")
    return STEPS[step](lines)


def labels_of_lines(lines: Sequence[str], ends: Sequence[int], values: Sequence[float]) -> tuple[float, ...]:
    """Give each line its step's value; comment and blank lines are neutral (0), inside a step too.

    Args:
        lines: A program's lines.
        ends: From `step_ends`.
        values: One per step.
    """
    return tuple(
        0.0 if is_neutral(line) else float(values[bisect_left(ends, index)])
        for index, line in enumerate(lines)
    )


def _every_line(lines: Sequence[str]) -> list[int]:
    return [index for index, line in enumerate(lines) if not is_neutral(line)]


def _every_statement(lines: Sequence[str]) -> list[int]:
    """Ends of the statements; from the first line that cannot be read on, each line is a step of its own."""
    ends = list(_readable_statements(lines))
    rest = ends[-1] + 1 if ends else 0
    return ends + [rest + index for index in _every_line(lines[rest:])]


def _readable_statements(lines: Sequence[str]) -> Iterator[int]:
    # a lone carriage return or form feed must not shift the tokenizer's count of lines
    source = iter([line.replace("\r", " ").replace("\f", " ") + "\n" for line in lines])
    try:
        for token in tokenize.generate_tokens(lambda: next(source, "")):
            if token.type == tokenize.ERRORTOKEN:
                return
            if token.type == tokenize.NEWLINE:
                yield token.end[0] - 1
    except (tokenize.TokenError, SyntaxError, ValueError):
        return


STEPS: Mapping[str, Callable[[Sequence[str]], list[int]]] = {
    "line": _every_line,
    "statement": _every_statement,
}
"""Kinds of steps. A bracket or string over several lines is one statement."""
