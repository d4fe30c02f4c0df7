"""The folder of one run: whose it is, what is finished in it, and who is working in it."""

import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codegym.errors import CodegymError
from codegym.storage import write_json

FORMAT = 1
CONFIG = "config.json"
LOCK = ".lock"


class RunFolderError(CodegymError):
    """A folder that cannot be used for this run; nothing in it was changed."""


class RunFolder:
    """A run's folder. A stage is finished when its marker `stages/NAME.json` exists."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; the lock goes with the process, even after kill -9.

        Raises:
            RunFolderError: If another process holds it.
        """
        with (self.path / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunFolderError(f"{self.path}: another process is running in this folder") from error
            yield

    def finished(self, stage: str) -> dict[str, Any] | None:
        """The marker of a finished stage, or None.

        Raises:
            RunFolderError: If the marker cannot be read.
        """
        marker = self._marker(stage)
        if not marker.exists():
            return None
        return _read_object(marker)

    def finish(self, stage: str, *, seconds: float, metrics: Mapping[str, Any]) -> None:
        """Mark a stage as finished, with what it took and what it measured."""
        write_json(
            self._marker(stage),
            {
                "stage": stage,
                "seconds": round(seconds, 2),
                "finished_at": int(time.time()),
                "metrics": metrics,
            },
        )
        self._attempt(stage).unlink(missing_ok=True)

    def spent(self, stage: str) -> float:
        """Seconds that interrupted attempts at a stage have spent up to their last finished unit of work."""
        path = self._attempt(stage)
        return float(_read_object(path)["seconds"]) if path.exists() else 0.0

    def record_spent(self, stage: str, seconds: float) -> None:
        """Remember the seconds spent on a stage that has not finished."""
        write_json(self._attempt(stage), {"seconds": round(seconds, 2)})

    def _attempt(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.attempt.json"

    def _marker(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.json"


def open_run(path: Path, config: Mapping[str, Any]) -> RunFolder:
    """Open `path` for a run of `config`, or create it.

    A run that failed before it wrote anything leaves its settings alone in the folder: they are replaced.

    Raises:
        RunFolderError: If the folder holds something else, is damaged, or belongs to a run with other
            settings; the message says which, and nothing is overwritten.
    """
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"{path} is a file; --out must name a folder")
    if not path.exists() or not any(entry.name != LOCK for entry in path.iterdir()):
        path.mkdir(parents=True, exist_ok=True)
        _write_config(path, config)
        return RunFolder(path)
    if not (path / CONFIG).exists():
        raise RunFolderError(f"{path} holds files but no {CONFIG}: not a run folder; choose another --out")
    stored = _read_object(path / CONFIG)
    if stored.get("format") != FORMAT or not isinstance(stored.get("config"), dict):
        raise RunFolderError(
            f"{path / CONFIG}: expected a run of format {FORMAT}, got format {stored.get('format')!r}; "
            "choose another --out"
        )
    changes = _differences(stored["config"], json.loads(json.dumps(config)))
    if changes and not _take_over(path, config):
        raise RunFolderError(
            f"{path} belongs to a run with other settings; choose another --out, or repeat its settings:\n  "
            + "\n  ".join(changes)
        )
    return RunFolder(path)


def _take_over(path: Path, config: Mapping[str, Any]) -> bool:
    """Write `config` over other settings, unless their run has written something; whether it was done."""
    if _has_files(path):
        return False
    with RunFolder(path).locked():  # its process may be about to write
        if _has_files(path):
            return False
        _write_config(path, config)
    return True


def _has_files(path: Path) -> bool:
    """Whether a run has written anything there."""
    return any(entry.name not in (CONFIG, LOCK) for entry in path.iterdir())


def _write_config(path: Path, config: Mapping[str, Any]) -> None:
    write_json(path / CONFIG, {"format": FORMAT, "config": config})


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise RunFolderError(f"{path} is damaged: expected a JSON object, got {type(value).__name__}")
    return value


def _differences(stored: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for key in sorted({*stored, *asked}):
        old, new = stored.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: the folder has {old!r}, asked for {new!r}")
    return lines
