"""The bundled task source: procedurally generated list programs whose length is a dial."""

import re
from collections.abc import Iterator, Sequence
from random import Random
from typing import overload

from codegym.errors import TaskError
from codegym.table import check_name
from codegym.task import CallTest, Task
from codegym.tasks.selection import ON_BAD_ROW
from codegym.tasks.stepwise_generator import StepwiseProgram, grow
from codegym.tasks.stepwise_programs import (
    ENTRY_POINT,
    SPLITS,
    check_horizons,
    write_program,
    write_prompt,
)

DEFAULT_LIMIT = 128
_TASK_ID = re.compile(r"stepwise/(\w+)-(\d+)-(\d+)-(-?\d+)/(\d+)")


def load(
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    horizons: tuple[int, int] = (2, 12),
    n_tests: int = 8,
    on_bad_row: str = "raise",
) -> "StepwiseTasks":
    """Make stepwise tasks: Python functions over a list, asked for in numbered steps.

    Args:
        split: "train" (default), "validation" or "test". No sequence of steps belongs to two of them.
        limit: How many tasks; 128 by default.
        seed: Other seeds give other tasks of the same split.
        horizons: Fewest and most steps. Task number i has `shortest + i % (longest - shortest + 1)` steps.
        n_tests: Hidden tests per task. Each bug of `codegym.tasks.operations`, in any single step, fails
            at least one of them.
        on_bad_row: "raise" or "skip", as every source has it; no stepwise task is ever bad.

    Raises:
        ValueError: If an option has a value out of range.
    """
    check_name(split or "train", list(SPLITS), "split")
    check_name(on_bad_row, ON_BAD_ROW, "on_bad_row")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if n_tests < 4:
        raise ValueError(f"n_tests must be at least 4, got {n_tests}")
    return StepwiseTasks(
        split=split or "train",
        size=DEFAULT_LIMIT if limit is None else limit,
        seed=seed,
        horizons=check_horizons(horizons),
        n_tests=n_tests,
    )


def find(task_id: str) -> Task:
    """Make the task that `load` gives that id.

    Raises:
        TaskError: If it is no id of a stepwise task.
    """
    match = _TASK_ID.fullmatch(task_id)
    if match is None:
        raise TaskError(
            f"no stepwise task {task_id!r}; an id reads stepwise/SPLIT-SHORTEST-LONGEST-SEED/NUMBER"
        )
    split, low, high, seed, number = match.groups()
    tasks = load(split=split, limit=int(number) + 1, seed=int(seed), horizons=(int(low), int(high)))
    return tasks[int(number)]


class StepwiseTasks(Sequence[Task]):
    """A lazy sequence of tasks: each is made from (split, horizons, seed, index) when first asked for."""

    def __init__(self, *, split: str, size: int, seed: int, horizons: tuple[int, int], n_tests: int) -> None:
        self._split = split
        self._size = size
        self._horizons = horizons
        self._n_tests = n_tests
        low, high = horizons
        self._prefix = f"stepwise/{split}-{low}-{high}-{seed}"
        self._made: dict[int, Task] = {}

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Task: ...

    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...

    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._size))]
        number = index + self._size if index < 0 else index
        if not 0 <= number < self._size:
            raise IndexError(f"task {index} of {self._size}")
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def __iter__(self) -> Iterator[Task]:
        return (self[number] for number in range(self._size))

    def _make(self, number: int) -> Task:
        low, high = self._horizons
        task_id = f"{self._prefix}/{number}"
        rng = Random(f"{task_id} with {self._n_tests} tests")
        program = grow(rng, horizon=low + number % (high - low + 1), split=self._split, n_tests=self._n_tests)
        return _to_task(rng, program, task_id=task_id, split=self._split)


def _to_task(rng: Random, program: StepwiseProgram, *, task_id: str, split: str) -> Task:
    templates = [rng.choice(step.operation.right) for step in program.steps]
    values = {f"v{number}": lists for number, lists in enumerate(program.values, start=1)}
    return Task(
        task_id=task_id,
        prompt=write_prompt(rng, program.steps, program.ending),
        entry_point=ENTRY_POINT,
        tests=tuple(
            CallTest(args=(numbers,), expected=output)
            for numbers, output in zip(program.inputs, program.outputs, strict=True)
        ),
        split=split,
        reference=write_program(templates, program.steps, program.ending),
        metadata={
            "horizon": len(program.steps),
            "operations": [step.operation.name for step in program.steps],
            "parameters": [step.k for step in program.steps],
            "trace": {
                "args": [[numbers] for numbers in program.inputs],
                "values": {**values, "return": list(program.outputs)},
            },
        },
    )
