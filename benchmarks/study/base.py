"""Studies that go on from the ablation: what they take over from its cells."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.config import PipelineConfig
from agents.run_folder import CONFIG, RunFolderError
from benchmarks.study.cells import START, StudyOptions

MADE_BY = {"baseline": "baseline", "collect": "programs.jsonl", "label": "labels.jsonl", "prm": "prm"}
"""What the stages before an arm make, in order."""


@dataclass(frozen=True, kw_only=True)
class ContinuingOptions(StudyOptions):
    """What a study is told that goes on from the ablation's cells."""

    base: Path = Path("runs/benchmarks/ablation")  # the ablation's folder

    def __post_init__(self) -> None:
        super().__post_init__()
        theirs = start_of(self.base)
        if self.start is not None and theirs is not None and theirs != self.start.resolve():
            raise ValueError(
                f"the ablation in {self.base} starts from {theirs}, not from {self.start}: give another "
                "--base, or no --start"
            )

    @property
    def start_folder(self) -> Path:
        """The ablation's starting policy, if it has one."""
        return start_of(self.base) or super().start_folder


def start_of(base: Path) -> Path | None:
    """The policy that an ablation's cells start from; None if there is no such ablation."""
    places = (base / START / "sft", *sorted(base.glob("*/*/sft")))
    return next((place.resolve() for place in places if place.is_dir()), None)


def finished_links(run: Path, config: PipelineConfig, last: str) -> list[dict[str, Path]]:
    """What another run has finished up to a stage: each stage's files and mark, by name, in order.

    Args:
        run: Its folder; may be missing.
        config: The settings that it must have; those that it does not know are newer than the run.
        last: The last stage that may be taken over, one of `MADE_BY`.

    Raises:
        RunFolderError: If it has other settings.
    """
    links: list[dict[str, Path]] = []
    for stage, name in MADE_BY.items():
        mark = run / "stages" / f"{stage}.json"
        if not mark.exists():
            break
        links.append({name: run / name, f"stages/{stage}.json": mark})
        if stage == last:
            break
    if links:
        stored = json.loads((run / CONFIG).read_text())["config"]
        if changes := list(_changes(stored, json.loads(json.dumps(asdict(config))))):
            raise RunFolderError(
                f"{run} cannot be gone on from, since it has other settings: {', '.join(changes)}"
            )
    return links


def _changes(stored: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in stored.items():
        other = asked.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from _changes(value, other, f"{prefix}{name}.")
        elif value != other:
            yield f"{prefix}{name} {value!r} instead of {other!r}"
