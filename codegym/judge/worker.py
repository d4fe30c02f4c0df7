"""The pool's handle on one worker: a grader process with its zygote."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from codegym.judge.cgroup import OwnedGroup, make_group
from codegym.judge.jail import Limits
from codegym.judge.protocol import environment, python_command
from codegym.judge.scratch import make_folder, remove_folder
from codegym.judge.wire import FrameError, receive_frame

_START_S = 60.0


class WorkerDiedError(Exception):
    """The grader ended or went silent."""


class OvertimeError(WorkerDiedError):
    """The kernel ended the grader, whose tests would not finish on a program's values."""


class Worker:
    """One grader process; jobs go in, judgements come out in the same order."""

    def __init__(
        self,
        limits: Limits,
        max_tier: int,
        *,
        scratch: str | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        """Start the process without waiting for it.

        Args:
            limits: What one program may use.
            max_tier: Use no higher tier.
            scratch: A folder from `make_folder`, by default a new one; removed with the worker.
            listener: Where to await a zygote from a container; by default the grader starts its own.
        """
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(_START_S)
        self._scratch = scratch or make_folder()
        passed = [theirs.fileno()] + ([listener.fileno()] if listener else [])
        config = {"limits": asdict(limits), "max_tier": max_tier, "scratch": self._scratch}
        config["listener"] = listener.fileno() if listener else None
        self._group, self._no_group = _make_group(limits) if max_tier >= 3 and not listener else (None, "")
        config["group"] = str(self._group.path) if self._group else None
        self._process = subprocess.Popen(
            python_command("codegym.judge.grader", str(theirs.fileno()), json.dumps(config)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            env=environment(),
            cwd="/",
            pass_fds=passed,
            start_new_session=True,
        )
        theirs.close()
        self.tier = -1
        self.missing = ""
        self.waiting: deque[Any] = deque()
        self.progress = time.monotonic()

    @property
    def pid(self) -> int:
        """Process number of the grader."""
        return self._process.pid

    def wait_started(self) -> None:
        """Wait until the zygote is up and its tier known.

        Raises:
            WorkerDiedError: If it does not come up.
        """
        if self.tier < 0:
            hello = self.receive()
            self.tier, self.missing = hello["tier"], hello["missing"] or self._no_group

    def send(self, job: bytes) -> None:
        """Queue a job.

        Raises:
            WorkerDiedError: If the grader is gone.
        """
        try:
            self.channel.sendall(job)
        except OSError as error:
            raise WorkerDiedError(f"cannot send: {error}; {self._last_words()}") from error

    def receive(self) -> dict[str, Any]:
        """Read the next message.

        Raises:
            WorkerDiedError: If the grader is gone or silent.
        """
        try:
            data = receive_frame(self.channel)
        except (OSError, FrameError) as error:
            raise self._why_gone(f"cannot receive: {error}; ") from error
        if data is None:
            raise self._why_gone()
        self.progress = time.monotonic()
        message: dict[str, Any] = json.loads(data)
        return message

    def _why_gone(self, told: str = "") -> WorkerDiedError:
        try:
            status = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            status = None
        kind = OvertimeError if status == -signal.SIGXCPU else WorkerDiedError
        return kind(told + self._last_words())

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return f"the grader's log ends with: {' | '.join(lines[-12:]) or 'nothing'}"

    def close(self) -> None:
        """End the grader, and with it the zygote and its child."""
        self.channel.close()
        try:
            # The whole session: a dying grader has no time to end its zygote.
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self._process.kill()
        self._process.wait()
        self._log.close()
        if self._group:
            # Otherwise whoever makes the next group removes it.
            with suppress(OSError):
                self._group.remove()
        # The grader may have been first.
        with suppress(FileNotFoundError):
            remove_folder(self._scratch)

    def abandon(self) -> None:
        """Let go of another process's worker without disturbing it."""
        self.channel.close()
        self._log.close()
        if self._group:
            self._group.abandon()
        # Not our child: there is nothing to wait for.
        self._process.returncode = 0


def _make_group(limits: Limits) -> tuple[OwnedGroup | None, str]:
    """Make a cgroup v2 group for programs, or say what is missing."""
    try:
        group = make_group()
    except OSError as error:
        return None, f"tier 3 needs a place for cgroup v2 groups: {error}"
    try:
        group.limit(memory_bytes=limits.memory_bytes, threads=limits.threads)
    except OSError as error:
        group.remove()
        return None, f"tier 3 needs the limits of cgroup v2 groups: {error}"
    return group, ""
