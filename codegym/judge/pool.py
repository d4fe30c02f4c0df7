"""The local judge: a pool of workers on this machine."""

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from codegym.errors import SandboxError
from codegym.judge import Job
from codegym.judge.batch import Batch
from codegym.judge.crew import Crew
from codegym.judge.jail import HIGHEST_TIER, Limits
from codegym.judge.jobs import PackedJob
from codegym.judge.ledger import JudgeStatistics, Ledger
from codegym.judge.packages import locate
from codegym.judge.run import WALL_EXTRA_S, WALL_FACTOR
from codegym.judge.worker import Worker, WorkerDiedError
from codegym.task import CallTest, Task
from codegym.verdict import Judgement, Verdict

_SELF_TEST = Task(
    task_id="self-test",
    prompt="",
    entry_point="double",
    tests=(CallTest(args=(21,), expected=42), CallTest(args=([1],), expected=[1, 1])),
)
_SELF_TEST_PROGRAMS = {
    "def double(x):\n    return x + x\n": Verdict.PASSED,
    "def double(x):\n    return 42\n": Verdict.WRONG_ANSWER,
}


class LocalJudge:
    """Judges programs in confined processes on this machine.

    Each worker is a trusted grader, which holds the tests, and an untrusted fork server, which starts one
    confined child per program. Worker processes start with the first batch, and end with `close`, with this
    process, or with the judge's own end.

    Attributes:
        tier: Isolation in force; -1 until the first worker is up.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        time_limit_s: float = 1.0,
        memory_limit_mb: int = 1024,
        output_limit_mb: int = 16,
        threads: bool = False,
        imports: Sequence[str] = (),
        min_tier: int | None = None,
        max_tier: int | None = None,
        cache: bool = True,
    ) -> None:
        """Prepare a judge.

        Args:
            workers: Programs judged at a time; one per core by default.
            time_limit_s: CPU seconds per program, all its tests together. Wall time is a backstop of five
                times as much.
            memory_limit_mb: Address space that a program may add to the bare interpreter's.
            output_limit_mb: Size of a program's output, or of any file it writes.
            threads: Whether programs may start threads.
            imports: Installed packages that programs may import, such as "numpy". They are loaded once per
                worker, so each worker grows and each program costs more: 15 MB and about 1 ms for numpy.
            min_tier: Refuse to run with less isolation; checked at once.
            max_tier: Use no more isolation than this; for tests and measurements.
            cache: Whether equal programs with equal tests are judged only once.

        Raises:
            ValueError: If an option is out of range, or a package of `imports` is not installed.
            SandboxError: If this machine does not offer `min_tier`.
        """
        check_options(
            workers=workers,
            time_limit_s=time_limit_s,
            memory_limit_mb=memory_limit_mb,
            output_limit_mb=output_limit_mb,
            min_tier=min_tier,
            max_tier=max_tier,
        )
        self.tier = -1
        self._limits = Limits(
            cpu_s=float(time_limit_s),
            memory_bytes=memory_limit_mb * 2**20,
            output_bytes=output_limit_mb * 2**20,
            threads=threads,
            imports=tuple(imports),
            import_paths=locate(imports),
        )
        self._size = workers or os.cpu_count() or 1
        self._min_tier = min_tier or 0
        self._max_tier = HIGHEST_TIER if max_tier is None else max_tier
        # A worker this long without a word is stuck: the grader's own limits end every program before.
        self._silence_s = WALL_FACTOR * self._limits.cpu_s + WALL_EXTRA_S + 5.0
        self._ledger = Ledger(cache=cache)
        self._numbers = itertools.count()
        self._closed = False
        self._lock = threading.Condition()
        self._crew = Crew(self._worker_starter())
        self._finalizer = weakref.finalize(self, Crew.disband, self._crew)
        if min_tier:
            self._release(self._lease(1))

    @property
    def statistics(self) -> JudgeStatistics:
        """What this judge has done so far."""
        return self._ledger.statistics

    def judge(self, jobs: Sequence[Job]) -> list[Judgement]:
        """Return one judgement per job, in order.

        Raises:
            TaskError: If a task has no tests or tests that cannot be run.
            SandboxError: If the sandbox failed twice on the same job, or the judge is closed.
        """
        return self._ledger.judge(jobs, self.judge_packed)

    def judge_packed(self, jobs: Sequence[PackedJob]) -> dict[bytes, Judgement]:
        """Judge distinct jobs that are packed already; no cache, no statistics.

        Returns:
            Judgements by the jobs' digests.

        Raises:
            SandboxError: If the sandbox failed twice on the same job, or the judge is closed.
        """
        workers = self._lease(len(jobs))
        batch = Batch(jobs, self._numbers, self._silence_s)
        try:
            batch.run(workers, self._replace)
        finally:
            # Whoever still has a job, after an error or Ctrl-C, would answer the next batch with it.
            self._release(workers)
        return batch.done

    def _worker_starter(self) -> Callable[[], Worker]:
        """Return what starts a worker; it must not hold on to the judge, or that would never end."""
        return partial(Worker, self._limits, self._max_tier)

    def _lease(self, wanted: int) -> list[Worker]:
        """Take up to `wanted` idle workers, at least one; start those that are missing."""
        with self._lock:
            if self._closed:
                raise SandboxError("this judge is closed")
            self._crew.forget_inherited()
            while not (self._crew.idle or self._crew.size < self._size):
                self._lock.wait()
            count = min(wanted, len(self._crew.idle) + self._size - self._crew.size)
            taken = [self._crew.idle.pop() for _ in range(min(count, len(self._crew.idle)))]
            self._crew.busy.update(taken)
            new = [self._crew.hire() for _ in range(count - len(taken))]
        workers = taken + new
        try:
            return [self._ready(worker) for worker in workers]
        except BaseException:
            self._release(workers)
            raise

    def _ready(self, worker: Worker) -> Worker:
        """Wait for a new worker and see it judge a right and a wrong program."""
        if worker.tier >= 0:
            return worker
        try:
            worker.wait_started()
            self.tier = worker.tier
            if worker.tier < self._min_tier:
                raise SandboxError(f"tier {self._min_tier} wanted, {worker.tier} found: {worker.missing}")
            for source, verdict in _SELF_TEST_PROGRAMS.items():
                worker.send(self._ledger.packer.pack(_SELF_TEST, source).message(0))
                if (answer := worker.receive())["verdict"] != verdict:
                    raise SandboxError(f"the self-test expected {verdict.value}, got {answer}")
        except WorkerDiedError as error:
            raise SandboxError(f"a worker did not start: {error}") from error
        return worker

    def _replace(self, worker: Worker) -> Worker:
        """Start a fresh worker in place of a dead one."""
        self._ledger.count_restart()
        with self._lock:
            self._crew.dismiss(worker)
            new = self._crew.hire()
        try:
            return self._ready(new)
        except BaseException:
            # The batch does not know it yet, and nobody else would give it back.
            self._release([new])
            raise

    def _release(self, workers: list[Worker]) -> None:
        with self._lock:
            for worker in workers:
                if worker in self._crew.busy and (worker.tier < 0 or worker.waiting or self._closed):
                    self._crew.dismiss(worker)
                elif worker in self._crew.busy:
                    self._crew.busy.remove(worker)
                    self._crew.idle.append(worker)
            self._lock.notify_all()

    def close(self) -> None:
        """End every process; batches that other threads still judge fail with SandboxError."""
        with self._lock:
            self._closed = True
        self._finalizer()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Gymnasium copies an environment's arguments into its spec; processes and locks cannot be copied
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_options(*, min_tier: int | None, max_tier: int | None, **positive: float | None) -> None:
    """Check the options that judges share.

    Raises:
        ValueError: If one is out of range; names it.
    """
    for name, value in positive.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, got {value!r}")
    for name, tier in (("min_tier", min_tier), ("max_tier", max_tier)):
        if tier is not None and tier not in range(4):
            raise ValueError(f"{name} must be 0, 1, 2 or 3, got {tier!r}")
