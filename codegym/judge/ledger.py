"""What every judge does before and after running programs: equal ones once, and the counts."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from codegym.judge import Job
from codegym.judge.jobs import PackedJob, Packer
from codegym.verdict import Judgement, Verdict

_CACHED_JUDGEMENTS = 20_000
# Depend on the machine's load, if only a little: worth a second look next time.
_NOT_CACHED = frozenset({Verdict.TIME_LIMIT, Verdict.MEMORY_LIMIT})


@dataclass(frozen=True, kw_only=True)
class JudgeStatistics:
    """What a judge has done so far.

    Attributes:
        judged: Programs that ran.
        duplicates: Programs that were answered by an equal one of the same batch.
        cache_hits: Programs that were answered by an earlier batch.
        restarts: Workers that were replaced because they died or went silent.
        verdicts: How often each verdict was given, duplicates and cache hits included.
    """

    judged: int = 0
    duplicates: int = 0
    cache_hits: int = 0
    restarts: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)


class Ledger:
    """Judges distinct programs only, remembers their judgements, and counts. Thread-safe."""

    def __init__(self, *, cache: bool) -> None:
        """Start empty.

        Args:
            cache: Whether to remember judgements beyond a batch.
        """
        self.packer = Packer()
        self._cache: OrderedDict[bytes, Judgement] | None = OrderedDict() if cache else None
        self._counts: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def statistics(self) -> JudgeStatistics:
        """What was done so far."""
        with self._lock:
            return JudgeStatistics(**self._counts, verdicts=dict(self._verdicts))

    def count_restart(self) -> None:
        """Note that a worker was replaced."""
        with self._lock:
            self._counts["restarts"] += 1

    def judge(
        self, jobs: Sequence[Job], run: Callable[[list[PackedJob]], Mapping[bytes, Judgement]]
    ) -> list[Judgement]:
        """Return one judgement per job, in order.

        Args:
            jobs: What to judge.
            run: Judges distinct programs that are not remembered; returns judgements by the jobs' digests.

        Raises:
            TaskError: If a task has no tests or tests that cannot be run; before `run` is called.
        """
        packed = [self.packer.pack(task, source) for task, source in jobs]
        found = self._recall(packed)
        hits = sum(job.digest in found for job in packed)
        fresh = list({job.digest: job for job in packed if job.digest not in found}.values())
        if fresh:
            judged = run(fresh)
            self._remember(judged)
            found.update(judged)
        judgements = [found[job.digest] for job in packed]
        with self._lock:
            self._counts.update(
                judged=len(fresh), cache_hits=hits, duplicates=len(packed) - hits - len(fresh)
            )
            self._verdicts.update(judgement.verdict.value for judgement in judgements)
        return judgements

    def _recall(self, jobs: list[PackedJob]) -> dict[bytes, Judgement]:
        found: dict[bytes, Judgement] = {}
        with self._lock:
            for job in jobs:
                if self._cache is not None and job.digest in self._cache:
                    self._cache.move_to_end(job.digest)
                    found[job.digest] = self._cache[job.digest]
        return found

    def _remember(self, judgements: Mapping[bytes, Judgement]) -> None:
        with self._lock:
            if self._cache is None:
                return
            for digest, judgement in judgements.items():
                if judgement.verdict not in _NOT_CACHED:
                    self._cache[digest] = judgement
            while len(self._cache) > _CACHED_JUDGEMENTS:
                self._cache.popitem(last=False)
