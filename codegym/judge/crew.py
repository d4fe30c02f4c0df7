"""The workers that a judge owns."""

import os
from collections.abc import Callable

from codegym.errors import SandboxError
from codegym.judge.worker import Worker


class Crew:
    """Idle and busy workers. Not thread-safe: the judge's lock guards it, except in `disband`."""

    def __init__(self, start_worker: Callable[[], Worker]) -> None:
        self._start_worker = start_worker
        self.idle: list[Worker] = []
        self.busy: set[Worker] = set()
        self._owner = os.getpid()
        self._disbanded = False

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self.idle) + len(self.busy)

    def hire(self) -> Worker:
        """Start a worker, busy from the start.

        Raises:
            SandboxError: If the judge is closed.
        """
        if self._disbanded:
            raise SandboxError("this judge is closed")
        worker = self._start_worker()
        self.busy.add(worker)
        return worker

    def dismiss(self, worker: Worker) -> None:
        """End a busy worker."""
        self.busy.discard(worker)
        worker.close()

    def forget_inherited(self) -> None:
        """After a fork, leave the workers to the process that started them."""
        if os.getpid() != self._owner:
            for worker in [*self.idle, *self.busy]:
                worker.abandon()
            self.idle, self.busy, self._owner = [], set(), os.getpid()

    def disband(self) -> None:
        """End every worker, for good."""
        self.forget_inherited()
        self._disbanded = True
        for worker in [*self.idle, *self.busy]:
            worker.close()
        self.idle, self.busy = [], set()
