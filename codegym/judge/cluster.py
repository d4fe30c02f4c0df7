"""A Ray cluster as a place to judge: our connection to it, and one actor with a local judge on every node."""

import logging
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from codegym.errors import SandboxError
from codegym.judge.jobs import PackedJob
from codegym.judge.pool import LocalJudge
from codegym.verdict import Judgement

_log = logging.getLogger(__name__)

_STARTS = 2
# Calls that an actor works on at a time, those of all the driver's threads together; a thread costs nothing.
_CALLS_AT_A_TIME = 16
_REACH_S = 5.0
# Programs and judgements are small: no reason to claim a third of the machine's memory.
_OBJECT_STORE_BYTES = 128 * 2**20


class Connection:
    """This process's connection to Ray, if it is ours: opened by the first judge, closed with the last."""

    def __init__(self) -> None:
        self._users = 0
        self._lock = threading.RLock()

    def open(self, address: str | None) -> bool:
        """Connect unless this process is connected; return whether `close` must be called.

        Args:
            address: A cluster's address, "local" for a cluster of our own, or None: the cluster that
                RAY_ADDRESS or this machine's Ray names, else one of our own.

        Raises:
            ValueError: If this process is connected to another cluster.
            SandboxError: If there is no cluster at that address.
        """
        with self._lock:
            if not ray.is_initialized():
                _connect(address)
                self._users = 0
            elif address not in (None, "auto", here := ray.get_runtime_context().gcs_address):
                raise ValueError(f"address is {address!r}, but this process is connected to Ray at {here!r}")
            elif not self._users:
                return False
            self._users += 1
            return True

    def close(self) -> None:
        """Give up one judge's share."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and ray.is_initialized():
                ray.shutdown()


CONNECTION = Connection()


def _connect(address: str | None) -> None:
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "include_dashboard": False,
    }
    wanted = address or os.environ.get("RAY_ADDRESS") or "auto"
    if ":" in wanted and "://" not in wanted:
        _check_reachable(wanted)
    try:
        if wanted != "local":
            ray.init(address=wanted, **quiet)
            return
    except ConnectionError as error:
        if address or wanted != "auto":
            raise SandboxError(f"no Ray cluster at address {wanted!r}: {error}") from error
    ray.init(address="local", object_store_memory=_OBJECT_STORE_BYTES, **quiet)


def _check_reachable(address: str) -> None:
    """Raise SandboxError if nobody listens; Ray itself would try for minutes and then end the process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except (OSError, ValueError) as error:
        raise SandboxError(f"no Ray cluster at address {address!r}: {error}") from error


class NodePool:
    """What an actor holds: its node's local judge."""

    _judge: LocalJudge

    def start(self, options: dict[str, Any]) -> None:
        """Prepare the judge; apart from the constructor, so that its errors arrive as what they are."""
        # The driver remembers judgements for all nodes.
        self._judge = LocalJudge(cache=False, **options)

    def judge(self, jobs: Sequence[PackedJob]) -> dict[bytes, Judgement]:
        """Judge distinct jobs; judgements by the jobs' digests."""
        return self._judge.judge_packed(jobs)


@dataclass(kw_only=True, eq=False)
class Member:
    """A node's actor."""

    node: str
    actor: Any
    workers: int
    started: Any  # a reference that is there once the node's judge is prepared
    ready: bool = False


class Fleet:
    """One judging actor on every living node that has a CPU. Thread-safe."""

    def __init__(self, options: dict[str, Any], on_loss: Callable[[], None]) -> None:
        """Prepare; actors start when they are asked for.

        Args:
            options: Arguments of every node's `LocalJudge`; `workers` None means as many as its CPUs.
            on_loss: Called when an actor that could judge is gone.
        """
        self._options = options
        self._on_loss = on_loss
        self._members: dict[str, Member] = {}
        self._starts: Counter[str] = Counter()
        self._refused: dict[str, str] = {}
        self._closed = False
        self._lock = threading.RLock()

    def ready(self) -> list[Member]:
        """The members that can judge now; nodes that are new get an actor, which takes a moment.

        Raises:
            SandboxError: If the judge is closed, or no node is left that could ever judge.
        """
        with self._lock:
            # Without a connection, Ray would silently start a cluster of its own.
            if self._closed or not ray.is_initialized():
                raise SandboxError("this judge is closed")
            nodes = {node["NodeID"]: node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]}
            for member in list(self._members.values()):
                if member.node not in nodes:
                    self.dismiss(member, "its node is gone")
                elif not member.ready:
                    self._admit(member)
            for node, cpus in nodes.items():
                if cpus > 0 and node not in self._members and node not in self._refused:
                    self._hire(node, self._options["workers"] or max(1, int(cpus)))
            if not self._members:
                reasons = [reason for node, reason in self._refused.items() if node in nodes]
                raise SandboxError(
                    f"no Ray node can judge: {'; '.join(reasons) or 'none with a CPU is alive'}"
                )
            return [member for member in self._members.values() if member.ready]

    def starting(self) -> list[Any]:
        """References that are there once a member has started, or failed to."""
        with self._lock:
            return [member.started for member in self._members.values() if not member.ready]

    def wait_ready(self) -> None:
        """Wait for the first member.

        Raises:
            SandboxError: If no node can judge.
        """
        while not self.ready():
            ray.wait(self.starting(), num_returns=1, timeout=1.0)

    def dismiss(self, member: Member, reason: object) -> None:
        """End an actor that failed; if its node lives, it gets another."""
        with self._lock:
            if self._members.get(member.node) is not member:
                return
            _log.warning("lost the judge on Ray node %s: %s", member.node, reason)
            del self._members[member.node]
            ray.kill(member.actor)
            if member.ready:
                self._on_loss()

    def disband(self) -> None:
        """End every actor, for good."""
        with self._lock:
            self._closed = True
            if ray.is_initialized():
                for member in self._members.values():
                    ray.kill(member.actor)
            self._members = {}

    def _hire(self, node: str, workers: int) -> None:
        self._starts[node] += 1
        # No CPU is asked for: trainers reserve them all, and judging must fit in beside.
        actor = (
            ray.remote(NodePool)
            .options(
                num_cpus=0,
                max_concurrency=_CALLS_AT_A_TIME,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote()
        )
        started = actor.start.remote({**self._options, "workers": workers})
        self._members[node] = Member(node=node, actor=actor, workers=workers, started=started)

    def _admit(self, member: Member) -> None:
        """Mark a member that has started; let go of one that failed to."""
        if not ray.wait([member.started], timeout=0)[0]:
            return
        try:
            ray.get(member.started)
        except RayError as error:
            if isinstance(error, RayTaskError) or self._starts[member.node] >= _STARTS:
                self._refused[member.node] = f"node {member.node}: {getattr(error, 'cause', None) or error}"
            self.dismiss(member, error)
        else:
            member.ready = True
            self._starts[member.node] = 0
