"""Jobs as bytes: tasks are encoded once, programs are told apart by a digest."""

import hashlib
import json
import warnings
from collections import OrderedDict
from dataclasses import dataclass

from codegym.errors import TaskError
from codegym.judge.codec import CodecError, encode
from codegym.judge.outcome import expectation
from codegym.judge.wire import frame, join
from codegym.task import AssertionTest, CallTest, StdioTest, Task

_REMEMBERED_TASKS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedTask:
    """A task's tests in the form that graders read.

    Attributes:
        parts: Calls, expected values, assertion tests, stdio tests, prompt; tests sorted by kind.
        order: For each test of the task, its place among the sorted ones.
        entry: The function that the tests call, or an empty string.
    """

    parts: tuple[bytes, ...]
    order: tuple[int, ...]
    entry: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedJob:
    """One program with its task, ready to be sent any number of times."""

    task: PackedTask
    source: bytes
    digest: bytes

    def message(self, number: int) -> bytes:
        """Return the frame that asks a grader for the judgement with this number."""
        header = {"id": number, "entry": self.task.entry, "order": self.task.order}
        return frame(join([json.dumps(header).encode(), self.source, *self.task.parts]))


class Packer:
    """Encodes jobs; remembers the tasks seen last."""

    def __init__(self) -> None:
        # By identity, for tests may hold lists; the task is kept so that its identity is not reused.
        self._tasks: OrderedDict[int, tuple[Task, PackedTask]] = OrderedDict()

    def pack(self, task: Task, source: str) -> PackedJob:
        """Encode a job.

        Raises:
            TaskError: If the task has no tests, or tests that cannot be run.
        """
        packed = self._packed(task)
        text = source.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(
            join([packed.entry.encode(), repr(packed.order).encode(), text, *packed.parts])
        )
        return PackedJob(task=packed, source=text, digest=digest.digest())

    def _packed(self, task: Task) -> PackedTask:
        known = self._tasks.get(id(task))
        if known is None:
            known = self._tasks[id(task)] = (task, pack_task(task))
            if len(self._tasks) > _REMEMBERED_TASKS:
                self._tasks.popitem(last=False)
        return known[1]


def pack_task(task: Task) -> PackedTask:
    """Encode a task's tests.

    Raises:
        TaskError: If there are none, or some cannot be run.
    """
    if not task.tests:
        raise TaskError(f"task {task.task_id!r} has no tests: nothing can be judged")
    calls = [test for test in task.tests if isinstance(test, CallTest)]
    assertions = [test for test in task.tests if isinstance(test, AssertionTest)]
    stdio = [test for test in task.tests if isinstance(test, StdioTest)]
    if (calls or assertions) and not task.entry_point:
        raise TaskError(f"task {task.task_id!r} has tests that call a function but no entry_point")
    for test in assertions:
        _check_assertion(task, test)
    try:
        lines = b"\n".join(encode([list(test.args), {}]) for test in calls)
        expected = b"\n".join(expectation(test.expected, test.comparison) for test in calls)
    except CodecError as error:
        raise TaskError(f"task {task.task_id!r} has a call test that is not plain data: {error}") from error
    parts = (
        lines,
        expected,
        json.dumps([test.code for test in assertions]).encode(),
        json.dumps([[test.stdin, test.stdout, test.comparison] for test in stdio]).encode(),
        # Only assertion tests use the prompt's helpers; without it, equal programs are equal jobs.
        task.prompt.encode("utf-8", "surrogatepass") if assertions and task.prompt_is_code else b"",
    )
    places = {id(test): place for place, test in enumerate([*calls, *assertions, *stdio])}
    return PackedTask(
        parts=parts, order=tuple(places[id(test)] for test in task.tests), entry=task.entry_point or ""
    )


def _check_assertion(task: Task, test: AssertionTest) -> None:
    try:
        with warnings.catch_warnings():
            # Data sets are full of invalid escape sequences.
            warnings.simplefilter("ignore")
            compile(test.code, "<tests>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise TaskError(f"task {task.task_id!r} has an assertion test that is no Python: {error}") from error
