"""The Ray judge: every node of a cluster judges a share of each batch."""

import threading
import weakref
from collections import Counter, deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayError, RayTaskError

from codegym.errors import SandboxError
from codegym.judge import Job
from codegym.judge.cluster import CONNECTION, Fleet, Member
from codegym.judge.jobs import PackedJob
from codegym.judge.ledger import JudgeStatistics, Ledger
from codegym.judge.pool import check_options
from codegym.verdict import Judgement

# A call costs some milliseconds: it should carry many programs, but not so many that one node ends late.
_FEWEST_PER_CALL = 64
_MOST_PER_CALL = 512
_CALLS_PER_SHARE = 4
# One that runs and one that waits at the node.
_CALLS_IN_FLIGHT = 2
_ATTEMPTS = 2
_POLL_S = 0.5
_LAST_BATCH_S = 10.0


class RayJudge:
    """Judges programs on every node of a Ray cluster.

    Each node has one actor that owns a `LocalJudge`; nodes that join later are used, and what a lost node
    or actor was working on is judged again elsewhere. Actors start with the first batch, and end with
    `close`, with this process, or with the judge's own end. codegym must be importable on every node.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        workers: int | None = None,
        time_limit_s: float = 1.0,
        memory_limit_mb: int = 1024,
        output_limit_mb: int = 16,
        threads: bool = False,
        imports: Sequence[str] = (),
        min_tier: int | None = None,
        max_tier: int | None = None,
        cache: bool = True,
    ) -> None:
        """Connect to Ray, unless this process is connected.

        Args:
            address: The cluster; "local" for one of our own. By default the one that RAY_ADDRESS or this
                machine's Ray names, else one of our own, which ends with the judge.
            workers: Programs judged at a time on each node; by default the number of CPUs that the node
                offers to Ray. Nodes that offer none are left out.
            time_limit_s: CPU seconds per program, all its tests together.
            memory_limit_mb: Address space that a program may add to the bare interpreter's.
            output_limit_mb: Size of a program's output, or of any file it writes.
            threads: Whether programs may start threads.
            imports: Packages installed on every node that programs may import, such as "numpy".
            min_tier: Leave out nodes with less isolation; that one node is left is checked at once.
            max_tier: Use no more isolation than this; for tests and measurements.
            cache: Whether equal programs with equal tests are judged only once.

        Raises:
            ValueError: If an option is out of range, or this process is connected to another cluster.
            SandboxError: If there is no cluster at `address`, or none of its nodes offers `min_tier`.
        """
        options: dict[str, Any] = {
            "workers": workers,
            "time_limit_s": time_limit_s,
            "memory_limit_mb": memory_limit_mb,
            "output_limit_mb": output_limit_mb,
            "min_tier": min_tier,
            "max_tier": max_tier,
        }
        check_options(**options)
        self._ledger = Ledger(cache=cache)
        options |= {"threads": threads, "imports": tuple(imports)}
        self._fleet = Fleet(options, self._ledger.count_restart)
        self._batches = 0
        self._idle = threading.Condition()
        ours = CONNECTION.open(address)
        self._finalizer = weakref.finalize(self, _let_go, self._fleet, ours)
        if min_tier:
            try:
                self._fleet.wait_ready()
            except BaseException:
                self.close()
                raise

    @property
    def statistics(self) -> JudgeStatistics:
        """What this judge has done so far; restarts are lost actors."""
        return self._ledger.statistics

    def judge(self, jobs: Sequence[Job]) -> list[Judgement]:
        """Return one judgement per job, in order.

        Raises:
            TaskError: If a task has no tests or tests that cannot be run; nothing is sent.
            SandboxError: If a job failed twice for no fault of its own, or the judge is closed.
        """
        return self._ledger.judge(jobs, self._judge_packed)

    def _judge_packed(self, jobs: list[PackedJob]) -> dict[bytes, Judgement]:
        with self._idle:
            self._batches += 1
        try:
            batch = RayBatch(jobs, self._fleet)
            batch.run()
            return batch.done
        finally:
            with self._idle:
                self._batches -= 1
                self._idle.notify_all()

    def close(self) -> None:
        """End every actor; batches that other threads still judge fail with SandboxError."""
        self._fleet.disband()
        with self._idle:
            # A thread that speaks to Ray after the connection is gone would start a cluster of its own.
            self._idle.wait_for(lambda: self._batches == 0, timeout=_LAST_BATCH_S)
        self._finalizer()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Gymnasium copies an environment's arguments into its spec; a connection cannot be copied
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _let_go(fleet: Fleet, ours: bool) -> None:
    fleet.disband()
    if ours:
        CONNECTION.close()


class RayBatch:
    """Distinct jobs on their way through a fleet.

    Attributes:
        done: Judgements so far, by the jobs' digests: a job that is judged twice still counts once.
    """

    def __init__(self, jobs: Sequence[PackedJob], fleet: Fleet) -> None:
        self.done: dict[bytes, Judgement] = {}
        self._size = len(jobs)
        self._queue = deque(jobs)
        # Jobs that failed, and the nodes where that happened: these jobs go elsewhere if they can.
        self._again: deque[PackedJob] = deque()
        self._struck: set[str] = set()
        self._fleet = fleet
        self._calls: dict[Any, tuple[Member, list[PackedJob]]] = {}
        self._failures: Counter[bytes] = Counter()

    def run(self) -> None:
        """Judge every job.

        Raises:
            SandboxError: If a job failed twice for no fault of its own, or no node is left.
        """
        try:
            while self._queue or self._again or self._calls:
                self._hand_out(self._fleet.ready())
                self._collect()
        finally:
            # After an error or Ctrl-C; what runs already runs on, but nobody reads its answer.
            for call in self._calls if ray.is_initialized() else ():
                ray.cancel(call)

    def _hand_out(self, members: list[Member]) -> None:
        """Give every member something to do before any gets something to wait for."""
        total = sum(member.workers for member in members)
        steady = [member for member in members if member.node not in self._struck] or members
        for depth in range(_CALLS_IN_FLIGHT):
            for member in members:
                queue = self._again if self._again and member in steady else self._queue
                in_hand = sum(holder is member for holder, _ in self._calls.values())
                if queue and in_hand <= depth:
                    size = call_size(self._size, member.workers / total)
                    jobs = [queue.popleft() for _ in range(min(size, len(queue)))]
                    self._calls[member.actor.judge.remote(jobs)] = (member, jobs)

    def _collect(self) -> None:
        waiting = [*self._calls, *self._fleet.starting()]
        if not waiting:
            return
        # Wakes up now and then to see new nodes, and whether the judge was closed.
        for call in ray.wait(waiting, num_returns=1, timeout=_POLL_S)[0]:
            if call in self._calls:
                self._take(call)

    def _take(self, call: Any) -> None:
        member, jobs = self._calls.pop(call)
        try:
            self.done.update(ray.get(call))
        except RayTaskError as error:
            # The actor lives: its sandbox failed on a program, twice.
            self._judge_again(member, jobs, error.cause or error)
        except RayError as error:
            self._fleet.dismiss(member, error)
            self._judge_again(member, jobs, error)

    def _judge_again(self, member: Member, jobs: list[PackedJob], error: Exception) -> None:
        self._failures.update(job.digest for job in jobs)
        failed = max(self._failures[job.digest] for job in jobs)
        if failed >= _ATTEMPTS:
            raise SandboxError(f"the same programs failed on Ray {failed} times: {error}") from error
        self._struck.add(member.node)
        self._again.extend(jobs)


def call_size(jobs: int, share: float) -> int:
    """How many programs a call carries.

    Args:
        jobs: Programs in the whole batch.
        share: The node's share of all workers, in (0, 1].

    Returns:
        A quarter of the node's share in 64 to 512 programs; less if the share is smaller.
    """
    fair = max(1, round(jobs * share))
    return min(fair, max(_FEWEST_PER_CALL, fair // _CALLS_PER_SHARE), _MOST_PER_CALL)
