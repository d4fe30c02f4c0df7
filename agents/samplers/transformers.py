"""Sampling from any Hugging Face causal LM, in large batches."""

import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from agents.samplers.attention import attending_to, decoding_attention, is_decoding
from agents.samplers.cache import SharedPrefixCache, fill_gaps
from agents.samplers.contract import (
    OnFinished,
    check_request,
    end_tokens,
    make_completion,
    weights_identity,
)
from agents.samplers.drawing import draw
from prm.batching import plan_batches
from prm.completion import Completion

COMPACT_BELOW = 0.85
"""Share of unfinished rows below which finished ones are dropped from the batch."""
ROWS_PER_WORKER = 48
"""Fewer rows than this do not make a thread of their own worthwhile: each reads the model's weights."""
MAX_WORKERS = 4
"""More threads than this wait for Python's lock most of the time."""


class TransformersSampler:
    """Draws completions with a key-value cache of its own; implements `prm.completion.Completer`.

    Rows are sorted by prompt length and decoded in batches. Equal prompts are read and stored once, whatever
    `n`. Rows that ended are dropped from the batch as it goes. On a CPU a large batch is shared out among
    threads that decode independently of each other. A row's draws depend on the seed and on its place among
    the prompts, not on how rows were batched.

    Args:
        model: A causal LM; sampled from as it is at the time of the call.
        tokenizer: Decodes the tokens; its end-of-text token and the model's own end a completion.
        batch_size: Rows decoded together.
        prefill_tokens: Prompt tokens read together.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int = 256,
        prefill_tokens: int = 4096,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("prefill_tokens", prefill_tokens)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.prefill_tokens = prefill_tokens
        self.end_tokens = torch.tensor(end_tokens(model, tokenizer), device=model.device)
        self.accepts = set(inspect.signature(model.forward).parameters)

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

        `on_finished` is told of every completion, as soon as its row has ended.

        Raises:
            ValueError: If a prompt is empty or a number is out of range; names it.
        """
        check_request(prompts, n, max_new_tokens, temperature)
        rows = [tuple(prompt) for prompt in prompts for _ in range(n)]
        order = sorted(range(len(rows)), key=lambda row: (len(rows[row]), rows[row]))
        generator = torch.Generator().manual_seed(seed)
        uniforms = torch.rand((len(rows), max_new_tokens), generator=generator, dtype=torch.float64)
        completions: list[Completion | None] = [None] * len(rows)
        was_training = self.model.training
        self.model.eval()
        try:
            with decoding_attention(self.model):
                for first in range(0, len(order), self.batch_size):
                    chunk = order[first : first + self.batch_size]
                    drawn = self._decode_in_threads(rows, chunk, uniforms, temperature, on_finished)
                    for row, completion in drawn:
                        completions[row] = completion
        finally:
            self.model.train(was_training)
        done = [completion for completion in completions if completion is not None]
        return [done[i * n : (i + 1) * n] for i in range(len(prompts))]

    def _decode_in_threads(
        self,
        rows: list[tuple[int, ...]],
        chunk: list[int],
        uniforms: Tensor,
        temperature: float,
        on_finished: OnFinished | None,
    ) -> list[tuple[int, Completion]]:
        """Complete the rows `chunk`, and say which is which.

        Threads that decode a share of the rows each need not meet after every operation, as the threads of
        one operation must: on a busy machine that is most of the time.
        """

        def decode(share: list[int]) -> list[tuple[int, Completion]]:
            drawn: list[tuple[int, Completion]] = []

            def add(ended: list[tuple[int, Completion]]) -> None:
                drawn.extend((share[place], completion) for place, completion in ended)
                if on_finished is not None and ended:
                    on_finished(drawn[-len(ended) :])

            self._decode([rows[row] for row in share], uniforms[share], temperature, add)
            return drawn

        n_threads = torch.get_num_threads()
        n_workers = min(n_threads, len(chunk) // ROWS_PER_WORKER, MAX_WORKERS)
        if self.model.device.type != "cpu" or n_workers < 2:
            return decode(chunk)
        shares = _share_out(rows, chunk, n_workers)
        try:
            with ThreadPoolExecutor(
                n_workers, initializer=torch.set_num_threads, initargs=(n_threads // n_workers,)
            ) as pool:
                return [item for done in pool.map(decode, shares) for item in done]
        finally:
            torch.set_num_threads(n_threads)  # for threads that start later

    def _decode(
        self,
        prompts: list[tuple[int, ...]],
        uniforms: Tensor,
        temperature: float,
        add: Callable[[list[tuple[int, Completion]]], None],
    ) -> None:
        """Complete one batch of prompts, sorted by length, and hand out each row when it has ended.

        Args:
            prompts: Token ids.
            uniforms: What decides the draws. [rows, max_new_tokens]
            temperature: Divides the logits.
            add: Takes rows with their completions.
        """
        # Inference mode is faster, but a model whose code keeps tensors of it could not be trained with them.
        with torch.inference_mode() if is_decoding(self.model) else torch.no_grad():
            uniforms = uniforms.to(self.model.device)
            batch = _Batch(self, prompts, max_new_tokens=uniforms.shape[1])
            logits = batch.prefill(prompts)
            for step in range(uniforms.shape[1]):
                tokens, logprobs = draw(logits, uniforms[batch.row, step], temperature)
                add(batch.record(step, tokens, logprobs))
                if not batch.n_alive or step + 1 == uniforms.shape[1]:
                    break
                if batch.n_alive < COMPACT_BELOW * len(batch.row):
                    tokens = tokens[batch.compact()]
                logits = batch.forward(tokens, step)
            add(batch.cut())


class _Batch:
    """Rows being decoded together, and what has been drawn for them."""

    def __init__(
        self, sampler: TransformersSampler, prompts: list[tuple[int, ...]], max_new_tokens: int
    ) -> None:
        self.sampler, self.model = sampler, sampler.model
        device = self.model.device
        n_rows, self.columns = len(prompts), max(map(len, prompts))
        self.tokens = torch.zeros((n_rows, max_new_tokens), dtype=torch.long, device=device)
        self.logprobs = torch.zeros((n_rows, max_new_tokens), device=device)
        # From here on one entry per slot of the batch; slots are dropped, rows are not.
        self.row = torch.arange(n_rows, device=device)
        self.alive = torch.ones(n_rows, dtype=torch.bool, device=device)
        self.n_alive = n_rows
        self.prompt_lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        columns = torch.arange(self.columns + max_new_tokens, device=device)
        self.mask = columns >= (self.columns - self.prompt_lengths)[:, None]
        self.cache = (
            SharedPrefixCache(self.model.config, max_new_tokens)
            if is_decoding(self.model) and "position_ids" in sampler.accepts
            else DynamicCache(config=self.model.config)
        )

    def prefill(self, prompts: list[tuple[int, ...]]) -> Tensor:
        """Read the prompts, each distinct one once; return each row's next-token logits. [rows, V]."""
        distinct = list(dict.fromkeys(prompts))
        place = {prompt: i for i, prompt in enumerate(distinct)}
        sequence = torch.tensor([place[prompt] for prompt in prompts], device=self.model.device)
        if not isinstance(self.cache, SharedPrefixCache):
            logits = self._call(*self._pad(distinct))
            self.cache.batch_select_indices(sequence)
            return logits[sequence]
        parts = []
        for group in plan_batches([len(prompt) for prompt in distinct], self.sampler.prefill_tokens):
            first, last = group[0], group[-1]  # sorted by length already, so a group is a run of prompts
            ids, mask, positions = self._pad(distinct[first : last + 1])
            continued = sequence[(sequence >= first) & (sequence <= last)] - first
            self.cache.start_group(continued, mask)
            parts.append(self._call(ids, mask, positions)[continued])
        return torch.cat(parts)

    def _pad(self, prompts: list[tuple[int, ...]]) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, aligned on the right, mask and positions. [prompts, longest] each."""
        width = max(map(len, prompts))
        ids = torch.zeros((len(prompts), width), dtype=torch.long)
        mask = torch.zeros((len(prompts), width), dtype=torch.bool)
        for i, prompt in enumerate(prompts):
            ids[i, width - len(prompt) :] = torch.tensor(prompt)
            mask[i, width - len(prompt) :] = True
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        device = self.model.device
        return ids.to(device), mask.to(device), positions.to(device)

    def record(self, step: int, tokens: Tensor, logprobs: Tensor) -> list[tuple[int, Completion]]:
        """Note the tokens drawn at `step`, one per slot; return the rows that ended with them."""
        self.tokens[self.row, step] = tokens
        self.logprobs[self.row, step] = logprobs
        ended = self.alive & torch.isin(tokens, self.sampler.end_tokens)
        self.alive &= ~ended
        before, self.n_alive = self.n_alive, int(self.alive.sum())
        return self._completions(self.row[ended], step + 1, True) if self.n_alive < before else []

    def cut(self) -> list[tuple[int, Completion]]:
        """The rows that have not ended."""
        return self._completions(self.row[self.alive], self.tokens.shape[1], False)

    def compact(self) -> Tensor:
        """Drop the slots that ended; return which slots stay, in their new order. [n_alive]."""
        if isinstance(self.cache, SharedPrefixCache):
            index = self.cache.keep(self.alive)
        else:
            index = fill_gaps(self.alive)
            self.cache.batch_select_indices(index)
            self.mask = self.mask[index]
        self.row, self.prompt_lengths = self.row[index], self.prompt_lengths[index]
        self.alive = self.alive[index]
        return index

    def forward(self, tokens: Tensor, step: int) -> Tensor:
        """Feed each slot the token drawn at `step`; return the next token's logits. [slots, V]."""
        positions = (self.prompt_lengths + step)[:, None]
        if not isinstance(self.cache, SharedPrefixCache):
            return self._call(tokens[:, None], self.mask[:, : self.columns + step + 1], positions)
        self.cache.start_step()
        with attending_to(self.cache):
            return self._call(tokens[:, None], None, positions)

    def _call(self, ids: Tensor, mask: Tensor | None, positions: Tensor) -> Tensor:
        # transformers 5.24 calls `cache` what was `past_key_values`
        cache = "cache" if "cache" in self.sampler.accepts else "past_key_values"
        optional: dict[str, Any] = {"position_ids": positions, "logits_to_keep": 1}
        accepted = {name: value for name, value in optional.items() if name in self.sampler.accepts}
        output = self.model(
            input_ids=ids, attention_mask=mask, use_cache=True, **{cache: self.cache}, **accepted
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _completions(self, rows: Tensor, length: int, finished: bool) -> list[tuple[int, Completion]]:
        drawn = zip(
            rows.tolist(),
            self.tokens[rows, :length].tolist(),
            self.logprobs[rows, :length].tolist(),
            strict=True,
        )
        return [
            (row, make_completion(self.sampler.tokenizer, tokens, logprobs, finished))
            for row, tokens, logprobs in drawn
        ]


def _share_out(rows: list[tuple[int, ...]], chunk: list[int], n_shares: int) -> list[list[int]]:
    """Deal rows to shares of about equal size and mix of lengths, equal prompts together where possible."""
    largest = -(-len(chunk) // n_shares)
    runs: list[list[int]] = []
    for row in chunk:
        if runs and rows[runs[-1][0]] == rows[row] and len(runs[-1]) < largest:
            runs[-1].append(row)
        else:
            runs.append([row])
    shares: list[list[int]] = [[] for _ in range(n_shares)]
    for run in runs:
        min(shares, key=len).extend(run)
    return [share for share in shares if share]
