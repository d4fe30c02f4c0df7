"""What a task is recognised by, however it is worded or spelt.

| mark | normal form |
|---|---|
| prompt | without regard to case and white space |
| tests | as a set, without regard to the entry point's name: what solves one task solves the other |
| reference | the syntax tree but for docstrings, annotations and the names that the program binds itself |

References whose trees have fewer than `FEWEST_NODES` nodes, as `return a * b` has, have no mark, and nothing
has that does not parse, is nested too deeply or is no plain data.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import TypeAlias

from codegym.judge.codec import CodecError, encode
from codegym.task import AssertionTest, CallTest, StdioTest, Task, TestCase
from codegym.tasks.prompts import parse

FEWEST_NODES = 30

Marks: TypeAlias = Mapping[str, bytes]
"""Digests of normal forms, by kind."""


def marks_of(task: Task) -> Marks:
    """What a task is recognised by."""
    texts = {
        "prompt": " ".join(task.prompt.casefold().split()),
        "tests": _tests_text(task),
        "reference": _reference_text(task),
    }
    return {kind: _digest(text) for kind, text in texts.items() if text}


def normal_form(tree: ast.AST, names: Mapping[str, str] | None = None) -> str:
    """A syntax tree as text, with the names that it binds numbered in order; the tree is changed.

    Args:
        tree: The tree.
        names: Names that are replaced by others instead.
    """
    nodes = list(ast.walk(tree))
    known = dict(names or {})
    for name in _bound_names(nodes):
        known.setdefault(name, f"name_{len(known)}")
    for node in nodes:
        for field, value in ast.iter_fields(node):
            if field in ("returns", "annotation", "type_comment") and not isinstance(node, ast.AnnAssign):
                setattr(node, field, None)
            elif field in ("id", "arg", "name") and value in known:
                setattr(node, field, known[value])
            elif isinstance(node, ast.Global | ast.Nonlocal):
                node.names = [known.get(name, name) for name in node.names]
            elif field == "body" and isinstance(value, list):
                setattr(node, field, [statement for statement in value if not _is_docstring(statement)])
    return ast.dump(tree)


def _bound_names(nodes: Sequence[ast.AST]) -> Iterator[str]:
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.ExceptHandler(name=str(name)):
                yield name


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _reference_text(task: Task) -> str:
    if task.reference is None:
        return ""
    try:
        text = normal_form(tree := parse(task.assemble(task.reference)))
    except (SyntaxError, RecursionError):
        return ""
    return text if sum(1 for _ in ast.walk(tree)) >= FEWEST_NODES else ""


def _tests_text(task: Task) -> str:
    try:
        return "\n".join(sorted({_test_text(task, test) for test in task.tests}))
    except (CodecError, SyntaxError, RecursionError):
        return ""


def _test_text(task: Task, test: TestCase) -> str:
    match test:
        case CallTest():
            return f"call {test.comparison} {_digest(encode([list(test.args), test.expected])).hex()}"
        case StdioTest():
            return f"stdio {test.comparison} {test.stdin!r} {test.stdout!r}"
        case AssertionTest():
            return f"assertion {normal_form(parse(test.code), {task.entry_point or '': 'candidate'})}"


def _digest(text: str | bytes) -> bytes:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return blake2b(data, digest_size=16).digest()
