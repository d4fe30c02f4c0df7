"""The trusted side's handle on the zygote and its current child."""

import json
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from codegym.judge.cgroup import Group
from codegym.judge.protocol import HUNG_UP, NEXT
from codegym.judge.start import Zygote, ZygoteError
from codegym.judge.wire import frame, join, receive_frame


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a child ended: wait status, CPU seconds, peak memory, whether the kernel killed it for memory."""

    status: int
    cpu_s: float
    peak_bytes: int
    lingered: bool
    out_of_memory: bool = False


class ForkServer:
    """A running zygote and its current child, always one that waits for a job or works on it."""

    def __init__(self, zygote: Zygote, pool: socket.socket, group: Group | None = None) -> None:
        """Start the first child.

        Args:
            zygote: A zygote that has just been started.
            pool: The grader's own channel; when it hangs up, there is nobody to work for.
            group: The cgroup v2 group that it was told to put children into.

        Raises:
            ZygoteError: If the zygote does not come up.
        """
        self.pool = pool
        self._zygote = zygote
        self._control = zygote.control
        self._group = group
        hello = self._report()
        if "error" in hello:
            raise ZygoteError(hello["error"])
        self.tier: int = hello["tier"]
        self.missing: str = hello["missing"]
        self._fork(NEXT)

    def _report(self) -> Any:
        data = receive_frame(self._control)
        if data is None:
            raise ZygoteError(f"the zygote {self._zygote.ending()}")
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
        pid = self._zygote.visible_pid(self._report()["pid"])
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
        ending = Ending(**self._report(), out_of_memory=bool(self._group and self._group.out_of_memory()))
        self._fork(NEXT)
        return ending

    def close(self) -> None:
        """End the zygote and its child."""
        self.channel.close()
        self._zygote.close()
