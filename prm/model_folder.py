"""A reward model's folder: a plain Hugging Face backbone and tokenizer, the head, and `prm.json`."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from codegym.storage import write_json

CONFIG_FILE = "prm.json"
HEAD_FILE = "head.safetensors"
FORMAT_VERSION = 1


def write_folder(folder: Path, backbone: Any, tokenizer: Any, head: nn.Module, head_name: str) -> None:
    """Write all parts.

    `prm.json` is removed first and written last, so a folder cut short by a kill does not look like a model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    draft = folder / ".draft"
    shutil.rmtree(draft, ignore_errors=True)
    backbone.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    save_file({name: value.contiguous() for name, value in head.state_dict().items()}, draft / HEAD_FILE)
    for file in _files_below(draft):
        target = folder / file.relative_to(draft)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
    shutil.rmtree(draft)
    write_json(folder / CONFIG_FILE, {"version": FORMAT_VERSION, "head": head_name})


def read_head_name(folder: Path) -> str:
    """The head that a reward model's folder names.

    Raises:
        ValueError: If the folder does not hold a reward model; says what is missing.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is not a folder; expected one written by ProcessRewardModel.save_pretrained"
        )
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is not a process reward model: it has no {CONFIG_FILE}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG_FILE} cannot be read: {error}") from error
    if not isinstance(config, dict) or config.get("version") != FORMAT_VERSION:
        raise ValueError(f"{folder / CONFIG_FILE}: expected version {FORMAT_VERSION}, got {config!r:.200}")
    return str(config.get("head"))


def read_head(folder: Path, head: nn.Module, device: Any) -> None:
    """Load the head's weights.

    Raises:
        ValueError: If the file is missing, damaged or of another shape.
    """
    try:
        head.load_state_dict(load_file(folder / HEAD_FILE, device=str(device)))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{folder / HEAD_FILE} is not the head of this reward model: {error}") from error


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
