"""A line scorer in another process, asked over a Unix socket: one model for many environments.

Messages are JSON, each way one per question; nothing received is ever unpickled. A program travels as its
prompt and its lines, which is what a reward model reads.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode
from codegym.errors import ScorerError

SERVED = "unix:"
"""What the address of a served scorer begins with, where a folder could stand."""

MAX_MESSAGE_BYTES = 256 * 2**20
_RETRY_S = 0.05


class RemoteScorer:
    """A `LineScorer` whose scores are those of a served one.

    It connects when first asked, again after a failure, and on its own in every process that it is copied to.
    Threads that share one take turns; give each its own to be scored in one batch.

    Args:
        path: The server's socket.
        timeout_s: Seconds to wait for scores.
        connect_timeout_s: Seconds to wait for a server that is just starting.
    """

    def __init__(self, path: str | Path, *, timeout_s: float = 120.0, connect_timeout_s: float = 5.0) -> None:
        for name, value in (("timeout_s", timeout_s), ("connect_timeout_s", connect_timeout_s)):
            if not value >= 0:
                raise ValueError(f"{name} must be >= 0, got {value}")
        self.path = str(path)
        self.timeout_s, self.connect_timeout_s = timeout_s, connect_timeout_s
        self._connection: Connection[Any, Any] | None = None
        self._process = 0
        self._lock = threading.Lock()

    def score(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """One score in [-1, 1] per line. [n_lines] each.

        Raises:
            ScorerError: If the server is not there, goes away, does not answer in time, or its scorer failed.
        """
        if not episodes:
            return []
        programs = [{"prompt": episode.task.prompt, "lines": episode.lines} for episode in episodes]
        with self._lock:
            reply = self._ask({"programs": programs})
        if "scores" not in reply:
            raise ScorerError(f"the scorer at {self.path} failed: {reply.get('error')}")
        return [np.array(scores, dtype=np.float64) for scores in reply["scores"]]

    def close(self) -> None:
        """Hang up; the next question connects again."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("path", "timeout_s", "connect_timeout_s")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _ask(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            connection = self._connected()
            send(connection, question)
            if not connection.poll(self.timeout_s):
                raise TimeoutError(f"no answer within {self.timeout_s:g} s")
            return receive(connection)
        except (OSError, EOFError, ValueError) as error:
            # what is left of this conversation must not be taken for the answer to the next question
            self.close()
            raise ScorerError(
                f"no scores from the scorer at {self.path}: {type(error).__name__} {error}; is it running? "
                "(codegym serve-prm)"
            ) from error

    def _connected(self) -> "Connection[Any, Any]":
        if self._connection is None or self._process != os.getpid():
            self._connection = connect(self.path, self.connect_timeout_s)
            self._process = os.getpid()
        return self._connection


def connect(path: str, timeout_s: float) -> "Connection[Any, Any]":
    """A connection to the server at a socket, which may still be starting.

    Raises:
        OSError: If there is none in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        caller = socket.socket(socket.AF_UNIX)
        try:
            caller.connect(path)
            return Connection(caller.detach())
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() >= deadline:
                raise
        finally:
            caller.close()
        time.sleep(_RETRY_S)


def send(connection: "Connection[Any, Any]", message: Mapping[str, Any]) -> None:
    """Send a message; hostile text is escaped, lone surrogates too."""
    connection.send_bytes(json.dumps(message).encode())


def receive(connection: "Connection[Any, Any]") -> dict[str, Any]:
    """The next message.

    Raises:
        EOFError: If the other side has hung up.
        OSError: If the message is too long, or the connection is broken.
        ValueError: If it is no JSON object.
    """
    message = json.loads(connection.recv_bytes(MAX_MESSAGE_BYTES))
    if not isinstance(message, dict):
        raise ValueError(f"expected a JSON object, got {message!r:.80}")
    return message
