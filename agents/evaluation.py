"""How good a policy is: sampled and greedy programs on held-out tasks, one row per program."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from codegym.judge import Judge
from codegym.storage import append_rows, read_rows
from codegym.task import Task
from prm.alignment import split_lines
from prm.completion import Completer

Decoding: TypeAlias = Literal["sampled", "greedy"]
TEMPERATURE: Mapping[Decoding, float] = {"sampled": 1.0, "greedy": 0.0}


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """One program of one policy on one held-out task.

    Attributes:
        arm: Which policy wrote it ("sft", "baseline", "psgpo", "oracle").
        decoding: "sampled" at temperature 1, or "greedy".
        task_id: The task.
        horizon: Steps the task asks for, or None where a source does not say.
        completion: The program's text after the prompt.
        finished: Whether the policy ended the program itself.
        verdict: The judge's category.
        tests_passed: Tests that passed.
        tests_total: Tests of the task.
        lines: Lines of the program.
        tokens: Tokens of the program, end-of-text included.
    """

    arm: str
    decoding: Decoding
    task_id: str
    horizon: int | None
    completion: str
    finished: bool
    verdict: str
    tests_passed: int
    tests_total: int
    lines: int
    tokens: int

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return self.verdict == "passed"

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes a row unique in a run."""
        return (self.arm, self.decoding, self.task_id)


def read_evaluation(path: Path) -> list[EvaluationRow]:
    """Rows written so far, in order."""
    return [EvaluationRow(**row) for row in read_rows(path)]


def evaluate_to_file(
    completer: Completer,
    tasks: Sequence[Task],
    judge: Judge,
    encode: Any,
    path: Path,
    *,
    arm: str,
    decoding: Decoding,
    max_new_tokens: int,
    seed: int,
    chunk: int = 128,
) -> Iterator[int]:
    """Append one row per task to `path`, a chunk at a time; tasks that have a row already are skipped.

    The draws of a chunk depend on the seed and its first task alone, so an interrupted evaluation that
    is resumed writes the rows that an uninterrupted one would have.

    Args:
        completer: The policy.
        tasks: Held-out tasks.
        judge: Judges the programs.
        encode: Text to token ids.
        path: JSON Lines file.
        arm: Name of the policy in the rows.
        decoding: "sampled" or "greedy".
        max_new_tokens: Token limit of a program; one that hits it is cut and judged as it is.
        seed: Seed of the draws.
        chunk: Tasks sampled and judged at once: the unit that a kill can lose.

    Yields:
        How many tasks are done.
    """
    done = {row.key for row in read_evaluation(path)}
    for start in range(0, len(tasks), chunk):
        batch = tasks[start : start + chunk]
        missing = [task for task in batch if (arm, decoding, task.task_id) not in done]
        if missing:
            rows = _evaluate_chunk(
                completer, batch, judge, encode, arm, decoding, max_new_tokens, seed + start
            )
            append_rows(path, (asdict(row) for row in rows if row.key not in done))
        yield start + len(batch)


def _evaluate_chunk(
    completer: Completer,
    tasks: Sequence[Task],
    judge: Judge,
    encode: Any,
    arm: str,
    decoding: Decoding,
    max_new_tokens: int,
    seed: int,
) -> list[EvaluationRow]:
    drawn = completer.sample(
        [encode(task.prompt) for task in tasks],
        max_new_tokens=max_new_tokens,
        temperature=TEMPERATURE[decoding],
        seed=seed,
    )
    completions = [samples[0] for samples in drawn]
    judgements = judge.judge(
        [(task, task.assemble(c.text)) for task, c in zip(tasks, completions, strict=True)]
    )
    return [
        EvaluationRow(
            arm=arm,
            decoding=decoding,
            task_id=task.task_id,
            horizon=task.metadata.get("horizon"),
            completion=completion.text,
            finished=completion.finished,
            verdict=str(judgement.verdict),
            tests_passed=judgement.tests_passed,
            tests_total=judgement.tests_total,
            lines=len(split_lines(completion.text)),
            tokens=len(completion.token_ids),
        )
        for task, completion, judgement in zip(tasks, completions, judgements, strict=True)
    ]
