"""Line labels from completing every prefix: the audit of binary search, and soft labels."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from codegym.judge import Judge
from codegym.table import check_name
from codegym.task import Task
from prm.alignment import Decoder
from prm.completion import Completer
from prm.labeling import task_of
from prm.probing import Prober, Steps
from prm.program import LabeledProgram, SampledProgram
from prm.store import CompletionStore, Counts, Probe


class FullScanLabeler:
    """Completes the prefix of every step `k` times; nothing is inferred from its neighbours.

    Every probed prefix counts with all its `k` completions. Comment and blank lines are 0 and never probed.
    Under `kind="hard"` a program that passes is +1 throughout without a probe, as in binary search; the other
    kinds probe it too. The prefix that ends with the last step is the whole program less its end, so it too
    is completed.

    Args:
        completer: Completes the prefixes.
        judge: Judges the completed programs.
        tokenizer: The completer's and the programs' common tokenizer.
        k: Completions of each prefix.
        kind: What a step's label is, an entry of `LABEL_KINDS`.
        max_new_tokens: Most tokens of a whole completed program.
        temperature: Of the completions.
        step: What a step is, an entry of `prm.segmentation.STEPS`.
        prefixes_at_once: Prefixes completed in one batch: what a kill can lose, given a store.
        store: Keeps every completion on disk; a labeler that was killed goes on from its last batch.
        seed: Labels depend on it and on the programs that are labelled in one call.
    """

    def __init__(
        self,
        completer: Completer,
        judge: Judge,
        tokenizer: Decoder,
        *,
        k: int = 8,
        kind: str = "hard",
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        step: str = "line",
        prefixes_at_once: int = 512,
        store: CompletionStore | None = None,
        seed: int = 0,
    ) -> None:
        check_name(kind, LABEL_KINDS, "kind of label")
        for name, value in (("k", k), ("prefixes_at_once", prefixes_at_once)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.prober = Prober(
            completer,
            judge,
            tokenizer,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            store=store,
        )
        self.k, self.kind, self.step, self.prefixes_at_once = k, kind, step, prefixes_at_once

    @property
    def source(self) -> str:
        """The method and, unless they are hard, the kind of its labels."""
        return "full_scan" if self.kind == "hard" else f"full_scan_{self.kind}"

    def label(self, programs: Sequence[SampledProgram], tasks: Mapping[str, Task]) -> list[LabeledProgram]:
        """Label every program.

        Raises:
            TaskError: If a program's task is missing.
            ValueError: If a program's tokens and lines do not belong together.
        """
        cut = [
            Steps(program, task_of(program, tasks), self.prober.newlines, step=self.step)
            for program in programs
        ]
        wanted = [(steps, n) for steps in cut for n in self._probed(steps)]
        if wanted:
            self.prober.begin(programs, [self.source, self.k, self.step, self.prefixes_at_once])
        answers = self._complete(wanted)
        return [self._labeled(steps, [next(answers) for _ in self._probed(steps)]) for steps in cut]

    def _probed(self, steps: Steps) -> range:
        """Steps of each prefix to complete; marginal labels need the empty one too."""
        if self.kind == "hard" and steps.program.passed:
            return range(0)
        return range(0 if self.kind == "marginal" and len(steps) else 1, len(steps) + 1)

    def _complete(self, wanted: Sequence[tuple[Steps, int]]) -> Iterator[tuple[Probe, float]]:
        """Each prefix with its completions and its share of the time."""
        for start in range(0, len(wanted), self.prefixes_at_once):
            batch = wanted[start : start + self.prefixes_at_once]
            turn = self.prober.draw(
                [steps.prefix(n) for steps, n in batch], [steps.task for steps, _ in batch], self.k
            )
            yield from ((probe, turn.seconds / len(batch)) for probe in turn.probes)

    def _labeled(self, steps: Steps, answers: Sequence[tuple[Probe, float]]) -> LabeledProgram:
        numbers = self._probed(steps)
        counts = [Counts(probe.n_passed, len(probe.draws)) for probe, _ in answers]
        values = LABEL_KINDS[self.kind](counts) if counts else [1.0] * len(steps)
        n_completions = sum(count.tried for count in counts)
        return LabeledProgram(
            program=steps.program,
            labels=steps.labels(values),
            source=self.source,
            completer=self.prober.identity if counts else "",
            probes={steps.n_lines(n): (c.passed, c.tried) for n, c in zip(numbers, counts, strict=True)},
            cost={
                "completions": n_completions,
                "tokens": sum(probe.n_tokens for probe, _ in answers),
                "verdicts": n_completions,
            },
            seconds=sum(seconds for _, seconds in answers),
        )


def _hard(counts: Sequence[Counts]) -> list[float]:
    return [1.0 if count.passed else -1.0 for count in counts]


def _soft(counts: Sequence[Counts]) -> list[float]:
    return [2 * count.passed / count.tried - 1 for count in counts]


def _marginal(counts: Sequence[Counts]) -> list[float]:
    rates = [count.passed / count.tried for count in counts]
    return [after - before for before, after in pairwise(rates)]


LABEL_KINDS: Mapping[str, Callable[[Sequence[Counts]], list[float]]] = {
    "hard": _hard,
    "soft": _soft,
    "marginal": _marginal,
}
"""From passes and tries to labels in [-1, 1].

hard: +1 if any completion passes, else -1. soft: 2 k/K - 1, the share that passes (k/K) on the scale of the
hard labels. marginal: what the step adds to that share, k_m/K - k_{m-1}/K.
"""
