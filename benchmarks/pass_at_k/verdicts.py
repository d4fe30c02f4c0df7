"""The verdict of every sample; a failure of the sandbox is none, and is kept apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.pass_at_k.samples import Sample
from codegym.errors import SandboxError
from codegym.judge import Job, Judge
from codegym.storage import append_rows, read_rows, write_text
from codegym.task import Task
from codegym.verdict import Judgement, Verdict

INFRASTRUCTURE = "infrastructure_error"
"""In place of a verdict: the sandbox failed, twice, and nothing is known about the program."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the judge says about one sample.

    Attributes:
        sample: Its place in the sample file, from 1.
        task_id: The task's.
        verdict: The judge's category, or `INFRASTRUCTURE`.
        tests_passed: Tests that passed.
        tests_total: Tests of the task.
        message: One line for people; hostile text.
    """

    sample: int
    task_id: str
    verdict: str
    tests_passed: int
    tests_total: int
    message: str = ""

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return self.verdict == Verdict.PASSED

    @property
    def judged(self) -> bool:
        """Whether there is a verdict."""
        return self.verdict != INFRASTRUCTURE


def read_verdicts(path: Path) -> list[Row]:
    """Rows written so far, in the samples' order."""
    return sorted((Row(**row) for row in read_rows(path)), key=lambda row: row.sample)


def judge_to_file(
    judge: Judge, tasks: Mapping[str, Task], samples: Sequence[Sample], path: Path, *, chunk: int = 64
) -> Iterator[int]:
    """Append a row per sample to `path`; samples that have a verdict are skipped, others are judged again.

    Args:
        judge: Judges the programs.
        tasks: By id.
        samples: In the sample file's order.
        path: JSON Lines file.
        chunk: Samples judged at once: the unit that a kill can lose.

    Yields:
        How many samples are done.
    """
    found = read_verdicts(path)
    kept = [row for row in found if row.judged]
    if len(kept) < len(found):
        write_text(path, "")
        append_rows(path, map(asdict, kept))
    done = {row.sample for row in kept}
    for start in range(0, len(samples), chunk):
        batch = list(enumerate(samples[start : start + chunk], start=start + 1))
        missing = [(number, sample) for number, sample in batch if number not in done]
        jobs = [(tasks[sample.task_id], sample.program(tasks[sample.task_id])) for _, sample in missing]
        judged = zip(missing, judge_each(judge, jobs), strict=True)
        append_rows(path, (asdict(_row(number, sample, made)) for (number, sample), made in judged))
        yield start + len(batch)


def judge_each(judge: Judge, jobs: Sequence[Job]) -> list[Judgement | SandboxError]:
    """A judgement per job, or the error of the sandbox on just that job."""
    try:
        return list(judge.judge(jobs))
    except SandboxError as error:
        if len(jobs) == 1:
            return [error]
    return [made for job in jobs for made in judge_each(judge, [job])]


def _row(number: int, sample: Sample, made: Judgement | SandboxError) -> Row:
    if isinstance(made, SandboxError):
        verdict, passed, total, message = INFRASTRUCTURE, 0, 0, str(made)
    else:
        verdict, message = str(made.verdict), made.message
        passed, total = made.tests_passed, made.tests_total
    return Row(
        sample=number,
        task_id=sample.task_id,
        verdict=verdict,
        tests_passed=passed,
        tests_total=total,
        message=message,
    )
