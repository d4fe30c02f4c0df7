"""What a test needs: scripted stand-ins for judge and scorer, and checks that any judge or scheme must meet.

The checks raise AssertionError, so they read as tests do; run them over your own judge or reward scheme.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode
from codegym.errors import SandboxError, TaskError
from codegym.judge import Job, Judge
from codegym.judge.conformance import DOUBLE as DOUBLE
from codegym.judge.conformance import check_judge as check_judge
from codegym.judge.conformance import require as _require
from codegym.rewards import BoundedScheme, RewardScheme, is_ordered
from codegym.rewards.settlement import settle
from codegym.task import StdioTest, Task
from codegym.tasks.prompts import is_python
from codegym.verdict import Judgement, Verdict


class ScriptedJudge:
    """Judges by a function; nothing is executed.

    Args:
        decide: Returns the judgement of a task and a whole module.
    """

    def __init__(self, decide: Callable[[Task, str], Judgement]) -> None:
        self._decide = decide
        self.batches: list[list[Job]] = []
        self.closed = False

    def judge(self, jobs: Sequence[Job]) -> list[Judgement]:
        """Return what `decide` says, in order; `batches` keeps every call's jobs."""
        if self.closed:
            raise SandboxError("this judge is closed")
        for task, _ in jobs:
            if not task.tests:
                raise TaskError(f"task {task.task_id!r} has no tests")
        self.batches.append(list(jobs))
        return [self._decide(task, source) for task, source in jobs]

    def close(self) -> None:
        """Remember being closed."""
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ScriptedScorer:
    """Scores lines by a function.

    Args:
        score: Returns one score per line of an episode.
    """

    def __init__(self, score: Callable[[Episode], Sequence[float]]) -> None:
        self._score = score

    def score(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """One array of scores per episode. [n_lines] each."""
        return [np.asarray(self._score(episode), dtype=np.float64) for episode in episodes]


def judgement(task: Task, n_passed: int, verdict: Verdict | None = None) -> Judgement:
    """The judgement of a program that passes the first `n_passed` tests of a task."""
    total = len(task.tests)
    if verdict is None:
        verdict = Verdict.PASSED if n_passed == total else Verdict.WRONG_ANSWER
    return Judgement(verdict=verdict, results=tuple(index < n_passed for index in range(total)))


def check_reward_scheme(scheme: RewardScheme) -> None:
    """Check a reward scheme against every short program, verdict and kind of end.

    One finite float64 per action; the same in any batch and on every call; streaming rewards finite; no
    failing program above a passing one, unless the scheme's `bounds` say that it may be; returns within these
    bounds; and parts that sum to the return.

    Raises:
        AssertionError: If one of these does not hold; the message names the episode.
    """
    episodes = list(_episodes())
    batch = scheme.credit(episodes)
    _require(len(batch) == len(episodes), f"{len(episodes)} episodes gave {len(batch)} credits")
    for episode, credit in zip(episodes, batch, strict=True):
        _check_credit(scheme, episode, credit)
    for lines in dict.fromkeys(episode.lines for episode in episodes):
        _check_streaming(scheme, lines)
    passing = [credit.sum() for e, credit in zip(episodes, batch, strict=True) if _passed(e)]
    failing = [credit.sum() for e, credit in zip(episodes, batch, strict=True) if not _passed(e)]
    _require(
        max(failing) < min(passing) or not is_ordered(scheme),
        f"a failing program earns {max(failing):g}, a passing one only {min(passing):g}",
    )
    _check_returns(scheme, episodes, batch)
    _require(scheme.credit([]) == [] and len(scheme.step([])) == 0, "an empty batch must give nothing")


def check_task_source(tasks: Sequence[Task], judge: Judge | None = None, *, n_references: int = 8) -> None:
    """Check that the tasks of a source can be trained on.

    Ids are unique; there are tests, and a name for those that call one; the prompt is a text that a program
    can begin with; metadata is JSON. With a judge, an evenly spread sample of the references passes all
    tests, and an empty completion of the same tasks does not.

    Args:
        tasks: What the source loads.
        judge: Judges the sample.
        n_references: Size of the sample.

    Raises:
        AssertionError: If one of these does not hold; the message names the task.
    """
    _require(len(tasks) > 0, "there are no tasks")
    name, count = Counter(task.task_id for task in tasks).most_common(1)[0]
    _require(count == 1, f"{count} tasks have the id {name!r}")
    for task in tasks:
        _check_task(task)
    if judge is None:
        return
    known = [task for task in tasks if task.reference is not None]
    sample = known[:: max(1, -(-len(known) // n_references))]
    right = judge.judge([(task, task.assemble(task.reference or "")) for task in sample])
    empty = judge.judge([(task, task.assemble("")) for task in sample])
    for task, reference, nothing in zip(sample, right, empty, strict=True):
        told = f"{reference.verdict} ({reference.message})"
        _require(reference.passed, f"the reference of {task.task_id!r} gave {told}")
        _require(not nothing.passed, f"an empty completion passes {task.task_id!r}")


def _check_task(task: Task) -> None:
    told = f"task {task.task_id!r}"
    _require(bool(task.tests), f"{told} has no tests")
    calls = any(not isinstance(test, StdioTest) for test in task.tests)
    _require(bool(task.entry_point) or not calls, f"{told} has tests that call, but no entry point")
    _require(bool(task.prompt.strip()), f"{told} has an empty prompt")
    try:
        task.prompt.encode()
        metadata = json.loads(json.dumps(dict(task.metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{told}: prompt or metadata is not plain text or JSON ({error})") from error
    _require(metadata == task.metadata, f"{told}: metadata does not survive JSON: {task.metadata!r}")
    if task.prompt_is_code:
        _require(task.prompt.endswith("\n"), f"{told}: a prompt that is code must end with a newline")
    # A prompt may stop in the middle of a function, whose body is then missing.
    begun = [task.assemble(body) for body in ("", "    pass\n")] if task.reference is None else []
    parses = any(map(is_python, begun or [task.assemble(task.reference or "")]))
    _require(parses, f"{told}: prompt and completion are not Python")


def _check_credit(scheme: RewardScheme, episode: Episode, credit: NDArray[np.float64]) -> None:
    told = f"{episode.lines} ({episode.judgement and episode.judgement.verdict})"
    if not isinstance(credit, np.ndarray) or credit.dtype != np.float64:
        raise AssertionError(f"credit must be a float64 array, got {credit!r} for {told}")
    if credit.shape != (episode.n_actions,):
        raise AssertionError(
            f"expected one reward for each of {episode.n_actions} actions, got {credit} for {told}"
        )
    if not np.isfinite(credit).all():
        raise AssertionError(f"credit must be finite, got {credit} for {told}")
    if len(episode.lines) < 3:
        alone = scheme.credit([episode])[0]
        if not np.allclose(alone, credit):
            raise AssertionError(f"in a batch {credit}, alone {alone} for {told}")


def _check_streaming(scheme: RewardScheme, lines: tuple[str, ...]) -> None:
    prefixes = [Episode(task=DOUBLE, lines=lines[:n]) for n in range(1, len(lines) + 1)]
    rewards = scheme.step(prefixes)
    if rewards.shape != (len(prefixes),) or not np.isfinite(rewards).all():
        raise AssertionError(f"streaming needs {len(prefixes)} finite rewards, got {rewards} for {lines}")


def _check_returns(
    scheme: RewardScheme, episodes: Sequence[Episode], batch: Sequence[NDArray[np.float64]]
) -> None:
    """Compare returns with their parts, and with the scheme's bounds if it has any."""
    returns = np.array([credit.sum() for credit in batch])
    settlements = settle(scheme, episodes, name="rest")
    parts = np.array([sum(settled.parts.values()) for settled in settlements])
    totals = np.array([settled.total for settled in settlements])
    wrong = np.flatnonzero(~(np.isclose(totals, returns) & np.isclose(parts, returns)))
    if len(wrong):
        index = int(wrong[0])
        raise AssertionError(
            f"the parts {settlements[index].parts} do not sum to the return {returns[index]:g} "
            f"for {episodes[index].lines}"
        )
    if isinstance(scheme, BoundedScheme):
        for passed in (True, False):
            low, high = scheme.bounds(passed=passed)
            for total in returns[[_passed(episode) == passed for episode in episodes]]:
                _require(
                    low - 1e-9 <= total <= high + 1e-9,
                    f"a return of {total:g} is outside the bounds [{low:g}, {high:g}], {passed=}",
                )


def _episodes() -> Iterator[Episode]:
    """Finished episodes: every program of up to 3 of these lines, any verdict, ended or cut."""
    lines = ("    y = x + x", "    # why", "", "    return y", "    " + "y = y + 0; " * 20)
    judgements = (
        *(judgement(DOUBLE, n_passed) for n_passed in (0, 2, 3)),
        *(judgement(DOUBLE, 2, verdict) for verdict in (Verdict.TIME_LIMIT, Verdict.TAMPERED)),
        replace(judgement(DOUBLE, 0, Verdict.SYNTAX_ERROR), error_line=3),
        replace(judgement(DOUBLE, 1, Verdict.RUNTIME_ERROR), error_line=1),
    )
    for length in range(4):
        for program, result, ended in product(product(lines, repeat=length), judgements, (True, False)):
            if program or ended:
                yield Episode(
                    task=DOUBLE, lines=program, terminated=ended, truncated=not ended, judgement=result
                )


def _passed(episode: Episode) -> bool:
    return episode.judgement is not None and episode.judgement.passed
