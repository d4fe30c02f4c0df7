"""Sampling with vLLM, whose engine runs in processes of its own and holds a copy of the weights."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agents.samplers.contract import (
    OnFinished,
    check_request,
    end_tokens,
    make_completion,
    weights_identity,
)
from agents.samplers.weights import export_weights, weights_checksum
from codegym.errors import MissingExtraError
from prm.completion import Completion

_MEMORY = Path("/dev/shm")
LEAST_TEMPERATURE = 0.01
"""vLLM raises lower temperatures to this one without being asked."""


class VLLMSampler:
    """Draws completions with vLLM; implements `prm.completion.Completer`.

    The engine starts with the first call of `sample`, in processes of its own: a script that samples needs
    `if __name__ == "__main__":`. Every call looks whether the model's weights changed since the last one and
    brings the new ones to the engine, through memory where there is some. A row's draws depend on the seed
    and on its place among the prompts.

    Args:
        model: A causal LM of an architecture that vLLM has; sampled from as it is at the time of the call,
            LoRA adapter included.
        tokenizer: Decodes the tokens; its end-of-text token and the model's own end a completion.
        batch_size: Rows decoded together, at most.
        max_model_len: Tokens of the longest prompt and completion together; None for what the model allows.
        dtype: Of the engine's weights, "float32" or "bfloat16"; None for the model's own.
        kv_cache_bytes: Memory for keys and values; None for what `gpu_memory_utilization` leaves.
        gpu_memory_utilization: Share of the device's memory that the engine takes, unless `kv_cache_bytes`
            says how much. Means a CPU's memory too.
        tensor_parallel_size: Devices that share each layer.
        enforce_eager: Do not compile the model, which slows down the start; None for not on a CPU.
        engine: Further arguments of `vllm.LLM`.

    Raises:
        ValueError: If a number is out of range.
        MissingExtraError: If vLLM is not installed.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int = 256,
        max_model_len: int | None = None,
        dtype: str | None = None,
        kv_cache_bytes: int | None = 2 * 2**30,
        gpu_memory_utilization: float = 0.5,
        tensor_parallel_size: int = 1,
        enforce_eager: bool | None = None,
        engine: Mapping[str, Any] | None = None,
    ) -> None:
        counts = {
            "batch_size": batch_size,
            "max_model_len": max_model_len,
            "kv_cache_bytes": kv_cache_bytes,
            "tensor_parallel_size": tensor_parallel_size,
        }
        for name, value in counts.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 < gpu_memory_utilization <= 1:
            raise ValueError(f"gpu_memory_utilization must be in (0, 1], got {gpu_memory_utilization}")
        if find_spec("vllm") is None:
            raise MissingExtraError(
                "sampler 'vllm' needs the package 'vllm', which is not installed: pip install 'codegym[vllm]'"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.end_tokens = end_tokens(model, tokenizer)
        self.engine_options: dict[str, Any] = {
            "max_num_seqs": batch_size,
            "max_model_len": max_model_len,
            "dtype": dtype or str(model.dtype).removeprefix("torch."),
            "kv_cache_memory_bytes": kv_cache_bytes,
            "gpu_memory_utilization": gpu_memory_utilization,
            "tensor_parallel_size": tensor_parallel_size,
            "enforce_eager": enforce_eager,
            **(engine or {}),
        }
        self._engine: Any = None
        self._checksum: tuple[int, ...] = ()
        self._ends: list[Any] = []

    @property
    def identity(self) -> str:
        """The model's class and a digest of its weights."""
        return weights_identity(self.model)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        n: int = 1,
        max_new_tokens: int,
        temperature: float = 1.0,
        seed: int = 0,
        on_finished: OnFinished | None = None,
    ) -> list[list[Completion]]:
        """Draw `n` completions of each prompt, as `prm.completion.Completer` says.

        `on_finished` is told of every completion, in the engine's step that ends it.

        Raises:
            ValueError: If a prompt is empty, or a number is out of range or more than the engine takes.
        """
        check_request(prompts, n, max_new_tokens, temperature)
        if 0 < temperature < LEAST_TEMPERATURE:
            raise ValueError(f"temperature must be 0 or at least {LEAST_TEMPERATURE}, got {temperature}")
        if not prompts:
            return []
        engine = self._synchronized_engine()
        limit = engine.model_config.max_model_len - max_new_tokens
        for position, prompt in enumerate(prompts):
            if len(prompt) > limit:
                raise ValueError(
                    f"prompt {position} has {len(prompt)} tokens: with max_new_tokens={max_new_tokens} more "
                    f"than max_model_len={engine.model_config.max_model_len}"
                )
        rows = [{"prompt_token_ids": list(prompt)} for prompt in prompts for _ in range(n)]
        generator = torch.Generator().manual_seed(seed)
        seeds = torch.randint(2**62, (len(rows),), generator=generator).tolist()
        settings = import_module("vllm").SamplingParams
        asked = [
            settings(
                temperature=temperature,
                max_tokens=max_new_tokens,
                stop_token_ids=self.end_tokens,
                seed=row_seed,
                logprobs=0,  # of the drawn token alone
                flat_logprobs=True,
                detokenize=False,
            )
            for row_seed in seeds
        ]
        done: dict[int, Completion] = {}
        for ended in run_engine(engine, rows, asked):
            written = [(row, self._completion(output.outputs[0])) for row, output in ended]
            done.update(written)
            if on_finished is not None:
                on_finished(written)
        return [[done[i * n + k] for k in range(n)] for i in range(len(prompts))]

    def close(self) -> None:
        """End the engine's processes; the next `sample` starts new ones. Closing twice is fine."""
        while self._ends:
            self._ends.pop()()
        self._engine = None

    def _completion(self, output: Any) -> Completion:
        if output.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM gave up on a completion: finish_reason={output.finish_reason!r}")
        return make_completion(
            self.tokenizer, list(output.token_ids), output.logprobs.logprobs, output.finish_reason == "stop"
        )

    def _synchronized_engine(self) -> Any:
        """The engine, with the weights that the model has now."""
        checksum = weights_checksum(self.model)
        if self._engine is None:
            self._start()
        elif checksum != self._checksum:
            with _exported(self.model, self._folder):
                self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(self._folder)})
        self._checksum = checksum
        return self._engine

    def _start(self) -> None:
        size = sum(weight.numel() * weight.element_size() for weight in self.model.state_dict().values())
        self._folder = Path(tempfile.mkdtemp(prefix="vllm-weights-", dir=_memory_for(2 * size)))
        self._ends.append(weakref.finalize(self, shutil.rmtree, self._folder))
        self.tokenizer.save_pretrained(self._folder)
        with _exported(self.model, self._folder), _environment_kept():
            options = dict(self.engine_options)
            if options["enforce_eager"] is None:
                options["enforce_eager"] = import_module("vllm.platforms").current_platform.is_cpu()
            self._engine = import_module("vllm").LLM(
                str(self._folder),
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                # On a CPU, vLLM 0.32 goes on using the old weights in an output layer that is tied.
                hf_overrides={"tie_word_embeddings": False},
                **options,
            )
        self._ends.append(weakref.finalize(self, self._engine.llm_engine.engine_core.shutdown))


def run_engine(
    engine: Any, rows: list[dict[str, list[int]]], settings: list[Any]
) -> Iterator[list[tuple[int, Any]]]:
    """Let the engine complete all rows; yields the rows that a step has ended, each with its output.

    Rounding depends on which rows share a batch and on what was computed before. So nothing is left in the
    cache of an earlier call, and the engine waits until it has all rows: same call, same bits.
    """
    engine.reset_prefix_cache()
    engine.sleep(level=0)
    names = engine.enqueue(rows, settings, use_tqdm=False)
    engine.wake_up(tags=["scheduling"])
    # The engine makes a request's number unique by a suffix, which its output does not bear.
    row_of = {name.partition("-")[0]: row for row, name in enumerate(names)}
    while engine.llm_engine.has_unfinished_requests():
        outputs = engine.llm_engine.step()
        # those of a call that was interrupted may be among them
        ended = [(row_of[o.request_id], o) for o in outputs if o.finished and o.request_id in row_of]
        if ended:
            yield ended


@contextmanager
def _exported(model: Any, folder: Path) -> Iterator[None]:
    """The model's weights in that folder, as long as the block runs: they may take up memory."""
    try:
        export_weights(model, folder)
        yield
    finally:
        for path in folder.glob("*.safetensors"):
            path.unlink()


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Undo changes of the environment: vLLM's LD_PRELOAD is not for other processes that we start."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _memory_for(n_bytes: int) -> Path | None:
    """A folder in memory with that much room; None if there is none."""
    return _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > n_bytes else None
