"""Ways to spoil a right program by one bug."""

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

from codegym.task import Task
from codegym.tasks.operations import OPERATIONS, render
from prm.alignment import split_lines

_ASSIGNS = re.compile(r"    v\d+ = ")

_BINARY: Mapping[type[ast.operator], tuple[str, tuple[str, ...]]] = {
    ast.Add: ("+", ("-",)),
    ast.Sub: ("-", ("+",)),
    ast.Mult: ("*", ("+", "//")),
    ast.Div: ("/", ("//", "*")),
    ast.FloorDiv: ("//", ("/", "%")),
    ast.Mod: ("%", ("//",)),
    ast.Pow: ("**", ("*",)),
    ast.BitAnd: ("&", ("|",)),
    ast.BitOr: ("|", ("&",)),
    ast.BitXor: ("^", ("|",)),
    ast.LShift: ("<<", (">>",)),
    ast.RShift: (">>", ("<<",)),
}
_COMPARISONS: Mapping[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">")),
    ast.LtE: ("<=", ("<", ">=")),
    ast.Gt: (">", (">=", "<")),
    ast.GtE: (">=", (">", "<=")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
_NAMES: Mapping[str, tuple[str, ...]] = {
    "min": ("max",),
    "max": ("min",),
    "any": ("all",),
    "all": ("any",),
    "sorted": ("list", "reversed"),
    "sum": ("len", "max"),
    "len": ("sum",),
    "abs": ("int",),
    "filter": ("map",),
    "append": ("extend",),
    "lower": ("upper",),
    "upper": ("lower",),
    "startswith": ("endswith",),
    "endswith": ("startswith",),
    "add": ("discard",),
}


class _Place(NamedTuple):
    """A place in a module: line from 1, column in UTF-8 bytes, as `ast` counts."""

    line: int
    column: int


class _Change(NamedTuple):
    """Text to put between two places."""

    start: _Place
    end: _Place
    text: str


def changed_expressions(task: Task) -> Iterator[str]:
    """The reference with one operator, number, truth value or well-known name replaced by a similar one."""
    if task.reference is None:
        return
    module = task.assemble(task.reference)
    head = len(module) - len(task.reference)
    first = module[:head].count("\n") + 1
    lines = [line.encode() for line in module.split("\n")]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(module)
    except (SyntaxError, ValueError):
        return
    for change in _changes(tree, lines):
        if change.start.line >= first:
            yield _applied(lines, change)[head:]


def documented_bugs(task: Task) -> Iterator[str]:
    """The reference with one step written as people get it wrong; nothing for tasks without such a list.

    These are the `wrong` templates of `codegym.tasks.operations`. Each of them fails a test of its task.
    """
    if task.reference is None or "operations" not in task.metadata:
        return
    lines = split_lines(task.reference)
    names, parameters = task.metadata["operations"], task.metadata["parameters"]
    bounds = [*(at for at, line in enumerate(lines) if _ASSIGNS.match(line)), len(lines) - 1]
    for number, (name, k) in enumerate(zip(names, parameters, strict=True), start=1):
        before, after = lines[: bounds[number - 1]], lines[bounds[number] :]
        for template in OPERATIONS[name].wrong:
            step = split_lines(render(template, a=f"v{number - 1}", b=f"v{number}", k=k))
            yield "\n".join([*before, *step, *after]) + "\n"


def _changes(tree: ast.AST, lines: list[bytes]) -> Iterator[_Change]:
    # parts of an f-string carry no positions of their own before Python 3.12
    formatted = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) not in formatted:
            yield from _changes_of(node, lines)


def _changes_of(node: ast.AST, lines: list[bytes]) -> Iterator[_Change]:
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            yield from _operator(left, right, _BINARY.get(type(op)), lines)
        case ast.Compare(left=left, ops=ops, comparators=others):
            for a, comparison, b in zip([left, *others], ops, others, strict=False):
                yield from _operator(a, b, _COMPARISONS.get(type(comparison)), lines)
        case ast.BoolOp(op=op, values=values):
            known = ("and", ("or",)) if isinstance(op, ast.And) else ("or", ("and",))
            for a, b in pairwise(values):
                yield from _operator(a, b, known, lines)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield _Change(_start(node), _start(operand), "")
        case ast.Constant(value=bool(value)):
            yield _Change(_start(node), _end(node), str(not value))
        case ast.Constant(value=int(value)):
            for other in (value - 1, value + 1):
                if other >= 0:
                    yield _Change(_start(node), _end(node), str(other))
        case ast.Name(id=name):
            for other_name in _NAMES.get(name, ()):
                yield _Change(_start(node), _end(node), other_name)
        case ast.Attribute(attr=name):
            end = _end(node)
            for other_name in _NAMES.get(name, ()):
                yield _Change(_Place(end.line, end.column - len(name)), end, other_name)


def _operator(
    left: ast.expr, right: ast.expr, known: tuple[str, tuple[str, ...]] | None, lines: list[bytes]
) -> Iterator[_Change]:
    """Replacements of the operator that stands between two operands on one line."""
    start, end = _end(left), _start(right)
    if known is None or start.line != end.line:
        return
    symbol, others = known
    between = lines[start.line - 1][start.column : end.column]
    at = between.find(symbol.encode())
    if at >= 0:
        first = start.column + at
        for other in others:
            yield _Change(_Place(start.line, first), _Place(start.line, first + len(symbol)), other)


def _start(node: ast.AST) -> _Place:
    return _Place(node.lineno, node.col_offset)  # type: ignore[attr-defined]


def _end(node: ast.AST) -> _Place:
    return _Place(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]


def _applied(lines: list[bytes], change: _Change) -> str:
    start, end = change.start, change.end
    head = lines[start.line - 1][: start.column]
    tail = lines[end.line - 1][end.column :]
    return b"\n".join(
        [*lines[: start.line - 1], head + change.text.encode() + tail, *lines[end.line :]]
    ).decode()
