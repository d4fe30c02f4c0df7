"""Loading and saving a policy, and the reward model beside it: precision, adapters, activations."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from agents.shared_weights import ADAPTER_CONFIG, adapter_names, copy_backbone, with_adapter
from prm.backbone import without_dropout
from prm.lora import LoRAConfig, add_adapter, load_adapter, merge_adapter, save_adapter
from prm.model import ProcessRewardModel
from prm.model_folder import read_head, read_head_name
from prm.trainable import recompute_activations
from prm.training import ADAPTER_FOLDER


def load_policy(
    source: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    base: str | Path | PreTrainedModel | None = None,
    lora: LoRAConfig | None = None,
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> tuple[Any, Any]:
    """The policy in `eval` mode without dropout, and its tokenizer.

    With dropout the log-probabilities of the update would not be those of the sampler.

    Args:
        source: A folder or hub name of a causal LM, such a model, which is changed in place, or the folder of
            an adapter, which goes on training.
        tokenizer: The policy's; read from the folder if None.
        base: The model under the adapter of a folder; read from where the adapter says if None.
        lora: Trains a fresh adapter and freezes the model; one that the policy brings is kept as it is.
        dtype: Of weights that are read; an adapter's are float32 in any case.
        attention: One of transformers' attention implementations; its own choice if None.
        device: Where the model goes.
        seed: Of a fresh adapter.

    Raises:
        ValueError: If a model comes without its tokenizer, or an adapter's base is not known.
    """
    model: Any = source
    if isinstance(source, str | Path):
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(source)
        model = _read(source, base, dtype, attention)
    if tokenizer is None:
        raise ValueError("a policy given as a model needs its tokenizer: pass tokenizer=")
    model = model.to(device)
    if lora is not None and not adapter_names(model):
        add_adapter(model, lora, seed=seed)
    return without_dropout(model).eval(), tokenizer


@contextmanager
def loading(option: str, source: str) -> Iterator[None]:
    """Within the block, a model that cannot be read is an error that says which option named it.

    Args:
        option: Of the command line.
        source: Its value: a folder or a hub name.

    Raises:
        ValueError: If the model, or what belongs to it, cannot be had.
    """
    try:
        yield
    except OSError as error:  # how transformers says that a file is missing
        raise ValueError(f"{option} {source} could not be loaded: {' '.join(str(error).split())}") from error


def check_folder(option: str, source: str) -> None:
    """Nothing, if `source` is a hub name or the folder of a whole causal LM.

    Raises:
        FileNotFoundError: If it is another path; the message names the option.
    """
    is_path = source.startswith((".", "/", "~")) or Path(source).exists()
    if is_path and not (Path(source) / "config.json").is_file():
        raise FileNotFoundError(f"{option} must name the folder of a causal LM, got {source}")


def save_policy(policy: Any, tokenizer: Any, folder: Path, *, merge: bool = False) -> None:
    """Write a policy for `AutoModelForCausalLM.from_pretrained` and its tokenizer.

    Args:
        policy: With an adapter, the adapter alone is written, and the name of the model under it.
        tokenizer: The policy's.
        folder: Where to.
        merge: Write a whole model with the adapter's change in its weights.
    """
    names = adapter_names(policy)
    if names and merge:
        # added in float32 and rounded once, to the type of the frozen weights
        merge_adapter(policy, name=names[0]).to(policy.dtype).save_pretrained(folder)
    elif names:
        save_adapter(policy, folder, name=names[0])
    else:
        policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def checkpoint_gradients(model: Any) -> None:
    """Keep each layer's input alone for the backward pass, which computes the rest again.

    The model is left in `train` mode, without which transformers stores everything all the same; it must
    have no dropout.

    Raises:
        ValueError: If the model cannot.
    """
    recompute_activations(model)
    model.train()


def load_prm(folder: str | Path, policy: Any) -> ProcessRewardModel:
    """A reward model on the policy's device; on the policy's own frozen weights where it was trained on them.

    Args:
        folder: What `prm.train_prm` wrote. With `keep_adapter=True`, and a backbone that is the model under
            the policy's adapter, there is an adapter of the reward model to put on these weights; else it is
            read as a whole, in float32.
        policy: From `load_policy`.

    Raises:
        ValueError: If the folder does not hold a reward model.
    """
    folder = Path(folder)
    adapter = folder / ADAPTER_FOLDER
    names = adapter_names(policy)
    if not names or _base_of(adapter) != policy.peft_config[names[0]].base_model_name_or_path:
        return ProcessRewardModel.from_pretrained(folder, device=policy.device)
    head, tokenizer = read_head_name(folder), AutoTokenizer.from_pretrained(folder)
    model = ProcessRewardModel(with_adapter(copy_backbone(policy), adapter), tokenizer, head=head)
    read_head(folder, model.head, policy.device)
    return model.eval()


def _read(source: str | Path, base: Any, dtype: torch.dtype, attention: str | None) -> Any:
    options: dict[str, Any] = {"dtype": dtype}
    if attention is not None:
        options["attn_implementation"] = attention
    if not (Path(source) / ADAPTER_CONFIG).is_file():
        return AutoModelForCausalLM.from_pretrained(source, **options)
    base = base or _base_of(Path(source))
    if not base:
        raise ValueError(f"the adapter in {source} does not say which model it belongs to: pass base=")
    if isinstance(base, str | Path):
        base = AutoModelForCausalLM.from_pretrained(base, **options)
    return load_adapter(base, Path(source))


def _base_of(folder: Path) -> str | None:
    """What the adapter in a folder, if there is one, calls the model that it was trained on."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    about: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return about.get("base_model_name_or_path")
