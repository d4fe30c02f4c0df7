"""Rewriting the lines of a program that parses: what the hack probes are made of."""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from codegym.rewards.source import UNPARSABLE, completion_of, is_idle, line_index, parse, statements
from codegym.task import Task

Lines: TypeAlias = Sequence[str]
Rewrite: TypeAlias = Callable[[str, str], list[str]]
"""From a statement's first line and its indentation to the lines that take the place of that line."""

_PLAIN = (ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.expr_context)


def can_rewrite(task: Task, lines: Lines) -> bool:
    """Whether the program parses, and its lines are Python's: none starts in the prompt or holds two."""
    if any(mark in line for line in lines for mark in "\r\f") or not f"\n{task.assemble('')}".endswith("\n"):
        return False
    try:
        parse(source_of(task, lines))
    except UNPARSABLE:
        return False
    return True


def source_of(task: Task, lines: Lines) -> str:
    """The module that is judged."""
    return task.assemble(completion_of(lines))


def standing(task: Task, lines: Lines) -> Iterator[tuple[int, ast.stmt]]:
    """Statements that stand in modules and functions and begin a line, with the index of that line.

    Not those of class bodies, where another name is another attribute, nor docstrings and `__future__`
    imports, which must come first.
    """
    tree = parse(source_of(task, lines))
    attributes = {id(s) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for s in node.body}
    for statement in statements(tree):
        index = line_index(task, lines, statement.lineno)
        must_be_first = is_idle(statement) or getattr(statement, "module", None) == "__future__"
        if index is None or must_be_first or id(statement) in attributes:
            continue
        if not lines[index].encode()[: statement.col_offset].strip():
            yield index, statement


def before_each(task: Task, lines: Lines, rewrite: Rewrite) -> list[str]:
    """The program with the first line of each standing statement rewritten."""
    return replaced(
        lines, {index: rewrite(lines[index], indent_of(lines[index])) for index, _ in standing(task, lines)}
    )


def replaced(lines: Lines, changed: Mapping[int, list[str]]) -> list[str]:
    """The program with some lines, by index, replaced by others."""
    return [text for index, line in enumerate(lines) for text in changed.get(index, [line])]


def indent_of(line: str) -> str:
    """The white space that a line begins with."""
    return line[: len(line) - len(line.lstrip())]


def fresh_name(task: Task, lines: Lines, stem: str) -> str:
    """A beginning of names that the program does not use."""
    source = source_of(task, lines)
    while stem in source:
        stem = f"_{stem}"
    return stem


def fills_line(statement: ast.stmt, line: str) -> bool:
    """Whether a statement is one whole line, comment aside."""
    rest = line.encode()[statement.end_col_offset :].decode().strip()
    return statement.lineno == statement.end_lineno and (not rest or rest.startswith("#"))


def span_of(value: ast.expr, line: str) -> tuple[int, int]:
    """Where an expression stands in its line, in characters; the parser counts bytes."""
    start, end = (line.encode()[:offset].decode() for offset in (value.col_offset, value.end_col_offset))
    return len(start), len(end)


def is_idempotent(statement: ast.stmt) -> bool:
    """Whether a statement assigns arithmetic on other names: with plain data, twice is once."""
    if not isinstance(statement, ast.Assign):
        return False
    names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
    nodes = list(ast.walk(statement.value))
    own = any(isinstance(node, ast.Name) and node.id in names for node in nodes)
    return len(names) == len(statement.targets) and not own and all(isinstance(n, _PLAIN) for n in nodes)


def wrapped(task: Task, lines: Lines, handler: str) -> list[str]:
    """The block of the first standing statement, in a `try` with a handler of every exception."""
    firsts = [index for index, _ in standing(task, lines)][:1]
    if not firsts:
        return list(lines)
    (first,) = firsts
    indent, inside = indent_of(lines[first]), _inside_strings(task, lines)
    code = [index for index in range(first, len(lines)) if lines[index].strip() and index not in inside]
    end = next((index for index in code if len(indent_of(lines[index])) < len(indent)), len(lines))
    body = [f"    {lines[index]}" if index in code else lines[index] for index in range(first, end)]
    catch = [f"{indent}except Exception:", f"{indent}    {handler}"]
    return [*lines[:first], f"{indent}try:", *body, *catch, *lines[end:]]


def _inside_strings(task: Task, lines: Lines) -> set[int | None]:
    """Indices of lines that begin inside a string, where an indentation would be part of it."""
    numbers: set[int] = set()
    for node in ast.walk(parse(source_of(task, lines))):
        if isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno is not None:
            numbers.update(range(node.lineno + 1, node.end_lineno + 1))
    return {line_index(task, lines, number) for number in numbers}
