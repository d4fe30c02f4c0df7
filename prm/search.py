"""The binary search over the steps of one program, apart from who answers its questions."""

from prm.probing import Steps
from prm.program import LabeledProgram
from prm.store import Probe


class PrefixSearch:
    """The binary search over one program's steps.

    Invariant: the first `low` of them are recoverable, those after the first `high` are not.
    """

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.high = len(steps)
        self.low = self.high if steps.program.passed else 0
        self.probes: dict[int, tuple[int, int]] = {}
        self.n_completions = self.n_tokens = 0
        self.seconds = 0.0

    @property
    def done(self) -> bool:
        """Whether the last recoverable step is found."""
        return self.low == self.high

    @property
    def middle(self) -> int:
        """Steps of the prefix being probed."""
        return (self.low + self.high + 1) // 2

    @property
    def probe(self) -> Probe:
        """The prefix being probed."""
        return self.steps.prefix(self.middle)

    @property
    def counts(self) -> tuple[int, int]:
        """Passes and tries of the prefix being probed."""
        return self.probes.get(self.steps.n_lines(self.middle), (0, 0))

    def pay(self, probe: Probe, seconds: float) -> None:
        """Note what a batch of completions cost."""
        self.n_completions += len(probe.draws)
        self.n_tokens += probe.n_tokens
        self.seconds += seconds

    def record(self, passed: int, tried: int, *, k: int) -> bool:
        """Note all completions of the probed prefix, and move on if they decide it; returns whether so."""
        if tried:
            self.probes[self.steps.n_lines(self.middle)] = (passed, tried)
        if passed:
            self.low = self.middle
        elif tried >= k:
            self.high = self.middle - 1
        return passed > 0 or tried >= k

    def labeled(self, source: str, completer: str) -> LabeledProgram:
        """The program with the labels found."""
        return LabeledProgram(
            program=self.steps.program,
            labels=self.steps.labels([1.0] * self.low + [-1.0] * (len(self.steps) - self.low)),
            source=source,
            completer=completer if self.probes else "",
            probes=self.probes,
            cost={
                "completions": self.n_completions,
                "tokens": self.n_tokens,
                "verdicts": self.n_completions,
            },
            seconds=self.seconds,
        )
