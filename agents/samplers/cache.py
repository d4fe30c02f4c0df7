"""A key-value cache for sampling: one copy of a prompt for all its samples, and no rows that have ended."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer


@dataclass(kw_only=True)
class LayerStates:
    """What one layer keeps for one group of rows. P prompts of W columns, R rows of S columns.

    Attributes:
        keys: Of what each row has for itself. [R, heads, S, head size]
        values: Likewise.
        prompt_keys: Of prompts that several rows continue. [P, heads, W, head size]; W may be 0.
        prompt_values: Likewise.
    """

    keys: Tensor
    values: Tensor
    prompt_keys: Tensor
    prompt_values: Tensor


class RowGroup:
    """Rows whose prompts were read together, so that their prompts have similar lengths.

    If rows share prompts, those are stored and attended to once for all their rows. If each row has a prompt
    of its own, it lies in front of the row's new tokens: one product is faster than two.

    Attributes:
        n_rows: Rows in use: the first ones of the storage.
        n_prompts: Prompts in use, likewise.
        states: One per layer.
    """

    def __init__(self, prompt_of_row: Tensor, is_token: Tensor, max_new_tokens: int) -> None:
        """Start without states; `add_layer` brings them.

        Args:
            prompt_of_row: Which prompt each row continues, in ascending order. [R]
            is_token: False in the padding left of a prompt. [P, W]
            max_new_tokens: Columns to allocate for new tokens.
        """
        self.states: list[LayerStates] = []
        self.n_prompts, width = is_token.shape
        self.shares = len(prompt_of_row) > self.n_prompts
        self._first_new = 0 if self.shares else width
        self._columns = self._first_new + max_new_tokens
        self._hidden = None if bool(is_token.all()) else ~is_token[:, None, None, :]
        self._place_rows(prompt_of_row)

    def add_layer(self, keys: Tensor, values: Tensor) -> None:
        """Store the states of the prompts, [P, heads, W, head size], and make room for those of the rows."""
        own = [
            states.new_empty((self.n_rows, states.shape[1], self._columns, states.shape[3]))
            for states in (keys, values)
        ]
        if not self.shares:
            for stored, states in zip(own, (keys, values), strict=True):
                stored[:, :, : self._first_new] = states
            keys, values = keys[:, :, :0], values[:, :, :0]
        self.states.append(
            LayerStates(
                keys=own[0],
                values=own[1],
                prompt_keys=keys.contiguous(),
                prompt_values=values.contiguous(),
            )
        )

    def write(self, layer: int, keys: Tensor, values: Tensor, step: int) -> None:
        """Store the states of the new tokens of a step. [R, heads, head size] each."""
        states = self.states[layer]
        states.keys[: self.n_rows, :, self._first_new + step] = keys
        states.values[: self.n_rows, :, self._first_new + step] = values

    def attend(self, layer: int, query: Tensor, step: int) -> Tensor:
        """Attend from the new token of each row to all that the row has.

        Args:
            layer: Index of the layer.
            query: Scaled; query heads grouped by the key head that they share. [R, key heads, group, size]
            step: New tokens before this one.

        Returns:
            [R, key heads, group, value size]
        """
        states, n_columns = self.states[layer], self._first_new + step + 1
        keys = states.keys[: self.n_rows, :, :n_columns]
        values = states.values[: self.n_rows, :, :n_columns]
        own = torch.matmul(query, keys.transpose(2, 3))
        if not self.shares:
            self._hide_padding(own[..., : self._first_new])
            return torch.matmul(_weights(own), values)
        prompt_keys = states.prompt_keys[: self.n_prompts]
        shared = torch.matmul(self._by_prompt(query), prompt_keys.transpose(2, 3))
        self._hide_padding(shared)
        width = shared.shape[3]
        weights = _weights(torch.cat([self._by_row(shared), own], dim=-1))
        prompt_values = states.prompt_values[: self.n_prompts]
        from_prompt = torch.matmul(self._by_prompt(weights[..., :width]), prompt_values)
        return self._by_row(from_prompt) + torch.matmul(weights[..., width:], values)

    def keep(self, alive: Tensor, step: int) -> Tensor:
        """Drop rows, and prompts that no row continues any more.

        Args:
            alive: Rows to keep. [R]
            step: New tokens written so far.

        Returns:
            The kept rows' old indices in their new order. [kept]
        """
        kept = fill_gaps(alive)
        prompt_of_row = self._prompt_of_row[kept]
        in_use = torch.zeros(self.n_prompts, dtype=torch.bool, device=alive.device)
        in_use[prompt_of_row] = True
        kept_prompts = fill_gaps(in_use)
        new_index = torch.empty(self.n_prompts, dtype=torch.long, device=alive.device)
        new_index[kept_prompts] = torch.arange(len(kept_prompts), device=alive.device)
        for states in self.states:
            for stored in (states.keys, states.values):
                _move(stored[:, :, : self._first_new + step], kept)
            for stored in (states.prompt_keys, states.prompt_values):
                _move(stored, kept_prompts)
        self.n_prompts = len(kept_prompts)
        if self._hidden is not None:
            self._hidden = self._hidden[kept_prompts]
        self._place_rows(new_index[prompt_of_row])
        return kept

    def _hide_padding(self, scores: Tensor) -> None:
        if self._hidden is not None:
            scores.masked_fill_(self._hidden, torch.finfo(scores.dtype).min)

    def _place_rows(self, prompt_of_row: Tensor) -> None:
        """Give each row a place in a grid of prompts times their largest number of rows."""
        self._prompt_of_row, self.n_rows = prompt_of_row, len(prompt_of_row)
        counts = torch.bincount(prompt_of_row, minlength=self.n_prompts)
        self._width = int(counts.max()) if self.n_rows else 0
        order = torch.argsort(prompt_of_row, stable=True)
        nth = torch.empty_like(order)
        nth[order] = (
            torch.arange(self.n_rows, device=order.device) - (counts.cumsum(0) - counts)[prompt_of_row[order]]
        )
        place = prompt_of_row * self._width + nth
        in_order = torch.equal(place, torch.arange(self.n_prompts * self._width, device=place.device))
        self._place = None if in_order else place

    def _by_prompt(self, rows: Tensor) -> Tensor:
        """Put a prompt's rows side by side. [R, heads, group, n] to [P, heads, width * group, n]."""
        _, heads, group, n = rows.shape
        if self._place is not None:
            grid = rows.new_zeros((self.n_prompts * self._width, heads, group, n))
            grid[self._place] = rows
            rows = grid
        rows = rows.view(self.n_prompts, self._width, heads, group, n)
        return rows.transpose(1, 2).reshape(self.n_prompts, heads, self._width * group, n)

    def _by_row(self, prompts: Tensor) -> Tensor:
        """Undo `_by_prompt`."""
        _, heads, queries, n = prompts.shape
        group = queries // self._width
        grid = prompts.view(self.n_prompts, heads, self._width, group, n).transpose(1, 2)
        rows = grid.reshape(self.n_prompts * self._width, heads, group, n)
        return rows if self._place is None else rows[self._place]


class SharedPrefixCache(DynamicCache):  # type: ignore[misc]  # transformers is untyped here
    """The cache of a model whose layers all use full attention; see `agents.samplers.attention`.

    First prompts are read, a group at a time; their states stay where the model put them. Then every step
    writes one token per row. The layers that the base class makes stay empty: for them, as for the masks that
    transformers derives from them, each call is the first.

    Args:
        config: The model's.
        max_new_tokens: Columns to allocate for new tokens.
    """

    def __init__(self, config: PreTrainedConfig, max_new_tokens: int) -> None:
        super().__init__(config=config)
        self.max_new_tokens = max_new_tokens
        self.groups: list[RowGroup] = []
        self.n_steps = 0

    def start_group(self, prompt_of_row: Tensor, is_token: Tensor) -> None:
        """Announce that the model will read the prompts of a group next; see `RowGroup`."""
        self.groups.append(RowGroup(prompt_of_row, is_token, self.max_new_tokens))

    def start_step(self) -> None:
        """Announce that the model will read one token per row next."""
        self.n_steps += 1

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store new states and return them; what came before them is `attend`'s business."""
        if not self.n_steps:
            self.groups[-1].add_layer(key_states, value_states)
            return key_states, value_states
        sizes = [group.n_rows for group in self.groups]
        new_keys, new_values = (torch.split(states[:, :, 0], sizes) for states in (key_states, value_states))
        for group, keys, values in zip(self.groups, new_keys, new_values, strict=True):
            group.write(layer_idx, keys, values, self.n_steps - 1)
        return key_states, value_states

    def attend(self, layer: int, query: Tensor) -> Tensor:
        """Attend from one token per row to all that the row holds. Shapes as in `RowGroup.attend`."""
        parts = torch.split(query, [group.n_rows for group in self.groups])
        attended = [
            group.attend(layer, part, self.n_steps - 1)
            for group, part in zip(self.groups, parts, strict=True)
        ]
        return attended[0] if len(attended) == 1 else torch.cat(attended)

    def keep(self, alive: Tensor) -> Tensor:
        """Drop rows. `alive`: [R]. Returns the kept rows' old indices in their new order. [kept]."""
        kept, first = [], 0
        for group, part in zip(self.groups, torch.split(alive, [g.n_rows for g in self.groups]), strict=True):
            kept.append(group.keep(part, self.n_steps) + first)
            first += len(part)
        self.groups = [group for group in self.groups if group.n_rows]
        return torch.cat(kept)


def fill_gaps(alive: Tensor) -> Tensor:
    """Indices of the survivors in an order that moves few: those from the back go into the gaps in front.

    Args:
        alive: [N]

    Returns:
        [survivors]
    """
    n = int(alive.sum())
    index = torch.arange(n, device=alive.device)
    index[~alive[:n]] = alive[n:].nonzero().flatten() + n
    return index


def _weights(scores: Tensor) -> Tensor:
    return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)


def _move(stored: Tensor, index: Tensor) -> None:
    """Bring the rows `index` to the front, copying only those that are not in their place already."""
    targets = (index != torch.arange(len(index), device=index.device)).nonzero().flatten()
    stored[targets] = stored[index[targets]]


def has_full_attention(config: PreTrainedConfig) -> bool:
    """Whether a model keeps plain keys and values of all tokens in all of its layers."""
    layers = DynamicCache(config=config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
