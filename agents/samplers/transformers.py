"""Sampling from any Hugging Face causal LM, in large batches."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from agents.samplers.attention import decoding_attention
from agents.samplers.cache import SlotCache, full_attention_layers
from agents.samplers.contract import check_request, end_tokens, make_completion, weights_identity
from prm.batching import plan_batches
from prm.completion import Completion

COMPACT_BELOW = 0.85
"""Share of unfinished rows below which finished ones are dropped from the batch."""


class TransformersSampler:
    """Draws completions with a key-value cache of its own; implements `prm.completion.Completer`.

    Rows are sorted by prompt length and decoded in batches. Equal prompts are read once, whatever `n`. Rows
    that ended are dropped from the batch as it goes. A row's draws depend on the seed and on its place among
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
        prefill_tokens: int = 2048,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("prefill_tokens", prefill_tokens)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.prefill_tokens = prefill_tokens
        self.end_tokens = torch.tensor(end_tokens(model, tokenizer), device=model.device)
        self.n_slot_layers = full_attention_layers(model.config)
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
    ) -> list[list[Completion]]:
        """Draw `n` completions of each prompt.

        Args:
            prompts: Token ids, at least one each.
            n: Completions per prompt.
            max_new_tokens: Limit; a completion that reaches it is not `finished`.
            temperature: Divides the logits; 0 takes the likeliest token.
            seed: Same prompts and seed, same draws.

        Returns:
            For each prompt its completions. Log-probabilities are those of the tempered distribution (of the
            untempered one at temperature 0).

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
            with torch.no_grad(), decoding_attention(self.model):
                for first in range(0, len(order), self.batch_size):
                    chunk = order[first : first + self.batch_size]
                    draws = uniforms[chunk].to(self.model.device)
                    texts = self._decode([rows[row] for row in chunk], draws, temperature)
                    for row, completion in zip(chunk, texts, strict=True):
                        completions[row] = completion
        finally:
            self.model.train(was_training)
        done = [completion for completion in completions if completion is not None]
        return [done[i * n : (i + 1) * n] for i in range(len(prompts))]

    def _decode(
        self, prompts: list[tuple[int, ...]], uniforms: Tensor, temperature: float
    ) -> list[Completion]:
        """Complete one batch of prompts, sorted by length. `uniforms`: [rows, max_new_tokens]."""
        batch = _Batch(self, prompts, max_new_tokens=uniforms.shape[1])
        logits = batch.prefill(prompts)
        for step in range(uniforms.shape[1]):
            tokens, logprobs = draw(logits, uniforms[batch.row, step], temperature)
            batch.record(step, tokens, logprobs)
            if not batch.n_alive or step + 1 == uniforms.shape[1]:
                break
            if batch.n_alive < COMPACT_BELOW * len(batch.row):
                tokens = tokens[batch.compact()]
            logits = batch.forward(tokens, step)
        return batch.completions()


def draw(logits: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Draw one token per row by inverting the cumulative distribution.

    One uniform number per row, not one per vocabulary entry: `torch.multinomial` costs more than a small
    model's whole forward pass.

    Args:
        logits: [B, V]
        uniforms: Numbers in [0, 1), float64. [B]
        temperature: Divides the logits; 0 takes the likeliest token.

    Returns:
        Tokens [B] and their log-probabilities [B].
    """
    if temperature == 0:
        logprobs = logits.float().log_softmax(-1)
        tokens = logprobs.argmax(-1)
    else:
        logprobs = (logits.float() / temperature).log_softmax(-1)
        cumulative = logprobs.exp().cumsum(-1, dtype=torch.float64)
        tokens = torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True)[:, 0]
        tokens.clamp_(max=logits.shape[1] - 1)
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0]


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
        self.lengths = torch.full((n_rows,), max_new_tokens, device=device)
        self.finished = torch.zeros(n_rows, dtype=torch.bool, device=device)
        # From here on one entry per slot of the batch; slots are dropped, rows are not.
        self.row = torch.arange(n_rows, device=device)
        self.alive = torch.ones(n_rows, dtype=torch.bool, device=device)
        self.n_alive = n_rows
        self.prompt_lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        columns = torch.arange(self.columns + max_new_tokens, device=device)
        self.mask = columns >= (self.columns - self.prompt_lengths)[:, None]
        n_slots = sampler.n_slot_layers
        self.cache = (
            SlotCache(n_slots, n_rows, self.columns, max_new_tokens)
            if n_slots
            else DynamicCache(config=self.model.config)
        )

    def prefill(self, prompts: list[tuple[int, ...]]) -> Tensor:
        """Read the prompts, each distinct one once; return each row's next-token logits. [rows, V]."""
        if not isinstance(self.cache, SlotCache):
            logits, sequence = self._read(prompts)
            self.cache.batch_select_indices(sequence)
            return logits[sequence]
        parts = []
        for rows in plan_batches([len(prompt) for prompt in prompts], self.sampler.prefill_tokens):
            slots = slice(rows[0], rows[-1] + 1)  # sorted by length already, so a part is a run of rows
            logits, sequence = self._read(prompts[slots], slots)
            parts.append(logits[sequence])
        self.cache.window.filling = None
        return torch.cat(parts)

    def _read(self, prompts: list[tuple[int, ...]], slots: slice | None = None) -> tuple[Tensor, Tensor]:
        """Run the model over distinct prompts; return their logits and which of them each row has."""
        distinct = list(dict.fromkeys(prompts))
        place = {prompt: i for i, prompt in enumerate(distinct)}
        device = self.model.device
        sequence = torch.tensor([place[prompt] for prompt in prompts], device=device)
        width = max(map(len, distinct))
        ids = torch.zeros((len(distinct), width), dtype=torch.long)
        mask = torch.zeros((len(distinct), width), dtype=torch.bool)
        for i, prompt in enumerate(distinct):
            ids[i, width - len(prompt) :] = torch.tensor(prompt)
            mask[i, width - len(prompt) :] = True
        if isinstance(self.cache, SlotCache) and slots is not None:
            self.cache.window.filling = (slots, sequence)
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        return self._call(ids.to(device), mask.to(device), positions.to(device)), sequence

    def record(self, step: int, tokens: Tensor, logprobs: Tensor) -> None:
        """Note the tokens drawn at `step`, one per slot, and who ended with them."""
        self.tokens[self.row, step] = tokens
        self.logprobs[self.row, step] = logprobs
        ended = self.alive & torch.isin(tokens, self.sampler.end_tokens)
        rows = self.row[ended]
        self.lengths[rows] = step + 1
        self.finished[rows] = True
        self.alive &= ~ended
        self.n_alive = int(self.alive.sum())

    def compact(self) -> Tensor:
        """Drop the slots that ended; return which slots stay, in their new order. [n_alive].

        Survivors from the back move into the gaps in front, so that few rows of the cache are copied.
        """
        n = self.n_alive
        index = torch.arange(n, device=self.alive.device)
        index[~self.alive[:n]] = self.alive[n:].nonzero().flatten() + n
        self.row, self.prompt_lengths = self.row[index], self.prompt_lengths[index]
        self.mask, self.alive = self.mask[index], self.alive[index]
        if isinstance(self.cache, SlotCache):
            self.cache.keep(index, start=self.columns - int(self.prompt_lengths.max()))
        else:
            self.cache.batch_select_indices(index)
        return index

    def forward(self, tokens: Tensor, step: int) -> Tensor:
        """Feed each slot the token drawn at `step`; return the next token's logits. [slots, V]."""
        end = self.columns + step
        start = 0
        if isinstance(self.cache, SlotCache):
            start, self.cache.window.end = self.cache.window.start, end
        positions = (self.prompt_lengths + step)[:, None]
        return self._call(tokens[:, None], self.mask[:, start : end + 1], positions)

    def _call(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        optional: dict[str, Any] = {"position_ids": positions, "logits_to_keep": 1}
        accepted = {name: value for name, value in optional.items() if name in self.sampler.accepts}
        output = self.model(
            input_ids=ids, attention_mask=mask, past_key_values=self.cache, use_cache=True, **accepted
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def completions(self) -> list[Completion]:
        """What was drawn, row by row."""
        drawn = zip(
            self.tokens.tolist(),
            self.logprobs.tolist(),
            self.lengths.tolist(),
            self.finished.tolist(),
            strict=True,
        )
        return [
            make_completion(self.sampler.tokenizer, tokens[:length], logprobs[:length], finished)
            for tokens, logprobs, length, finished in drawn
        ]
