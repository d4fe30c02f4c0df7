"""Every completion that labelling draws, judged and kept on disk: data, a cache, and a tree to search in."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from codegym.storage import append_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """One completion of a prefix.

    Attributes:
        token_ids: The completer's tokens, end-of-text included if `finished`.
        finished: Whether the completer ended the program itself.
        passed: Whether prefix and completion together pass the task's tests.
    """

    token_ids: tuple[int, ...]
    finished: bool
    passed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A prefix and its completions.

    Attributes:
        task_id: The task that the prefix answers.
        prompt_ids: The prompt's tokens.
        prefix_ids: The tokens written after it.
        draws: Its completions.
    """

    task_id: str
    prompt_ids: tuple[int, ...]
    prefix_ids: tuple[int, ...]
    draws: tuple[Draw, ...] = ()

    @property
    def n_passed(self) -> int:
        """How many completions pass."""
        return sum(draw.passed for draw in self.draws)

    @property
    def n_tokens(self) -> int:
        """Tokens drawn."""
        return sum(len(draw.token_ids) for draw in self.draws)


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """Prefixes that were completed in one batch.

    Attributes:
        batch: Names what was labelled, by whom and how: the turns of one call of a labeler share it.
        number: Counts the turns of a batch.
        completer: Who completed.
        seconds: Wall-clock time of sampling and judging.
        probes: The prefixes with their completions.
    """

    batch: str
    number: int
    completer: str
    seconds: float
    probes: tuple[Probe, ...]


class CompletionStore:
    """Turns in a JSON Lines file, in the order in which they were drawn.

    A labeler that is killed and started again finds here the turns that it has drawn already, so it loses
    at most one. One process at a time may write.

    Args:
        path: The file; made with the first turn.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[tuple[str, int], int] = {}
        self._offsets: list[int] = []
        for offset, row in _rows(path):
            self._note(row, offset)

    def __len__(self) -> int:
        """Turns kept."""
        return len(self._offsets)

    def __getitem__(self, place: int) -> Turn:
        """The turn at that place of the file."""
        with self.path.open("rb") as file:
            file.seek(self._offsets[place])
            return _turn(json.loads(file.readline()))

    def __iter__(self) -> Iterator[Turn]:
        return (_turn(row) for _, row in _rows(self.path))

    def find(self, batch: str, number: int) -> int | None:
        """Place of a turn, or None."""
        return self._places.get((batch, number))

    def append(self, turn: Turn) -> None:
        """Write a turn to disk."""
        row = asdict(turn)
        append_rows(self.path, [row])
        text = len(json.dumps(row)) + 1
        self._note(row, self.path.stat().st_size - text)

    def _note(self, row: Mapping[str, Any], offset: int) -> None:
        self._places[row["batch"], row["number"]] = len(self._offsets)
        self._offsets.append(offset)


class Counts(NamedTuple):
    """Completions that pass, and all."""

    passed: int
    tried: int


class CompletionTree:
    """Completions found by what they pass through, so that those of one prefix serve its extensions too.

    A completion of a prefix that goes on exactly as a longer prefix does is a fair draw from that longer
    prefix: same completer, same task, same temperature. OmegaPRM (arXiv:2406.06592) keeps the rollouts of
    its search in such a tree.
    """

    def __init__(self) -> None:
        self.n_turns = 0
        self._written: dict[tuple[str, str, bytes], list[tuple[int, bytes, bool]]] = defaultdict(list)

    def add(self, turn: Turn) -> None:
        """Put a turn's completions into the tree."""
        self.n_turns += 1
        for probe in turn.probes:
            prefix = _packed(probe.prefix_ids)
            branch = self._written[turn.completer, probe.task_id, _packed(probe.prompt_ids)]
            branch.extend(
                (len(prefix), prefix + _packed(draw.token_ids), draw.passed) for draw in probe.draws
            )

    def count(self, completer: str, probe: Probe) -> Counts:
        """Completions of the probe's prefix, and of its own prefixes as far as they pass through it."""
        prefix = _packed(probe.prefix_ids)
        branch = self._written.get((completer, probe.task_id, _packed(probe.prompt_ids)), ())
        passed = [
            won for drawn_at, text, won in branch if drawn_at <= len(prefix) and text.startswith(prefix)
        ]
        return Counts(sum(passed), len(passed))


def _packed(token_ids: Sequence[int]) -> bytes:
    # four bytes a token: a common start of tokens is a common start of bytes
    return np.asarray(token_ids, dtype=np.int32).tobytes()


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows and where they start; a last line torn by a kill is no row.

    Raises:
        ValueError: If a line is not a turn; names file and line.
    """
    if not path.exists():
        return
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
                missing = {"batch", "number", "completer", "seconds", "probes"} - set(row)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: not a turn of completions ({error})") from error
            if missing:
                raise ValueError(f"{path}, line {number}: a turn of completions has no {sorted(missing)}")
            yield offset, row
            offset += len(line)


def _turn(row: Mapping[str, Any]) -> Turn:
    probes = tuple(
        Probe(
            task_id=probe["task_id"],
            prompt_ids=tuple(probe["prompt_ids"]),
            prefix_ids=tuple(probe["prefix_ids"]),
            draws=tuple(
                Draw(token_ids=tuple(draw["token_ids"]), finished=draw["finished"], passed=draw["passed"])
                for draw in probe["draws"]
            ),
        )
        for probe in row["probes"]
    )
    return Turn(
        batch=row["batch"],
        number=row["number"],
        completer=row["completer"],
        seconds=row["seconds"],
        probes=probes,
    )
