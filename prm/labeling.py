"""Line labels from completions: is a right program still within reach after this line?"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from codegym.episode import is_neutral
from codegym.errors import TaskError
from codegym.judge import Judge
from codegym.storage import append_rows, read_rows
from codegym.task import Task
from prm.alignment import Decoder, line_end_tokens, newlines_per_token
from prm.completion import Completer, Completion
from prm.program import LabeledProgram, SampledProgram


class Labeler(Protocol):
    """Labels the lines of sampled programs."""

    @property
    def source(self) -> str:
        """Names the method, for `LabeledProgram.source`."""
        ...

    def label(self, programs: Sequence[SampledProgram], tasks: Mapping[str, Task]) -> list[LabeledProgram]:
        """Label every program, in order; `tasks` holds their tasks by id."""
        ...


class BinarySearchLabeler:
    """Finds the last line from which the tests can still be passed (PSGPO, arXiv:2410.17621, Algorithm 1).

    A prefix counts as recoverable if any of `k` completions of it passes all tests. If every prefix of a
    recoverable prefix is recoverable too, a binary search over the program's T lines needs no more than
    ceil(log2(T + 1)) probes. Lines up to the last recoverable one are +1, those after it -1; comment and
    blank lines are 0 and never probed. The empty prefix counts as recoverable; a program that passes is +1
    throughout.

    A prefix is the policy's exact tokens up to the one that covers the line's newline, which may already hold
    the indentation of the next line. All searches advance together: one batch sampled, one batch judged.

    Args:
        completer: Completes the prefixes; usually the policy that wrote the programs.
        judge: Judges the completed programs.
        tokenizer: The completer's and the programs' common tokenizer.
        k: Completions of a prefix before it counts as lost.
        draws_at_once: Completions drawn before looking; a probe ends at its first pass. Divides `k`.
        max_new_tokens: Most tokens of a whole completed program.
        temperature: Of the completions.
        seed: Labels depend on it and on the programs that are labelled in one call.
    """

    source = "binary_search"

    def __init__(
        self,
        completer: Completer,
        judge: Judge,
        tokenizer: Decoder,
        *,
        k: int = 8,
        draws_at_once: int = 4,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not (k >= 1 and 1 <= draws_at_once <= k and k % draws_at_once == 0):
            raise ValueError(f"draws_at_once must divide k, got {draws_at_once=} and {k=}")
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        self.completer = completer
        self.judge = judge
        self.tokenizer = tokenizer
        self.k = k
        self.draws_at_once = draws_at_once
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.seed = seed

    def label(self, programs: Sequence[SampledProgram], tasks: Mapping[str, Task]) -> list[LabeledProgram]:
        """Label every program.

        Raises:
            TaskError: If a program's task is missing.
            ValueError: If a program's tokens and lines do not belong together.
        """
        searches = [_Search(program, task_of(program, tasks), self._newlines) for program in programs]
        turn = 0
        while active := [search for search in searches if not search.done]:
            seed = _seed(self.seed, programs[0].program_id, turn)
            for search, (n_passed, n_tokens) in zip(active, self._probe(active, seed), strict=True):
                search.record(n_passed, self.draws_at_once, n_tokens, k=self.k)
            turn += 1
        completer = self.completer.identity if turn else ""
        return [search.labeled(self.source, completer) for search in searches]

    @cached_property
    def _newlines(self) -> NDArray[np.int64]:
        return newlines_per_token(self.tokenizer)

    def _probe(self, active: Sequence["_Search"], seed: int) -> Iterator[tuple[int, int]]:
        """Complete every search's current prefix; yields passes and tokens drawn."""
        prefixes = [search.prefix for search in active]
        drawn = self.completer.sample(
            [(*search.program.prompt_ids, *prefix) for search, prefix in zip(active, prefixes, strict=True)],
            n=self.draws_at_once,
            max_new_tokens=max(1, self.max_new_tokens - min(map(len, prefixes))),
            temperature=self.temperature,
            seed=seed,
        )
        judgements = iter(
            self.judge.judge(
                [
                    (search.task, search.task.assemble(self._text(prefix, completion)))
                    for search, prefix, completions in zip(active, prefixes, drawn, strict=True)
                    for completion in completions
                ]
            )
        )
        for completions in drawn:
            passed = [next(judgements).passed for _ in completions]
            yield sum(passed), sum(len(completion.token_ids) for completion in completions)

    def _text(self, prefix: tuple[int, ...], completion: Completion) -> str:
        # decoded together: a character may straddle the cut
        written = completion.token_ids[:-1] if completion.finished else completion.token_ids
        return self.tokenizer.decode(
            [*prefix, *written], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


class _Search:
    """The binary search over one program's lines that are neither blank nor comments.

    Invariant: the first `low` of them are recoverable, those after the first `high` are not.
    """

    def __init__(self, program: SampledProgram, task: Task, newlines: NDArray[np.int64]) -> None:
        self.program = program
        self.task = task
        self.scored = [index for index, line in enumerate(program.lines) if not is_neutral(line)]
        self.written = program.token_ids[:-1] if program.finished else program.token_ids
        self.ends = line_end_tokens(self.written, len(program.lines), newlines)
        self.high = len(self.scored)
        self.low = self.high if program.passed else 0
        self.probes: dict[int, tuple[int, int]] = {}
        self.n_completions = 0
        self.n_tokens = 0

    @property
    def done(self) -> bool:
        return self.low == self.high

    @property
    def middle(self) -> int:
        return (self.low + self.high + 1) // 2

    @property
    def n_lines(self) -> int:
        """Lines of the prefix being probed."""
        return self.scored[self.middle - 1] + 1

    @property
    def prefix(self) -> tuple[int, ...]:
        """Tokens of the prefix being probed."""
        return self.written[: int(self.ends[self.n_lines - 1]) + 1]

    def record(self, n_passed: int, n_drawn: int, n_tokens: int, *, k: int) -> None:
        """Note one batch of completions, and move on if it decides the probe."""
        before = self.probes.get(self.n_lines, (0, 0))
        passed, tried = before[0] + n_passed, before[1] + n_drawn
        self.probes[self.n_lines] = (passed, tried)
        self.n_completions += n_drawn
        self.n_tokens += n_tokens
        if passed:
            self.low = self.middle
        elif tried >= k:
            self.high = self.middle - 1

    def labeled(self, source: str, completer: str) -> LabeledProgram:
        labels = [0.0] * len(self.program.lines)
        for rank, index in enumerate(self.scored):
            labels[index] = 1.0 if rank < self.low else -1.0
        return LabeledProgram(
            program=self.program,
            labels=tuple(labels),
            source=source,
            completer=completer if self.probes else "",
            probes=self.probes,
            cost={
                "completions": self.n_completions,
                "tokens": self.n_tokens,
                "verdicts": self.n_completions,
            },
        )


def task_of(program: SampledProgram, tasks: Mapping[str, Task]) -> Task:
    """The task that a program answers.

    Raises:
        TaskError: If it is not among `tasks`.
    """
    if program.task_id not in tasks:
        raise TaskError(
            f"program {program.program_id!r} answers task {program.task_id!r}, which is not given"
        )
    return tasks[program.task_id]


def label_to_file(
    labeler: Labeler,
    programs: Sequence[SampledProgram],
    tasks: Mapping[str, Task],
    path: Path,
    *,
    chunk: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Append a row per program to `path`, a chunk at a time; programs that have a row already are skipped.

    Killed at any moment, the same call goes on with the first unfinished chunk, and the file ends up with the
    rows of an uninterrupted run: chunks are cut from the whole list, and one that is half on disk is labelled
    again as a whole, since a labeler's draws may depend on what it labels together.

    Args:
        labeler: Makes the labels.
        programs: What to label, in the same order every time.
        tasks: Their tasks by id.
        path: JSON Lines file of `LabeledProgram` rows.
        chunk: Programs labelled at once: the unit of work that a kill can lose.
        progress: Called with the programs done and their total, first with what was there already.

    Raises:
        ValueError: If two programs share an id, or the file has rows of other programs or another labeler.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    wanted = {program.program_id: program for program in programs}
    if len(wanted) != len(programs):
        raise ValueError(f"{len(programs)} programs have only {len(wanted)} different ids")
    done = set()
    for row in read_labels(path):
        if row.source != labeler.source or wanted.get(row.program.program_id) != row.program:
            raise ValueError(
                f"{path} holds labels by {row.source!r} of {row.program.program_id!r}, "
                "which are not of this job; move the file away to label anew"
            )
        done.add(row.program.program_id)
    report = progress or (lambda _done, _total: None)
    report(len(done), len(programs))
    for start in range(0, len(programs), chunk):
        batch = programs[start : start + chunk]
        if all(program.program_id in done for program in batch):
            continue
        labeled = labeler.label(batch, tasks)
        append_rows(path, (row.to_row() for row in labeled if row.program.program_id not in done))
        done.update(program.program_id for program in batch)
        report(len(done), len(programs))


def read_labels(path: Path) -> list[LabeledProgram]:
    """Labelled programs written so far, in order.

    Raises:
        ValueError: If a row is not a labelled program; names it.
    """
    return [LabeledProgram.from_row(row) for row in read_rows(path)]


def _seed(seed: int, program_id: str, turn: int) -> int:
    """A seed of its own for each batch of draws, the same in every process."""
    digest = hashlib.sha256(f"{seed}/{program_id}/{turn}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big")
