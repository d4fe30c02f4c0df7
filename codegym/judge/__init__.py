"""Judging untrusted programs: the `Judge` seam and its table."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

from codegym.table import resolve
from codegym.task import Task
from codegym.verdict import Judgement

Job: TypeAlias = tuple[Task, str]
"""A task and the whole module to judge against its tests."""

JUDGES = {
    "local": "codegym.judge.pool:LocalJudge",
    "docker": "codegym.judge.docker:DockerJudge",
    "ray": "codegym.judge.ray:RayJudge",
}


@runtime_checkable
class Judge(Protocol):
    """Judges batches of programs. Order-preserving, thread-safe, a context manager."""

    def judge(self, jobs: Sequence[Job]) -> list[Judgement]:
        """Return one judgement per job, in order.

        Raises:
            TaskError: If a task has no tests.
            SandboxError: If the judge itself failed, twice.
        """
        ...

    def close(self) -> None:
        """Release every process; closing twice is fine."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_judge(name: str = "local", **options: Any) -> Judge:
    """Build a judge by name; options go to its constructor.

    Raises:
        UnknownNameError: If `name` is not in `JUDGES`.
    """
    judge: Judge = resolve(JUDGES, name, "judge")(**options)
    return judge
