"""Checks on what programs do: the reference solutions, and programs that must not pass."""

import ast
from collections.abc import Sequence
from statistics import median

from codegym.doctor.diagnosis import Finding, Severity
from codegym.doctor.examination import Examination
from codegym.errors import TaskError
from codegym.task import Task
from codegym.tasks.prompts import parse
from codegym.verdict import Judgement

HEAD_ROOM = 0.5
"""The share of the CPU limit that a reference may use: policies write slower programs than people."""

TRIVIAL = {
    "empty": "",
    "pass": "pass",
    "return None": "return None",
    "raise": "raise RuntimeError('this program always raises')",
}
"""Programs that solve nothing, by what the entry point does; "empty" defines none."""


def tests_can_run(examination: Examination) -> list[Finding]:
    """Tests that are no plain data, beyond the codec's bounds, or no Python; nothing is run."""
    return [
        Finding(check="tests", task_id=task.task_id, severity=Severity.ERROR, message=str(packed))
        for task, packed in zip(examination.tasks, examination.packed, strict=True)
        if isinstance(packed, TaskError)
    ]


def references_pass(examination: Examination) -> list[Finding]:
    """References that fail in every repetition; one that fails now and then is `flaky`."""
    return [
        Finding(
            check="reference",
            task_id=task.task_id,
            severity=Severity.ERROR,
            message=f"the reference gives {_told(runs[0])}",
        )
        for task, runs in examination.runs
        if not any(run.passed for run in runs) and not _differ(runs)
    ]


def results_repeat(examination: Examination) -> list[Finding]:
    """References whose verdict or test results differ between repetitions."""
    return [
        Finding(
            check="flaky",
            task_id=task.task_id,
            severity=Severity.ERROR,
            message=f"the reference passes {sum(run.passed for run in runs)} of {len(runs)} times; tests that"
            f" differ: {_varying(runs) or 'none, but the verdict does'}",
        )
        for task, runs in examination.runs
        if _differ(runs)
    ]


def references_have_time(examination: Examination) -> list[Finding]:
    """References that pass and use more than `HEAD_ROOM` of the limit, in the median repetition."""
    limit = examination.time_limit_s
    used = [
        (median(run.cpu_s for run in runs), task)
        for task, runs in examination.runs
        if all(run.passed for run in runs)
    ]
    slow = sorted((entry for entry in used if entry[0] > HEAD_ROOM * limit), key=lambda entry: -entry[0])
    return [
        Finding(
            check="head_room",
            task_id=task.task_id,
            severity=Severity.WARNING,
            message=f"the reference uses {seconds:.2f} of {limit:g} CPU seconds ({seconds / limit:.0%})",
        )
        for seconds, task in slow
    ]


def trivial_programs_fail(examination: Examination) -> list[Finding]:
    """Tasks that an empty program, a stub or one that always raises passes."""
    tasks = examination.sound
    jobs = [(task, task.assemble(stub(task, statement))) for task in tasks for statement in TRIVIAL.values()]
    judgements = iter(examination.judged(jobs))
    findings = []
    for task in tasks:
        passing = [name for name in TRIVIAL if next(judgements).passed]
        if passing:
            findings.append(
                Finding(
                    check="trivial",
                    task_id=task.task_id,
                    severity=Severity.ERROR,
                    message=f"programs that solve nothing pass: {', '.join(passing)}",
                )
            )
    return findings


def stub(task: Task, statement: str) -> str:
    """A completion in which the entry point is this one statement; without an entry point, the statement.

    A prompt that ends within the entry point is given its body; else the completion defines it. No statement
    is no completion.
    """
    if not statement:
        return ""
    if task.entry_point is None:
        return f"{'pass' if statement.startswith('return') else statement}\n"
    body = f"{_indentation(task)}{statement}\n"
    if task.prompt_is_code and _defines(task.prompt + body, task.entry_point):
        return body
    owner, _, method = task.entry_point.rpartition(".")
    if owner:
        return (
            f"class {owner}:\n    def __init__(self, *args, **kwargs):\n        pass\n"
            f"    def {method}(self, *args, **kwargs):\n        {statement}\n"
        )
    return f"def {method}(*args, **kwargs):\n    {statement}\n"


def _indentation(task: Task) -> str:
    """The reference's, where it has one."""
    first = next((line for line in (task.reference or "").split("\n") if line.strip()), "")
    return first[: len(first) - len(first.lstrip())] or "    "


def _defines(code: str, entry_point: str) -> bool:
    try:
        module = parse(code)
    except SyntaxError:
        return False
    name = entry_point.rpartition(".")[2]
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return any(isinstance(node, kinds) and node.name == name for node in ast.walk(module))


def _differ(runs: Sequence[Judgement]) -> bool:
    return len({(run.verdict, run.results) for run in runs}) > 1


def _varying(runs: Sequence[Judgement]) -> str:
    """Numbers of the tests, from 1, whose result is not always the same."""
    results = zip(*(run.results for run in runs), strict=True)
    return ", ".join(str(number) for number, flags in enumerate(results, start=1) if len(set(flags)) > 1)


def _told(run: Judgement) -> str:
    where = f", line {run.error_line}" if run.error_line else ""
    # repr keeps a hostile message on one line and free of terminal escapes
    message = f": {run.message!r}" if run.message else ""
    return f"{run.verdict}, {run.tests_passed} of {run.tests_total} tests{where}{message}"
