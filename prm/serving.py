"""One reward model for many environments in other processes: a server that scores what arrives together.

Environments ask by `codegym.rewards.remote.RemoteScorer`, or by the address "unix:PATH" in the place of the
model's folder: `RewardWrapper(env, "process", prm="unix:/tmp/prm.socket")`.
"""

import logging
import os
import queue
import socket
import stat
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from codegym.episode import Episode
from codegym.rewards import LineScorer
from codegym.rewards.remote import connect, receive, send
from codegym.rewards.scoring import checked_scores
from codegym.task import Task

LOG = logging.getLogger(__name__)

_GOODBYE_S = 2.0  # that clients have to read their last answers
_LONGEST_PATH = 107  # bytes that the kernel has for a socket's path


@dataclass(kw_only=True)
class ServingStatistics:
    """What a server has done.

    Attributes:
        requests: Questions answered.
        batches: Calls of the scorer for them.
        programs: Programs scored.
    """

    requests: int = 0
    batches: int = 0
    programs: int = 0


@dataclass(frozen=True, kw_only=True)
class _Request:
    episodes: Sequence[Episode]
    reply: Future[dict[str, Any]] = field(default_factory=Future)


class ScorerServer:
    """Answers scoring requests over a Unix socket, those that arrive within a moment in one batch.

    A context manager; its threads end with it. Only this user may connect. A program that the scorer cannot
    read fails its own request and no other.

    Args:
        scorer: Scores programs by their prompt and lines; only one thread ever asks it.
        path: The socket; a stale one, which nobody serves, is replaced.
        window_s: Seconds that a request waits for others; none if every client is waiting already.
        max_programs: A batch of so many programs waits for no more.

    Attributes:
        statistics: What it has done so far.
    """

    def __init__(
        self, scorer: LineScorer, path: str | Path, *, window_s: float = 0.003, max_programs: int = 512
    ) -> None:
        if not window_s >= 0:
            raise ValueError(f"window_s must be >= 0, got {window_s}")
        if max_programs < 1:
            raise ValueError(f"max_programs must be at least 1, got {max_programs}")
        self.scorer, self.path = scorer, Path(path)
        self.window_s, self.max_programs = window_s, max_programs
        self.statistics = ServingStatistics()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._scoring = threading.Thread(target=self._score_forever, name="scorer", daemon=True)

    def start(self) -> Self:
        """Listen, and answer from threads of its own.

        Raises:
            ValueError: If the path is too long for a socket, is no socket, or is served already.
            OSError: If there can be no socket at the path; FileNotFoundError if its folder is missing.
        """
        _make_way(self.path)
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(self.path))
            self.path.chmod(0o600)
            listener.listen(128)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name="accept", daemon=True).start()
        self._scoring.start()
        return self

    def close(self) -> None:
        """Answer what has arrived, hang up on every client and remove the socket; twice is fine."""
        with self._lock:  # whatever is asked from here on is refused, not queued
            listener, self._listener = self._listener, None
        if listener is None:
            return
        self.path.unlink(missing_ok=True)
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        listener.close()
        self._requests.put(None)
        self._scoring.join()
        with self._lock:
            clients = dict(self._clients)
        for client in clients:
            with suppress(OSError):  # gone already
                client.shutdown(socket.SHUT_RD)  # an answer on its way still arrives
        deadline = time.monotonic() + _GOODBYE_S
        for thread in clients.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- threads: one accepts, one per client reads and writes, one scores ----------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(client,), name="client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self._clients[client] = threading.current_thread()
        try:
            with Connection(os.dup(client.fileno())) as connection:
                while True:
                    send(connection, self._reply(receive(connection)))
        except (EOFError, OSError, ValueError) as error:
            LOG.debug("a client is gone: %s", error)
        finally:
            with self._lock:
                del self._clients[client]
                client.close()

    def _reply(self, message: Mapping[str, Any]) -> dict[str, Any]:
        try:
            request = _Request(episodes=[_episode(program) for program in message["programs"]])
        except (KeyError, TypeError, ValueError) as error:
            return {"error": f"not a scoring request: {type(error).__name__} {error}"}
        with self._lock:
            if self._listener is None:
                return {"error": "the server is closing"}
            self._requests.put(request)
        return request.reply.result()

    def _score_forever(self) -> None:
        while (first := self._requests.get()) is not None:
            self._answer(self._collect(first))

    def _collect(self, first: _Request) -> list[_Request]:
        """The first request and those that arrive before its window closes."""
        batch, n_programs = [first], len(first.episodes)
        deadline = time.monotonic() + self.window_s
        # a client has one request at a time: once all of them wait, nobody is left to wait for
        while n_programs < self.max_programs and len(batch) < len(self._clients):
            try:
                request = self._requests.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if request is None:
                self._requests.put(None)
                break
            batch.append(request)
            n_programs += len(request.episodes)
        return batch

    def _answer(self, batch: Sequence[_Request]) -> None:
        episodes = [episode for request in batch for episode in request.episodes]
        try:
            scores = iter(checked_scores(self.scorer, episodes))
        except Exception as error:
            if len(batch) > 1:
                for request in batch:  # whoever is to blame, the others get their scores
                    self._answer([request])
                return
            LOG.exception("the scorer failed")
            batch[0].reply.set_result({"error": f"{type(error).__name__}: {error}"})
            return
        self.statistics.requests += len(batch)
        self.statistics.batches += 1
        self.statistics.programs += len(episodes)
        for request in batch:
            request.reply.set_result({"scores": [next(scores).tolist() for _ in request.episodes]})


def _episode(program: Mapping[str, Any]) -> Episode:
    """What a scorer reads of a program.

    Raises:
        KeyError, TypeError, ValueError: If the message does not hold it.
    """
    prompt, lines = program["prompt"], program["lines"]
    if not isinstance(prompt, str) or not isinstance(lines, list):
        raise TypeError("a program is a prompt and a list of lines")
    if any(not isinstance(line, str) or "\n" in line for line in lines):
        raise ValueError("a line is text without a newline")
    task = Task(task_id="served", prompt=prompt, entry_point=None, tests=())
    return Episode(task=task, lines=tuple(lines))


def _make_way(path: Path) -> None:
    """Remove a socket that nobody serves."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ValueError(f"a socket's path has at most {_LONGEST_PATH} bytes, got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} for the socket {path.name}")
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise ValueError(f"{path} exists and is no socket")
    try:
        connect(str(path), 0.0).close()
    except ConnectionRefusedError:
        path.unlink()
        return
    raise ValueError(f"{path} is served by another process")
