"""Checks on tasks that are the same: within a split, between splits, and with benchmarks.

Two tasks are the same if their prompts, tests or references are: see `codegym.doctor.marks`. Each is compared
with those before it by digests, so a large set takes seconds. What was worded anew, tested by other examples
and solved in another way is not found.
"""

import operator
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from codegym.doctor.diagnosis import Finding, Severity
from codegym.doctor.examination import Examination
from codegym.doctor.marks import Marks, marks_of
from codegym.task import Task


class _Register:
    """Tasks by mark and split; the first of each."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, bytes], dict[str, Task]] = {}

    def add(self, task: Task, marks: Marks) -> None:
        for mark in marks.items():
            self._first.setdefault(mark, {}).setdefault(task.split, task)

    def twin(self, marks: Marks, is_asked: Callable[[str], bool]) -> tuple[Task, list[str]] | None:
        """A task of the splits asked for that has one of these marks, and the kinds that it shares."""
        shared: dict[str, list[Task]] = {
            kind: [task for split, task in self._first.get((kind, mark), {}).items() if is_asked(split)]
            for kind, mark in marks.items()
        }
        found = next((tasks[0] for tasks in shared.values() if tasks), None)
        if found is None:
            return None
        return found, [kind for kind, tasks in shared.items() if found in tasks]


def no_duplicates(examination: Examination) -> list[Finding]:
    """Tasks that are the same as an earlier one of their split, or have its id."""
    return [
        _finding("duplicates", task, Severity.WARNING, kinds, f"as {earlier.task_id!r}")
        for task, earlier, kinds in _twins(examination, operator.eq)
    ]


def no_leaks(examination: Examination) -> list[Finding]:
    """Tasks that are the same as an earlier one of another split, or have its id."""
    return [
        _finding(
            "leaks",
            task,
            Severity.ERROR,
            kinds,
            f"in split {task.split!r} as {earlier.task_id!r} in split {earlier.split!r}",
        )
        for task, earlier, kinds in _twins(examination, operator.ne)
    ]


def no_benchmark_tasks(examination: Examination) -> list[Finding]:
    """Tasks outside the split "test" that are the same as a test task of a benchmark.

    Those that are test tasks of the examined set too are `leaks`.
    """
    own = {task.task_id for task in examination.tasks if task.split == "test"}
    findings = []
    for name, benchmark in examination.benchmarks.items():
        register = _Register()
        for task in benchmark:
            if task.split == "test" and task.task_id not in own:
                register.add(task, marks_of(task))
        for task, marks in zip(examination.tasks, examination.marks, strict=True):
            if task.split != "test" and (twin := register.twin(marks, lambda _: True)):
                whose = f"in split {task.split!r} as {twin[0].task_id!r} of {name}"
                findings.append(_finding("benchmarks", task, Severity.ERROR, twin[1], whose))
    return findings


def _twins(
    examination: Examination, compare: Callable[[str, str], bool]
) -> Iterator[tuple[Task, Task, list[str]]]:
    """Each task with an earlier one that is the same, if their splits compare so, and in what."""
    register = _Register()
    for task, marks in zip(examination.tasks, examination.marks, strict=True):
        marks = {"id": task.task_id.encode(), **marks}
        if twin := register.twin(marks, partial(compare, task.split)):
            yield task, *twin
        register.add(task, marks)


def _finding(check: str, task: Task, severity: Severity, kinds: Iterable[str], whose: str) -> Finding:
    message = f"the same {' and '.join(kinds)} {whose}"
    return Finding(check=check, task_id=task.task_id, severity=severity, message=message)
