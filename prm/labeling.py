"""Line labels from completions: is a right program still within reach after this line?"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from codegym.errors import TaskError
from codegym.judge import Judge
from codegym.storage import append_rows, read_rows
from codegym.task import Task
from prm.alignment import Decoder
from prm.completion import Completer
from prm.probing import Prober, Steps
from prm.program import LabeledProgram, SampledProgram
from prm.search import PrefixSearch
from prm.store import CompletionStore


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
    """Finds the last step from which the tests can still be passed (PSGPO, arXiv:2410.17621, Algorithm 1).

    A prefix counts as recoverable if any of `k` completions of it passes all tests. If every prefix of a
    recoverable prefix is recoverable too, a binary search over the program's T steps needs no more than
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
        k_per_step: More completions for each step of the program that the prefix leaves out, rounded up to
            whole draws: the more is left to write, the rarer a pass.
        max_new_tokens: Most tokens of a whole completed program.
        temperature: Of the completions.
        step: What a step is, an entry of `prm.segmentation.STEPS`.
        reuse: Count completions of a shorter prefix that pass through the probed one as its own, those of
            other programs for the task included, and draw only what is missing (OmegaPRM's tree,
            arXiv:2406.06592). Labels then depend on everything labelled before.
        store: Keeps every completion on disk; a labeler that was killed goes on from its last turn.
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
        k_per_step: float = 0.0,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        step: str = "line",
        reuse: bool = False,
        store: CompletionStore | None = None,
        seed: int = 0,
    ) -> None:
        if not (k >= 1 and 1 <= draws_at_once <= k and k % draws_at_once == 0):
            raise ValueError(f"draws_at_once must divide k, got {draws_at_once=} and {k=}")
        if not k_per_step >= 0:
            raise ValueError(f"k_per_step must be 0 or more, got {k_per_step}")
        self.prober = Prober(
            completer,
            judge,
            tokenizer,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            store=store,
            reuse=reuse,
        )
        self.k, self.draws_at_once, self.k_per_step, self.step = k, draws_at_once, k_per_step, step

    def label(self, programs: Sequence[SampledProgram], tasks: Mapping[str, Task]) -> list[LabeledProgram]:
        """Label every program.

        Raises:
            TaskError: If a program's task is missing.
            ValueError: If a program's tokens and lines do not belong together.
        """
        prober = self.prober
        searches = [
            PrefixSearch(Steps(program, task_of(program, tasks), prober.newlines, step=self.step))
            for program in programs
        ]
        if any(not search.done for search in searches):
            prober.begin(programs, [self.source, self.k, self.draws_at_once, self.k_per_step, self.step])
        while active := [search for search in searches if not self._settled(search)]:
            self._advance(active)
        return [search.labeled(self.source, prober.identity) for search in searches]

    def tries(self, n_left: int) -> int:
        """Completions after which a prefix that leaves out `n_left` steps counts as lost."""
        return self.k + self.draws_at_once * math.ceil(self.k_per_step * n_left / self.draws_at_once)

    def _advance(self, active: Sequence[PrefixSearch]) -> None:
        """Complete the prefixes that the searches stand at; one drawn for several searches is paid once."""
        owners: dict[object, PrefixSearch] = {}
        for number, search in enumerate(active):
            owners.setdefault(number if self.prober.tree is None else search.probe, search)
        payers = list(owners.values())
        turn = self.prober.draw(
            [search.probe for search in payers], [search.steps.task for search in payers], self.draws_at_once
        )
        for search, probe in zip(payers, turn.probes, strict=True):
            search.pay(probe, turn.seconds / len(payers))
            if self.prober.tree is None:
                passed, tried = search.counts
                self._record(search, passed + probe.n_passed, tried + len(probe.draws))

    def _settled(self, search: PrefixSearch) -> bool:
        """Move a search on as far as known completions take it; whether that is to its end."""
        while not search.done:
            known = self.prober.known(search.probe)
            if known is None or not self._record(search, *known):
                return False
        return True

    def _record(self, search: PrefixSearch, passed: int, tried: int) -> bool:
        return search.record(passed, tried, k=self.tries(len(search.steps) - search.middle))


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
        ValueError: If a row is not a labelled program; names file, row and field.
    """
    labels = []
    for number, row in enumerate(read_rows(path), start=1):
        try:
            labels.append(LabeledProgram.from_row(row))
        except ValueError as error:
            raise ValueError(f"{path}, row {number}: {error}") from error
    return labels
