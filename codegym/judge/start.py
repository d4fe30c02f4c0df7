"""How a grader comes by its zygote: as a process of its own, or from a container that calls in."""

import json
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any, Protocol

from codegym.judge.protocol import environment, python_command
from codegym.judge.wire import frame

_CALL_IN_S = 45.0
_CREDENTIALS = struct.Struct("iII")


class ZygoteError(Exception):
    """The zygote or a child failed before any candidate code ran: the sandbox's fault."""


class Zygote(Protocol):
    """A zygote that has been started.

    Attributes:
        control: The channel to it.
    """

    control: socket.socket

    def visible_pid(self, pid: int) -> int:
        """Return this process's number for the current child, which the zygote calls `pid`.

        0 where the child cannot be seen from here; then only its wall time can be limited.
        """
        ...

    def ending(self) -> str:
        """Return how a zygote ended that hung up."""
        ...

    def close(self) -> None:
        """End it and its child."""
        ...


class LocalZygote:
    """A zygote beside its grader."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Start the process.

        Args:
            settings: The zygote's configuration.
        """
        self.control, theirs = socket.socketpair()
        # Standard error is the worker's log; a child gives it up before candidate code runs.
        self._process = subprocess.Popen(
            python_command("codegym.judge.zygote", str(theirs.fileno()), json.dumps(settings)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment(),
            cwd="/",
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def visible_pid(self, pid: int) -> int:
        """Return the number unchanged."""
        return pid

    def ending(self) -> str:
        """Return the exit status."""
        return f"ended with status {self._process.wait()}"

    def close(self) -> None:
        """End it and its child."""
        self.control.close()
        self._process.kill()
        self._process.wait()


class ContainedZygote:
    """A zygote in a container, which calls in on a socket that the container can reach."""

    def __init__(self, listener: int, settings: dict[str, Any]) -> None:
        """Wait for the call and answer it with the zygote's configuration.

        Args:
            listener: Descriptor of the listening socket; closed afterwards, so that nobody else can call.
            settings: The zygote's configuration, but for what is a matter of the container.

        Raises:
            ZygoteError: If nobody calls.
        """
        with socket.socket(fileno=listener) as listening:
            listening.settimeout(_CALL_IN_S)
            try:
                self.control, _ = listening.accept()
            except TimeoutError as error:
                raise ZygoteError(f"no container called in within {_CALL_IN_S:g} s") from error
        self.control.settimeout(None)
        # In this process's view, 0 if the container's processes are not part of it.
        credentials = self.control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self._pid: int = _CREDENTIALS.unpack(credentials)[0]
        # Standard error comes along: the worker's log.
        socket.send_fds(self.control, [b"\0"], [2])
        self.control.sendall(frame(json.dumps(settings).encode()))

    def visible_pid(self, pid: int) -> int:  # noqa: ARG002 - a number of the container's own
        """Return the number of the zygote's only child here."""
        try:
            children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
        except OSError:
            return 0
        return int(children[0]) if len(children) == 1 else 0

    def ending(self) -> str:
        """Return what can be known from outside."""
        return "hung up, and its container ended with it"

    def close(self) -> None:
        """Hang up: the zygote ends, and with it the container and all its processes."""
        self.control.close()
