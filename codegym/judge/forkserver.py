"""The trusted side's handle on the zygote and its current child."""

import json
import secrets
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from codegym.judge.jail import Limits
from codegym.judge.protocol import HUNG_UP, NEXT, environment, python_command
from codegym.judge.wire import frame, join, receive_frame


class ZygoteError(Exception):
    """The zygote or a child failed before any candidate code ran: the sandbox's fault."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a child ended: wait status, CPU seconds, peak memory."""

    status: int
    cpu_s: float
    peak_bytes: int
    lingered: bool


class ForkServer:
    """A running zygote and its current child, always one that waits for a job or works on it."""

    def __init__(self, limits: Limits, max_tier: int, scratch: str | None, pool: socket.socket) -> None:
        """Start the process and its first child.

        Args:
            limits: What one program may use.
            max_tier: Use no higher tier.
            scratch: An empty folder for programs, used where there is no private /tmp.
            pool: The grader's own channel; when it hangs up, there is nobody to work for.

        Raises:
            ZygoteError: If it does not come up.
        """
        self.pool = pool
        self._control, theirs = socket.socketpair()
        config = json.dumps({"limits": asdict(limits), "max_tier": max_tier, "scratch": scratch})
        # Standard error is the worker's log; a child gives it up before candidate code runs.
        self._process = subprocess.Popen(
            python_command("codegym.judge.zygote", str(theirs.fileno()), config),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment(),
            cwd="/",
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        hello = self._report()
        self.tier: int = hello["tier"]
        self.missing: str = hello["missing"]
        self._fork(NEXT)

    def _report(self) -> Any:
        data = receive_frame(self._control)
        if data is None:
            raise ZygoteError(f"the zygote ended with status {self._process.wait()}")
        return json.loads(data)

    def _fork(self, command: bytes) -> None:
        self.channel, theirs = socket.socketpair()
        socket.send_fds(self._control, [command], [theirs.fileno()])
        theirs.close()

    def send_job(
        self, header: dict[str, Any], source: bytes, calls: bytes, files: Sequence[int]
    ) -> tuple[int, bytes]:
        """Hand a job to the waiting child; return its process number and the nonce it is to answer with.

        Raises:
            ZygoteError: If the child or the zygote is gone.
        """
        pid: int = self._report()["pid"]
        nonce = secrets.token_hex(8)
        data = frame(join([json.dumps(header | {"nonce": nonce}).encode(), source, calls]))
        try:
            # Descriptors travel with the first bytes, alone, so that the child cannot read past them.
            socket.send_fds(self.channel, [data[:4]], files)
            self.channel.sendall(data[4:])
        except OSError as error:
            raise ZygoteError("the child was gone before its job") from error
        return pid, nonce.encode()

    def next_child(self) -> None:
        """End the current child and let the zygote fork the next one meanwhile."""
        self.channel.close()
        self._fork(NEXT)

    def end_child(self) -> Ending:
        """End the current child, which hung up, and return how; then let the zygote fork the next one."""
        self.channel.close()
        self._control.sendall(HUNG_UP)
        ending = Ending(**self._report())
        self._fork(NEXT)
        return ending

    def close(self) -> None:
        """End the zygote and its child."""
        self.channel.close()
        self._control.close()
        self._process.kill()
        self._process.wait()
