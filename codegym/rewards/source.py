"""What can be read off a program's text without running it: programs are hostile."""

import ast
import codeop
import re
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codegym.episode import is_neutral
from codegym.task import Task

NEWLINE = re.compile(r"\r\n|\r|\n")
# the compiler's flag that tells text which only lacks its end from text that is wrong; absent from the stubs
_TELL_INCOMPLETE: int = vars(codeop)["PyCF_ALLOW_INCOMPLETE_INPUT"]
_CONTAINERS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
UNPARSABLE = (SyntaxError, ValueError, MemoryError, RecursionError)
"""What the parser raises for text that is no program: the last two for nesting too deep for it."""

Completeness = Literal["complete", "incomplete", "broken"]


def parse(source: str, flags: int = 0) -> ast.Module:
    """The syntax tree of a module; warnings about the text are not ours to show.

    Raises:
        SyntaxError, ValueError, MemoryError, RecursionError: If the text is no module.
    """
    with warnings.catch_warnings(action="ignore"):
        tree: ast.Module = compile(source, "<program>", "exec", ast.PyCF_ONLY_AST | flags)
    return tree


@lru_cache(maxsize=1024)
def completeness(source: str) -> Completeness:
    """Whether a module parses, would parse with more lines, or never will (the distinction of `codeop`)."""
    try:
        parse(source)
    except UNPARSABLE:
        try:
            parse(source, _TELL_INCOMPLETE)
        except UNPARSABLE as error:
            return "incomplete" if "incomplete input" in str(error) else "broken"
    return "complete"


def broken_line(task: Task, lines: Sequence[str]) -> int | None:
    """Index of the line after which the program can no longer be repaired by writing on, if there is one."""

    def is_broken(n_lines: int) -> bool:
        return completeness(task.assemble(completion_of(lines[:n_lines]))) == "broken"

    if not is_broken(len(lines)) or is_broken(0):
        return None  # a prompt that does not parse is no line's fault
    return bisect_left(range(len(lines) + 1), True, key=is_broken) - 1


def statement_ends(task: Task, lines: Sequence[str]) -> NDArray[np.bool_]:
    """Marks the last line of each statement; of a program, or of one still being written.

    A statement is one that stands in a module, function or class: `for`, `if` and the like are one statement
    with all they hold, while a definition is as many as stand in it. Bare constants and `pass` compute
    nothing and are none. Lines after the longest prefix that parses have not finished a statement. Where even
    the prompt does not parse, every line that is not blank or comment is taken for a statement. [n_lines].
    """
    return np.array(_statement_ends(task.assemble(""), tuple(lines)), dtype=bool)


@lru_cache(maxsize=4096)
def n_statements(prompt: str, completion: str) -> int:
    """Statements of a completion after a prompt of code."""
    return sum(_statement_ends(prompt, tuple(completion.split("\n"))))


# a program grows by a line at a time, and its statements are asked for before and after each
@lru_cache(maxsize=4096)
def _statement_ends(prompt: str, lines: tuple[str, ...]) -> tuple[bool, ...]:
    if completeness(prompt) == "broken":
        return tuple(not is_neutral(line) for line in lines)
    ends = physical_ends(prompt, lines)
    marked = [False] * len(lines)
    for statement in statements(_longest_parsable(prompt, lines, ends)):
        last = statement.end_lineno or 0
        if last > count_newlines(prompt) and not is_idle(statement):
            marked[bisect_left(ends, last)] = True
    return tuple(marked)


def statements(tree: ast.Module | ast.stmt) -> Iterator[ast.stmt]:
    """The statements that stand in a module, its functions and classes, in order."""
    for node in getattr(tree, "body", []):
        if isinstance(node, _CONTAINERS):
            yield from statements(node)
        else:
            yield node


def line_index(task: Task, lines: Sequence[str], module_line: int) -> int | None:
    """Index of the line that holds a 1-based line of the judged module; None for one of the prompt's."""
    prompt = task.assemble("")
    index = bisect_left(physical_ends(prompt, lines), module_line)
    return index if module_line > count_newlines(prompt) and index < len(lines) else None


def physical_ends(prompt: str, lines: Sequence[str]) -> list[int]:
    """Python's number of the line on which each line ends; a carriage return ends one too. [n_lines]."""
    counts = (count_newlines(f"{line}\n") for line in lines)
    return list(accumulate(counts, initial=count_newlines(prompt)))[1:]


def count_newlines(text: str) -> int:
    """Line ends as Python counts them: a carriage return is one too."""
    return len(NEWLINE.findall(text))


def _longest_parsable(prompt: str, lines: Sequence[str], ends: Sequence[int]) -> ast.Module:
    n_lines = len(lines)
    while n_lines > 0:
        try:
            return parse(prompt + completion_of(lines[:n_lines]))
        except SyntaxError as error:
            # Any prefix that holds the line of the error is wrong too.
            n_lines = min(n_lines - 1, bisect_left(ends, error.lineno or ends[-1]))
        except UNPARSABLE:
            n_lines -= 1
    return ast.Module(body=[], type_ignores=[])


def is_idle(statement: ast.stmt) -> bool:
    """Whether a statement is `pass` or a bare constant, such as a docstring."""
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Pass)


def completion_of(lines: Sequence[str]) -> str:
    """The text of lines, each ended by a newline."""
    return "".join(f"{line}\n" for line in lines)
