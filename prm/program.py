"""Programs as the PRM package stores them: sampled, judged, labelled."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from codegym.episode import Episode
from codegym.task import Task
from codegym.verdict import Judgement, Verdict
from prm.alignment import split_lines


@dataclass(frozen=True, kw_only=True)
class SampledProgram:
    """A program that a policy wrote, with its exact tokens and its verdict.

    Attributes:
        program_id: Unique: "<policy>/<task_id>/<sample>".
        task_id: The task it answers.
        policy: Which model wrote it, for example "baseline/step-26".
        prompt_ids: The prompt's tokens.
        token_ids: The policy's tokens, end-of-text included if `finished`; never re-tokenised.
        completion: The tokens decoded, without end-of-text.
        finished: Whether the policy ended the program itself.
        verdict: The judge's category.
        results: One flag per test.
    """

    program_id: str
    task_id: str
    policy: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    completion: str
    finished: bool
    verdict: Verdict
    results: tuple[bool, ...]

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return self.verdict is Verdict.PASSED

    @property
    def written_ids(self) -> tuple[int, ...]:
        """The tokens that spell the program: all but the one that ended it, whatever that one says."""
        return self.token_ids[:-1] if self.finished else self.token_ids

    @property
    def lines(self) -> list[str]:
        """The program's lines, as an episode has them."""
        return split_lines(self.completion)

    def episode(self, task: Task) -> Episode:
        """The finished episode that writes this program."""
        return Episode(
            task=task,
            lines=tuple(self.lines),
            terminated=self.finished,
            truncated=not self.finished,
            judgement=Judgement(verdict=self.verdict, results=self.results),
        )

    def to_row(self) -> dict[str, Any]:
        """A JSON-able row."""
        return {**asdict(self), "verdict": str(self.verdict)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "SampledProgram":
        """Read a row back.

        Raises:
            ValueError: If a field is missing, unknown or of the wrong kind; names it.
        """
        unknown = set(row) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(f"program {row.get('program_id')!r}: unknown fields {sorted(unknown)}")
        verdict = checked_field(row, "verdict", str)
        if verdict not in set(Verdict):
            choices = ", ".join(Verdict)
            raise ValueError(
                f"program {row.get('program_id')!r}: verdict must be one of {choices}, got {verdict!r:.80}"
            )
        return cls(
            program_id=checked_field(row, "program_id", str),
            task_id=checked_field(row, "task_id", str),
            policy=checked_field(row, "policy", str),
            prompt_ids=tuple(checked_items(row, "prompt_ids", int)),
            token_ids=tuple(checked_items(row, "token_ids", int)),
            completion=checked_field(row, "completion", str),
            finished=checked_field(row, "finished", bool),
            verdict=Verdict(verdict),
            results=tuple(checked_items(row, "results", bool)),
        )


@dataclass(frozen=True, kw_only=True)
class LabeledProgram:
    """A sampled program with one label per line.

    Attributes:
        program: The program.
        labels: One per line in [-1, 1]: +1 the program is right up to and including the line, -1 it is not,
            0 neutral (comment and blank lines).
        source: Which labeler made them: "binary_search", "reference", ...
        completer: Who completed the probed prefixes; "" where nothing was completed.
        probes: Passes and tries per probed prefix length in lines: {m: (k, K)}.
        cost: Completions, tokens and verdicts spent on this program.
        seconds: Wall-clock time spent on it, its share of what was done in batches; labels that differ only
            in it are equal.
    """

    program: SampledProgram
    labels: tuple[float, ...]
    source: str
    completer: str = ""
    probes: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    seconds: float = field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.program.lines):
            raise ValueError(
                f"program {self.program.program_id!r} has {len(self.program.lines)} lines "
                f"but {len(self.labels)} labels"
            )
        if not all(-1.0 <= label <= 1.0 for label in self.labels):
            raise ValueError(
                f"program {self.program.program_id!r}: labels must be in [-1, 1], got {self.labels}"
            )

    def to_row(self) -> dict[str, Any]:
        """A JSON-able row."""
        return {
            "program": self.program.to_row(),
            "labels": list(self.labels),
            "source": self.source,
            "completer": self.completer,
            "probes": {str(m): list(counts) for m, counts in self.probes.items()},
            "cost": dict(self.cost),
            "seconds": self.seconds,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "LabeledProgram":
        """Read a row back; float labels survive.

        Raises:
            ValueError: If a field is missing or of the wrong kind; names it.
        """
        row = {"completer": "", "probes": {}, "cost": {}, "seconds": 0.0, **row}
        probes = {
            m: checked_items({m: counts}, m, int) for m, counts in checked_field(row, "probes", dict).items()
        }
        return cls(
            program=SampledProgram.from_row(checked_field(row, "program", dict)),
            labels=tuple(float(label) for label in checked_items(row, "labels", float, int)),
            source=checked_field(row, "source", str),
            completer=checked_field(row, "completer", str),
            probes={int(m): (k, n) for m, (k, n) in probes.items()},
            cost=checked_field(row, "cost", dict),
            seconds=float(checked_field(row, "seconds", float, int)),
        )


def checked_field(row: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """A field of a row.

    Raises:
        ValueError: If it is missing or of none of these kinds; names it, and the program where the row does.
    """
    owner = f"program {row['program_id']!r}: " if "program_id" in row else ""
    if name not in row:
        raise ValueError(f"{owner}field {name!r} is missing")
    if type(row[name]) not in kinds:
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{owner}field {name!r} must be {expected}, got {row[name]!r:.80}")
    return row[name]


def checked_items(row: Mapping[str, Any], name: str, *kinds: type) -> list[Any]:
    """A list field of a row.

    Raises:
        ValueError: If it is missing, no list, or an item is of none of these kinds; names field and value.
    """
    items = list(checked_field(row, name, list, tuple))
    for item in items:
        if type(item) not in kinds:
            checked_field({**row, name: item}, name, *kinds)
    return items
