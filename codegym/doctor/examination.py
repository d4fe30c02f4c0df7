"""What the checks look at: a task set, and what its reference solutions do when they are run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from codegym.doctor.hacking import Hacks, try_hacks
from codegym.doctor.marks import Marks, marks_of
from codegym.errors import TaskError
from codegym.judge import Job, Judge
from codegym.judge.jobs import PackedTask, pack_task
from codegym.rewards import RewardScheme
from codegym.task import Task
from codegym.verdict import Judgement

# Programs per call of the judge: enough to keep a cluster busy, few enough to tell how far the work is.
_BATCH = 2048


class Progress(Protocol):
    """Tells how far an examination is."""

    def __call__(self, step: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        """`step` of `total` checks are done; `metrics` counts the programs judged so far."""
        ...


@dataclass(kw_only=True)
class Watch:
    """Counts what an examination has done."""

    total: int = 0  # checks in all
    progress: Progress | None = None  # who is told
    done: int = 0  # checks done
    programs: int = 0  # programs judged

    def tell(self) -> None:
        """Tell whoever wants to know."""
        if self.progress is not None:
            self.progress(self.done, self.total, {"programs": float(self.programs)})


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A task set under examination; what several checks need is found out once."""

    tasks: Sequence[Task]  # the task set
    judge: Judge  # judges the programs
    scheme: RewardScheme | None = None  # the reward scheme under test
    benchmarks: Mapping[str, Sequence[Task]] = field(default_factory=dict)  # must not be trained on
    time_limit_s: float = 1.0  # the judge's limit on CPU seconds per program
    repeats: int = 5  # how often each reference is judged
    n_probed: int = 64  # tasks on which hack probes are tried
    watch: Watch = field(default_factory=Watch, repr=False)  # tells how far the work is

    def __post_init__(self) -> None:
        if not self.tasks:
            raise TaskError("there are no tasks to examine")
        for name in ("time_limit_s", "repeats", "n_probed"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")

    @cached_property
    def packed(self) -> list[PackedTask | TaskError]:
        """The tests of each task as the judge reads them, or why it cannot."""
        return [_packed(task) for task in self.tasks]

    @cached_property
    def sound(self) -> list[Task]:
        """Tasks whose tests can be run."""
        return [
            task
            for task, packed in zip(self.tasks, self.packed, strict=True)
            if isinstance(packed, PackedTask)
        ]

    @cached_property
    def marks(self) -> list[Marks]:
        """What each task is recognised by."""
        return [marks_of(task) for task in self.tasks]

    @cached_property
    def runs(self) -> list[tuple[Task, list[Judgement]]]:
        """The sound tasks with a reference, and what each of its repetitions gave."""
        tasks = [task for task in self.sound if task.reference is not None]
        # A comment of its own makes each repetition another program for caches and de-duplication.
        jobs = [
            (task, f"{task.assemble(task.reference or '')}\n# repetition {number}\n")
            for task in tasks
            for number in range(self.repeats)
        ]
        judgements = self.judged(jobs)
        return [
            (task, judgements[place * self.repeats : (place + 1) * self.repeats])
            for place, task in enumerate(tasks)
        ]

    @cached_property
    def passing(self) -> list[tuple[Task, Judgement]]:
        """Tasks whose reference passed each time, with the first judgement."""
        return [(task, runs[0]) for task, runs in self.runs if all(run.passed for run in runs)]

    @cached_property
    def hacks(self) -> Hacks | None:
        """What hack probes earn on an evenly spread sample; None without a scheme or anything to hack."""
        sample = self.passing[:: max(1, -(-len(self.passing) // self.n_probed))]
        hacks = None if self.scheme is None else try_hacks(self.scheme, sample, self.judge)
        self.watch.programs += len(hacks.programs) * (1 + len(hacks.after)) if hacks else 0
        return hacks

    def judged(self, jobs: Sequence[Job]) -> list[Judgement]:
        """Judge programs, telling between batches how far the work is."""
        judgements: list[Judgement] = []
        for start in range(0, len(jobs), _BATCH):
            batch = jobs[start : start + _BATCH]
            judgements += self.judge.judge(batch)
            self.watch.programs += len(batch)
            self.watch.tell()
        return judgements


def _packed(task: Task) -> PackedTask | TaskError:
    try:
        return pack_task(task)
    except TaskError as error:
        return error
