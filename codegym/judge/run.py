"""One candidate program under its limits, as the trusted side sees it."""

import math
import os
import resource
import secrets
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from codegym.judge.codec import MAX_BYTES
from codegym.judge.forkserver import Ending, ForkServer
from codegym.judge.jail import Limits
from codegym.judge.protocol import READY
from codegym.judge.start import ZygoteError
from codegym.judge.wire import FrameError, frame, join, receive_exactly, receive_frame, split
from codegym.verdict import Verdict

# Wall time is only the backstop: a program that waits for a core is not slow.
WALL_FACTOR = 5.0
WALL_EXTRA_S = 1.0
# How long a program may do nothing, beyond its CPU limit.
_IDLE_EXTRA_S = 0.2
_SLICE_S = 0.02
# What the tests' own work on a program's values may take, and how much more for each byte of its answers.
_TESTS_S, _TESTS_S_PER_BYTE = 0.4, 0.5e-6
_MANY_BYTES = 2**16


class Stopped(BaseException):
    """The program cannot go on: over a limit, gone, or out of step. Not for a test's `except Exception`."""

    def __init__(self, verdict: Verdict, message: str, exit_status: int | None = None) -> None:
        super().__init__(message)
        self.verdict = verdict
        self.message = message
        self.exit_status = exit_status


class PoolGoneError(Exception):
    """Nobody waits for the verdict any more."""


class Budget:
    """CPU and idle time of one program, over all its processes.

    CPU time decides. Idle time is wall time spent waiting for the program while none of its threads wants a
    core, so neither a loaded machine nor the tests' own work counts.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._wall_stop = 0.0
        self.cpu_s = 0.0
        self._idle_s = 0.0
        self._pid = 0
        self._base_s = 0.0

    def begin(self, pid: int) -> None:
        """Count a process from now on; what it needed to start is not the program's."""
        self._pid = pid
        self._base_s = process_cpu_s(pid)
        # From the first process on: before that, the sandbox may be busy with what the last program left.
        self._wall_stop = self._wall_stop or (
            time.monotonic() + WALL_FACTOR * self.limits.cpu_s + WALL_EXTRA_S
        )

    def end(self, cpu_s: float) -> None:
        """Settle a process that has used `cpu_s` seconds in its life."""
        self.cpu_s += max(0.0, cpu_s - self._base_s)
        self._pid = 0

    def used_s(self) -> float:
        """CPU seconds used so far."""
        return self.cpu_s + process_cpu_s(self._pid) - self._base_s if self._pid else self.cpu_s

    def spend(self, waited_s: float = 0.0) -> float:
        """Count a slice of waiting; return how long to wait next.

        Raises:
            Stopped: If a limit is reached.
        """
        used_s = self.used_s()
        left = self.limits.cpu_s - used_s
        if left <= 0:
            raise Stopped(Verdict.TIME_LIMIT, f"used more than {self.limits.cpu_s:g} s of CPU time")
        if waited_s and not _wants_a_core(self._pid):
            self._idle_s += waited_s
        if self._idle_s + used_s > self.limits.cpu_s + _IDLE_EXTRA_S:
            raise Stopped(Verdict.TIME_LIMIT, f"busy and idle for more than {self.limits.cpu_s:g} s")
        if time.monotonic() > self._wall_stop:
            raise Stopped(Verdict.TIME_LIMIT, "wall time ran out")
        return min(_SLICE_S, left + 0.001)


class TestsLimit:
    """Bounds the CPU time of one job's tests themselves: values can make honest tests endless.

    Attributes:
        stopped: What was raised, if anything was: a test's own `except` may have swallowed it.
    """

    def __init__(self) -> None:
        """Begin with nothing used."""
        self.stopped: Stopped | None = None
        self._left_s = _TESTS_S
        self._began_s: float | None = None
        _limit_own_cpu(None)

    def allow(self, n_bytes: int) -> None:
        """Allow more time, for answers of this size."""
        self._left_s += n_bytes * _TESTS_S_PER_BYTE
        if self._began_s is not None and n_bytes > _MANY_BYTES:
            _limit_own_cpu(self._remaining_s())

    def _remaining_s(self) -> float:
        return self._left_s - (time.process_time() - (self._began_s or 0.0))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within the block, raise Stopped when the time is up: once, and never outside of the block.

        A single call that goes on and on in C cannot be interrupted; the kernel then ends this process.
        """
        self._began_s = time.process_time()
        signal.signal(signal.SIGPROF, self._ring)
        _limit_own_cpu(self._left_s)
        signal.setitimer(signal.ITIMER_PROF, max(self._left_s, 0.001))
        try:
            yield
        finally:
            began_s, self._began_s = self._began_s, None
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._left_s -= time.process_time() - began_s
            _limit_own_cpu(None)

    def _ring(self, _number: int, _frame: object) -> None:
        if self._began_s is None or self.stopped is not None:
            return
        if (more_s := self._remaining_s()) > 0:
            signal.setitimer(signal.ITIMER_PROF, more_s)
            return
        self.stopped = Stopped(Verdict.TIME_LIMIT, "the tests did not finish on the program's values")
        raise self.stopped


def _limit_own_cpu(seconds: float | None) -> None:
    """Let the kernel end this process after so much more CPU time and a second; None: never."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = hard if seconds is None else math.ceil(time.process_time() + max(seconds, 0.0)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (hard if 0 <= hard < soft else soft, hard))


class Run:
    """The conversation with one child."""

    def __init__(
        self,
        server: ForkServer,
        budget: Budget,
        header: dict[str, Any],
        source: bytes,
        calls: bytes = b"",
        files: Sequence[int] = (),
    ) -> None:
        """Hand the waiting child its job.

        Raises:
            ZygoteError: If the sandbox fails.
        """
        self._server = server
        self._budget = budget
        self._channel = server.channel
        self._pid, self._nonce = server.send_job(header, source, calls, files)
        budget.begin(self._pid)
        self._ready = False
        self._open = True

    def wait_loaded(self) -> list[bytes]:
        """Wait until the child has done its job; return what it says beside the nonce.

        Raises:
            Stopped: If the program cannot go on.
        """
        parts = self._receive()
        if parts[:1] != [self._nonce]:
            raise Stopped(Verdict.TAMPERED, "the program wrote to the judge's channel")
        return parts[1:]

    def call(self, arguments: bytes) -> bytes:
        """Make one call and return its answer line.

        Raises:
            Stopped: If the program cannot go on.
        """
        number = secrets.token_bytes(8)
        try:
            self._send(frame(join([number, arguments])))
        except OSError:
            self._gone()
        parts = self._receive()
        if len(parts) != 2 or parts[0] != number:
            raise Stopped(Verdict.TAMPERED, "the program answered out of step")
        return parts[1]

    def end(self) -> None:
        """End the program if it still runs, and count its CPU time."""
        if self._open:
            self._open = False
            self._budget.end(process_cpu_s(self._pid))
            self._server.next_child()

    def _send(self, data: bytes) -> None:
        """Send within the limits: a program that does not read fills the channel."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._channel.send(left, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                self._wait(select.POLLOUT)

    def _receive(self) -> list[bytes]:
        """Read one message within the limits."""
        try:
            if not self._ready:
                self._read_ready()
            data = receive_frame(self._channel, MAX_BYTES + 1024, self._wait)
            return split(data) if data is not None else self._gone()
        except FrameError as error:
            raise Stopped(Verdict.TAMPERED, f"the program broke the judge's channel: {error}") from None
        except ConnectionResetError:
            self._gone()

    def _read_ready(self) -> None:
        mark = receive_exactly(self._channel, len(READY), self._wait)
        if mark != READY:
            raise ZygoteError("a child could not confine itself")
        self._ready = True

    def _wait(self, event: int = select.POLLIN) -> None:
        """Wait until there is something to read, or room to write."""
        self._budget.spend()
        poll = select.poll()
        poll.register(self._channel, event)
        # Hanging up is reported unasked; whatever else comes from the pool can wait.
        poll.register(self._server.pool, 0)
        slice_s = _SLICE_S
        while not (events := poll.poll(slice_s * 1000)):
            slice_s = self._budget.spend(slice_s)
        if any(descriptor == self._server.pool.fileno() for descriptor, _ in events):
            raise PoolGoneError("the pool hung up in the middle of a program")

    def _gone(self) -> NoReturn:
        """Find out why the child hung up."""
        # The exchange with the zygote must not be cut short by the tests' own limit.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})
        try:
            self._open = False
            ending = self._server.end_child()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if not self._ready:
            raise ZygoteError("a child ended before it was confined")
        self._budget.end(ending.cpu_s)
        status = (
            os.WEXITSTATUS(ending.status) if os.WIFEXITED(ending.status) and not ending.lingered else None
        )
        raise Stopped(*_explain(ending, self._budget.limits), exit_status=status)


def _explain(ending: Ending, limits: Limits) -> tuple[Verdict, str]:
    """Return what a child's end says about its program."""
    if ending.lingered:
        return Verdict.TAMPERED, "the program closed the judge's channel"
    if os.WIFSIGNALED(ending.status):
        number = os.WTERMSIG(ending.status)
        if ending.out_of_memory:
            return Verdict.MEMORY_LIMIT, f"killed for memory, at {ending.peak_bytes >> 20} MiB"
        if number in (signal.SIGKILL, signal.SIGXCPU) and ending.cpu_s >= limits.cpu_s:
            return Verdict.TIME_LIMIT, f"used more than {limits.cpu_s:g} s of CPU time"
        if number == signal.SIGKILL or ending.peak_bytes > 0.9 * limits.memory_bytes:
            return Verdict.MEMORY_LIMIT, f"killed by signal {number}, at {ending.peak_bytes >> 20} MiB"
        return Verdict.RUNTIME_ERROR, f"killed by signal {number}"
    return Verdict.RUNTIME_ERROR, f"ended early with status {os.WEXITSTATUS(ending.status)}"


def process_cpu_s(pid: int) -> float:
    """Return another process's CPU seconds; 0 where the system does not tell, or the number is 0."""
    if sys.platform != "linux" or pid == 0:
        return 0.0
    try:
        # The kernel's encoding of a CPU clock: the inverted number, then the kind "scheduler time".
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _wants_a_core(pid: int) -> bool:
    """Whether a thread of a process runs or could run right now; False where the system does not tell.

    The kernel's sum of a process's time in the queue will not do: it lacks the wait that still goes on.
    """
    try:
        stats = [(thread / "stat").read_bytes() for thread in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return False
    # Behind the name, which may contain anything: R runs or is ready to, D waits for the kernel itself.
    return any(stat.rpartition(b")")[2].split()[0] in (b"R", b"D") for stat in stats)
