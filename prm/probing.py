"""Completing prefixes of programs and judging what comes out: what every labeler by completion does."""

import hashlib
import json
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegym.judge import Judge
from codegym.task import Task
from prm.alignment import Decoder, line_end_tokens, newlines_per_token
from prm.completion import Completer
from prm.program import SampledProgram
from prm.segmentation import labels_of_lines, step_ends
from prm.store import CompletionStore, CompletionTree, Counts, Draw, Probe, Turn


class Steps:
    """A program cut into steps, and the prefixes that end with them.

    A prefix is the policy's exact tokens up to the one that covers the newline of the step's last line, which
    may already hold the indentation of the next line.

    Raises:
        ValueError: If the program's tokens and lines do not belong together.
    """

    def __init__(
        self, program: SampledProgram, task: Task, newlines: NDArray[np.int64], *, step: str = "line"
    ) -> None:
        self.program, self.task = program, task
        self.ends = step_ends(program.lines, step)
        self.written = program.token_ids[:-1] if program.finished else program.token_ids
        self.tokens = line_end_tokens(self.written, len(program.lines), newlines)

    def __len__(self) -> int:
        return len(self.ends)

    def n_lines(self, n_steps: int) -> int:
        """Lines of the prefix of that many steps."""
        return self.ends[n_steps - 1] + 1 if n_steps else 0

    def prefix(self, n_steps: int) -> Probe:
        """The prefix of that many steps, not yet completed."""
        end = int(self.tokens[self.n_lines(n_steps) - 1]) + 1 if n_steps else 0
        return Probe(
            task_id=self.task.task_id,
            prompt_ids=self.program.prompt_ids,
            prefix_ids=self.written[:end],
        )

    def labels(self, values: Sequence[float]) -> tuple[float, ...]:
        """One label per line from one value per step."""
        return labels_of_lines(self.program.lines, self.ends, values)


class Prober:
    """Draws completions of many prefixes in one batch and judges them in one batch.

    Args:
        completer: Completes the prefixes.
        judge: Judges the completed programs.
        tokenizer: Their common tokenizer.
        max_new_tokens: Most tokens of a whole completed program.
        temperature: Of the completions.
        seed: Of the draws.
        store: Keeps every completion on disk, and is asked before anything is drawn.
        reuse: Whether to keep a tree of the completions, for `known`.
    """

    def __init__(
        self,
        completer: Completer,
        judge: Judge,
        tokenizer: Decoder,
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        store: CompletionStore | None = None,
        reuse: bool = False,
    ) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        self.completer, self.judge, self.tokenizer = completer, judge, tokenizer
        self.max_new_tokens, self.temperature, self.seed = max_new_tokens, temperature, seed
        self.store = store
        self.tree = CompletionTree() if reuse else None
        self.identity = ""
        self._batch, self._turn, self._first = "", 0, ""

    @cached_property
    def newlines(self) -> NDArray[np.int64]:
        """Newlines of every token."""
        return newlines_per_token(self.tokenizer)

    def begin(self, programs: Sequence[SampledProgram], settings: Sequence[Any]) -> None:
        """Start a batch; what it will draw depends on the programs and on the labeler's `settings` alone."""
        self.identity = self.completer.identity
        self._first = programs[0].program_id if programs else ""
        self._turn = 0
        mine = [self.identity, self.max_new_tokens, self.temperature, self.seed, self.tree is not None]
        names = [(program.program_id, program.token_ids) for program in programs]
        self._batch = hashlib.sha256(json.dumps([mine, list(settings), names]).encode()).hexdigest()[:16]
        if self.store is not None and self.tree is not None:
            self._catch_up(self.store)

    def known(self, probe: Probe) -> Counts | None:
        """What completions drawn so far say about a prefix; None without reuse."""
        return None if self.tree is None else self.tree.count(self.identity, probe)

    def draw(self, probes: Sequence[Probe], tasks: Sequence[Task], n: int) -> Turn:
        """Complete every prefix `n` times.

        Args:
            probes: The prefixes.
            tasks: Their tasks.
            n: Completions of each.

        Returns:
            The same prefixes with their completions, and what that took.
        """
        place = self.store.find(self._batch, self._turn) if self.store is not None else None
        if self.store is not None and place is not None:
            turn = self.store[place]
        else:
            turn = self._sample(probes, tasks, n)
            if self.store is not None:
                self.store.append(turn)
        if self.tree is not None:
            self.tree.add(turn)
        self._turn += 1
        return turn

    def _catch_up(self, store: CompletionStore) -> None:
        """Have the tree hold the turns before the batch's first: what an uninterrupted run had here."""
        first = store.find(self._batch, 0)
        end = len(store) if first is None else first
        if self.tree is None or self.tree.n_turns > end:
            self.tree = CompletionTree()
        for place in range(self.tree.n_turns, end):
            self.tree.add(store[place])

    def _sample(self, probes: Sequence[Probe], tasks: Sequence[Task], n: int) -> Turn:
        began = time.perf_counter()
        drawn = self.completer.sample(
            [(*probe.prompt_ids, *probe.prefix_ids) for probe in probes],
            n=n,
            max_new_tokens=max(1, self.max_new_tokens - min(len(probe.prefix_ids) for probe in probes)),
            temperature=self.temperature,
            seed=_seed(self.seed, self._first, self._turn),
        )
        texts = [
            self._text(probe.prefix_ids, completion.token_ids, finished=completion.finished)
            for probe, completions in zip(probes, drawn, strict=True)
            for completion in completions
        ]
        owners = [task for task in tasks for _ in range(n)]
        judgements = iter(
            self.judge.judge([(task, task.assemble(text)) for task, text in zip(owners, texts, strict=True)])
        )
        judged = tuple(
            Probe(
                task_id=probe.task_id,
                prompt_ids=probe.prompt_ids,
                prefix_ids=probe.prefix_ids,
                draws=tuple(
                    Draw(token_ids=c.token_ids, finished=c.finished, passed=next(judgements).passed)
                    for c in completions
                ),
            )
            for probe, completions in zip(probes, drawn, strict=True)
        )
        return Turn(
            batch=self._batch,
            number=self._turn,
            completer=self.identity,
            seconds=round(time.perf_counter() - began, 6),
            probes=judged,
        )

    def _text(self, prefix: Sequence[int], completion: Sequence[int], *, finished: bool) -> str:
        # decoded together: a character may straddle the cut
        written = completion[:-1] if finished else completion
        return self.tokenizer.decode(
            [*prefix, *written], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


def _seed(seed: int, program_id: str, turn: int) -> int:
    """A seed of its own for each batch of draws, the same in every process."""
    digest = hashlib.sha256(f"{seed}/{program_id}/{turn}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big")
