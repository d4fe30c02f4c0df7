"""Judging programs while others are still being written."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from agents.rollout import make_episode
from codegym.judge import Job, Judge
from codegym.task import Task
from codegym.verdict import Judgement
from prm.completion import Completion


class EarlyJudging:
    """Judges the programs of one iteration: early what it is told of, the rest in the end.

    Where the sampler computes on a GPU, the judge's time on the CPU vanishes behind it. One thread judges,
    whatever has come in since its last batch; no program is judged twice, and which batch it was in makes no
    difference to its judgement.

    Args:
        judge: Thread-safe, as judges are.
        tasks: The task of each program.

    Attributes:
        seconds: Spent judging so far.
    """

    def __init__(self, judge: Judge, tasks: Sequence[Task]) -> None:
        self.judge, self.tasks = judge, tasks
        self.seconds = 0.0
        self._told: dict[int, Completion] = {}
        self._waiting: list[int] = []
        self._judged: dict[tuple[str, str], Judgement] = {}
        self._failed = False
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="early-judging")
        self._runs: list[Future[None]] = []

    def tell(self, finished: Sequence[tuple[int, Completion]]) -> None:
        """Take in programs that are complete, each with its place among all; an `OnFinished` of samplers.

        Returns at once; what goes wrong while judging is raised by `judgements`.
        """
        with self._lock:
            self._told.update(finished)
            self._waiting += [place for place, _ in finished]
            self._runs.append(self._thread.submit(self._judge_waiting))

    def judgements(self, completions: Sequence[Completion]) -> list[Judgement]:
        """Wait for what was told, judge the rest, and return one judgement per program, in order.

        Args:
            completions: All of them.

        Raises:
            SandboxError: If the sandbox failed, for any of the programs.
            ValueError: If a program is not the one that was told of.
        """
        for run in self._runs:
            run.result()
        for place, told in self._told.items():
            if completions[place] != told:
                raise ValueError(f"the sampler told of program {place} before it was complete")
        jobs = [self._job(place, completion) for place, completion in enumerate(completions)]
        self._judge(jobs)
        return [self._judged[task.task_id, source] for task, source in jobs]

    def _judge_waiting(self) -> None:
        """Judge what came in since the last time; often that was another run's to do."""
        with self._lock:
            places, self._waiting = self._waiting, []
        if self._failed:  # the iteration is lost: no use in judging more of it
            return
        try:
            self._judge([self._job(place, self._told[place]) for place in places])
        except BaseException:
            self._failed = True
            raise

    def _judge(self, jobs: Sequence[Job]) -> None:
        fresh = [(task, source) for task, source in jobs if (task.task_id, source) not in self._judged]
        if not fresh:
            return
        began = time.perf_counter()
        judgements = self.judge.judge(fresh)
        self.seconds += time.perf_counter() - began
        for (task, source), judgement in zip(fresh, judgements, strict=True):
            self._judged[task.task_id, source] = judgement

    def _job(self, place: int, completion: Completion) -> Job:
        episode = make_episode(self.tasks[place], completion)
        return episode.task, episode.source

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)
