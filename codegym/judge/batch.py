"""Driving leased workers through one batch of jobs, and what happens when a worker fails."""

import logging
import select
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from codegym.errors import SandboxError
from codegym.judge.jobs import PackedJob
from codegym.judge.worker import OvertimeError, Worker, WorkerDiedError
from codegym.verdict import Judgement, Verdict

_log = logging.getLogger(__name__)

# Jobs in a worker's hands: one that runs and one that waits in its socket.
_IN_FLIGHT = 2
_ATTEMPTS = 2
_POLL_MS = 500


@dataclass(kw_only=True, eq=False)
class Attempt:
    """A job on its way: its current number and how many workers it has seen fail."""

    job: PackedJob
    number: int = -1
    failures: int = 0


class Batch:
    """Distinct jobs and their judgements.

    Attributes:
        done: Judgements so far, by the jobs' digests.
    """

    def __init__(self, jobs: Sequence[PackedJob], numbers: Iterator[int], silence_s: float) -> None:
        """Prepare.

        Args:
            jobs: What to judge; no two have the same digest.
            numbers: Source of numbers that no other batch uses.
            silence_s: How long a worker may work on one job without a word.
        """
        self.done: dict[bytes, Judgement] = {}
        self._queue = deque(Attempt(job=job) for job in jobs)
        self._numbers = numbers
        self._silence_s = silence_s

    def run(self, workers: list[Worker], replace: Callable[[Worker], Worker]) -> None:
        """Judge every job.

        Args:
            workers: Idle workers; those that fail are replaced in the list.
            replace: Ends a failed worker and returns a fresh one.

        Raises:
            SandboxError: If the sandbox failed twice on the same job.
        """
        for worker in list(workers):
            self._advance(worker, workers, replace, readable=False)
        while any(worker.waiting for worker in workers):
            poll = select.poll()
            by_descriptor = {worker.channel.fileno(): worker for worker in workers if worker.waiting}
            for descriptor in by_descriptor:
                poll.register(descriptor, select.POLLIN)
            readable = {descriptor for descriptor, _ in poll.poll(_POLL_MS)}
            for descriptor, worker in by_descriptor.items():
                if descriptor in readable or time.monotonic() - worker.progress > self._silence_s:
                    self._advance(worker, workers, replace, readable=descriptor in readable)

    def _advance(
        self, worker: Worker, workers: list[Worker], replace: Callable[[Worker], Worker], *, readable: bool
    ) -> None:
        """Take a worker's answer and give it more to do; replace it if it fails."""
        try:
            if readable:
                self._collect(worker)
            elif worker.waiting:
                raise WorkerDiedError(f"silent for {self._silence_s:g} s")
            self._feed(worker)
        except WorkerDiedError as error:
            _log.warning("a worker failed: %s", error)
            self._take_back(worker, error)
            place = workers.index(worker)
            workers[place] = replace(worker)
            self._advance(workers[place], workers, replace, readable=False)

    def _feed(self, worker: Worker) -> None:
        while self._queue and len(worker.waiting) < _IN_FLIGHT:
            attempt = self._queue.popleft()
            attempt.number = next(self._numbers)
            if not worker.waiting:
                # the time since its last answer was not spent on a job
                worker.progress = time.monotonic()
            worker.waiting.append(attempt)
            worker.send(attempt.job.message(attempt.number))

    def _collect(self, worker: Worker) -> None:
        answer = worker.receive()
        attempt: Attempt = worker.waiting[0]
        if answer.pop("id") != attempt.number:
            raise WorkerDiedError("answered out of step")
        worker.waiting.popleft()
        self.done[attempt.job.digest] = _judgement(answer)

    def _take_back(self, worker: Worker, error: WorkerDiedError) -> None:
        """Queue a failed worker's jobs again; the one it worked on must not fail a second time."""
        while len(worker.waiting) > 1:
            self._queue.appendleft(worker.waiting.pop())
        if not worker.waiting:
            return
        attempt: Attempt = worker.waiting.popleft()
        attempt.failures += 1
        if isinstance(error, OvertimeError):
            message = "the tests did not finish on the program's values"
            self._fail(attempt.job, Verdict.TIME_LIMIT, message, worker.tier)
        elif attempt.failures < _ATTEMPTS:
            self._queue.appendleft(attempt)
        elif worker.tier == 0:
            # Without isolation a program can kill its judge, and two in a row are no accident.
            self._fail(attempt.job, Verdict.TAMPERED, "the worker ended twice", worker.tier)
        else:
            raise SandboxError(
                f"the sandbox failed {attempt.failures} times on the same program: {error}"
            ) from error

    def _fail(self, job: PackedJob, verdict: Verdict, message: str, tier: int) -> None:
        results = (False,) * len(job.task.order)
        self.done[job.digest] = Judgement(verdict=verdict, results=results, message=message, tier=tier)


def _judgement(answer: dict[str, Any]) -> Judgement:
    return Judgement(**answer | {"verdict": Verdict(answer["verdict"]), "results": tuple(answer["results"])})
