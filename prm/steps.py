"""Which lines of a program compute which value, and a module that can be asked for each of these values.

Nothing is executed here: programs are hostile text, read with `ast` and run by a judge.
"""

import ast
import re
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codegym.errors import TaskError
from codegym.judge import Job
from codegym.rewards.source import NEWLINE, completion_of, physical_ends
from codegym.task import CallTest, Task

RETURN = "return"
"""Name that a trace gives to what the function returns."""

_PROBE, _STOP = "__codegym_probe__", "__codegym_stop__"
_NEW_STEP = re.compile(r"\s*(?:(\w+)\s*=(?!=)|return\b)")
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Lines that compute a traced value: from the first binding of its name up to that of the next name.

    Attributes:
        names: The values that must be right after the step; several if one line binds them all.
        last_line: Its last line, counted from 1 in the program.
    """

    names: tuple[str, ...]
    last_line: int


@dataclass(frozen=True, kw_only=True)
class SteppedProgram:
    """A program read as steps.

    Attributes:
        steps: The steps that have ended, in order.
        n_sound: Lines before the first that does not parse or leaves the function.
        job: The program made to stop after each step, with one test per step, name and traced call, in this
            order; None if no step has ended.
    """

    steps: tuple[Step, ...]
    n_sound: int
    job: Job | None


def read_steps(task: Task, lines: Sequence[str]) -> SteppedProgram:
    """Read the longest prefix of a program that parses.

    A last step that the line which does not parse may still belong to has not ended.

    Raises:
        TaskError: If the task has no trace.
    """
    trace = _trace(task)
    tree, n_parsed = _longest_parsable(task, lines)
    function = _function(tree, task)
    if function is None:
        return SteppedProgram(steps=(), n_sound=0, job=None)
    ends = physical_ends(task.assemble(""), lines)
    outside = [node for node in tree.body if node.lineno > int(function.end_lineno or 0)]
    n_sound = bisect_left(ends, outside[0].lineno) if outside else n_parsed
    found = list(_steps(function, list(trace)))
    broken = lines[n_parsed] if n_sound == n_parsed < len(lines) else None
    if found and broken is not None and not _starts_step(broken, trace, found):
        found.pop()
    steps = tuple(Step(names=names, last_line=bisect_left(ends, end) + 1) for names, end in found)
    text = NEWLINE.split(task.assemble(completion_of(lines[:n_parsed])))
    module = _stopping(text, function, found, list(trace))
    return SteppedProgram(
        steps=steps, n_sound=n_sound, job=_job(task, trace, steps, module) if steps else None
    )


def _trace(task: Task) -> Mapping[str, Sequence[Any]]:
    """Values by name, in the order of their computation."""
    trace = task.metadata.get("trace")
    if trace is None or task.entry_point is None:
        raise TaskError(
            f"task {task.task_id!r} has no trace of its reference's values: execution cannot label its lines"
        )
    values: Mapping[str, Sequence[Any]] = trace["values"]
    if not trace["args"] or any(len(column) != len(trace["args"]) for column in values.values()):
        raise TaskError(
            f"task {task.task_id!r}: each traced value needs one entry for each of {len(trace['args'])} calls"
        )
    return values


def _longest_parsable(task: Task, lines: Sequence[str]) -> tuple[ast.Module, int]:
    for n_lines in range(len(lines), -1, -1):
        module = task.assemble(completion_of(lines[:n_lines]))
        try:
            with warnings.catch_warnings(action="ignore"):
                # compiling also finds what parses but cannot stand where it does, as `break` or `return`
                compile(module, "<program>", "exec", dont_inherit=True)
                return ast.parse(module), n_lines
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return ast.Module(body=[], type_ignores=[]), 0


def _function(tree: ast.Module, task: Task) -> ast.FunctionDef | None:
    """The first definition of the entry point, if its body has lines of its own."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == task.entry_point:
            return node if node.body[0].lineno > node.lineno else None
    return None


def _steps(function: ast.FunctionDef, names: list[str]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Names and last physical line of each step; what follows a return never runs."""
    current: tuple[str, ...] = ()
    seen: set[str] = set()
    end = 0
    for statement in function.body:
        bound = set(_bound(statement)) - seen
        fresh = tuple(name for name in names if name in bound)
        returns = isinstance(statement, ast.Return)
        if current and (fresh or returns):
            yield current, end
            current = ()
        if returns:
            yield (RETURN,), int(statement.end_lineno or 0)
            return
        current = fresh or current
        seen.update(fresh)
        end = int(statement.end_lineno or 0)
    if current:
        yield current, end


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that a statement binds in the function's own scope."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    if not isinstance(node, (*_SCOPES, *_COMPREHENSIONS)):
        for child in ast.iter_child_nodes(node):
            yield from _bound(child)


def _starts_step(line: str, names: Mapping[str, Any], found: Sequence[tuple[tuple[str, ...], int]]) -> bool:
    """Whether a line that does not parse begins a new step, so that the one before has ended."""
    match = _NEW_STEP.match(line)
    done = {name for group, _ in found for name in group}
    return RETURN in done or (match is not None and (match[1] is None or match[1] in set(names) - done))


def _stopping(
    text: list[str],
    function: ast.FunctionDef,
    found: Sequence[tuple[tuple[str, ...], int]],
    order: list[str],
) -> str:
    """The module up to the function's end, made to return a step's value right after it."""
    first = text[function.body[0].lineno - 1]
    indent = first[: len(first) - len(first.lstrip())]
    stopping = text[: function.end_lineno]
    for end in {len(stopping), *(end for _, end in found)}:
        # a backslash would carry the statement on into what is put after it
        stopping[end - 1] = stopping[end - 1].removesuffix("\\")
    for names, end in reversed(found):
        stopping[end:end] = [
            f"{indent}if {_STOP} == {order.index(name)}: return {name}" for name in names if name != RETURN
        ]
    return "\n".join(stopping)


def _job(task: Task, trace: Mapping[str, Sequence[Any]], steps: Sequence[Step], module: str) -> Job:
    numbers = {name: number for number, name in enumerate(trace)}
    calls = task.metadata["trace"]["args"]
    tests = tuple(
        CallTest(args=(numbers[name], *args), expected=value)
        for step in steps
        for name in step.names
        for args, value in zip(calls, trace[name], strict=True)
    )
    probe = (
        f"\ndef {_PROBE}(stop, *args):\n    global {_STOP}\n    {_STOP} = stop\n"
        f"    return {task.entry_point}(*args)\n"
    )
    derived = Task(
        task_id=f"{task.task_id}#steps", prompt="", entry_point=_PROBE, tests=tests, prompt_is_code=False
    )
    return derived, module + probe
