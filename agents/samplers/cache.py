"""A key-value cache for sampling: allocated once, written in place, shrunk without copying what survives."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer


@dataclass
class Window:
    """Which part of the storage is in use; shared by all layers of a cache.

    Prompts are aligned on the right, so that every row writes its next token to the same column.

    Attributes:
        capacity: Rows and columns of the storage.
        rows: Rows in use: the first ones.
        start: First column that any row in use needs.
        end: Column of the next token.
        filling: Rows that a prefill writes and which of its sequences each gets; None while decoding.
    """

    capacity: tuple[int, int]
    end: int
    rows: int = 0
    start: int = 0
    filling: tuple[slice, Tensor] | None = field(default=None)


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped here
    """One layer's keys and values. [capacity rows, heads, capacity columns, head size]."""

    is_sliding = False

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window
        self.keys: Tensor
        self.values: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate; zeros, because a masked column still takes part in sums and must be finite."""
        rows, columns = self.window.capacity
        self.keys = key_states.new_zeros((rows, key_states.shape[1], columns, key_states.shape[3]))
        self.values = value_states.new_zeros((rows, value_states.shape[1], columns, value_states.shape[3]))
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store new states; return what the new tokens may attend to. [rows, heads, columns, head size]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        window = self.window
        if window.filling is not None:
            rows, sequence = window.filling
            columns = slice(window.end - key_states.shape[2], window.end)
            shared = len(sequence) > len(key_states)
            self.keys[rows, :, columns] = key_states[sequence] if shared else key_states
            self.values[rows, :, columns] = value_states[sequence] if shared else value_states
            return key_states, value_states
        self.keys[: window.rows, :, window.end] = key_states[:, :, 0]
        self.values[: window.rows, :, window.end] = value_states[:, :, 0]
        used = (slice(0, window.rows), slice(None), slice(window.start, window.end + 1))
        return self.keys[used], self.values[used]

    def move(self, targets: Tensor, sources: Tensor) -> None:
        """Copy rows `sources` over rows `targets`, as far as they are in use."""
        columns = slice(self.window.start, self.window.end + 1)
        for states in (self.keys[:, :, columns], self.values[:, :, columns]):
            states[targets] = states[sources]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what `update` will return."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Columns before the next token."""
        return 0 if self.window.filling is not None else self.window.end - self.window.start

    def get_max_length(self) -> int:
        """Columns allocated."""
        return self.window.capacity[1]


class SlotCache(Cache):  # type: ignore[misc]  # likewise
    """`SlotLayer`s for a model whose layers all use full attention."""

    def __init__(self, n_layers: int, rows: int, prompt_columns: int, new_columns: int) -> None:
        self.window = Window(capacity=(rows, prompt_columns + new_columns), rows=rows, end=prompt_columns)
        super().__init__(layers=[SlotLayer(self.window) for _ in range(n_layers)])

    def keep(self, index: Tensor, start: int) -> None:
        """Keep the rows `index`, in that order, and the columns from `start`.

        Args:
            index: Rows to keep. Only those that are not in their place already are copied. [kept]
            start: First column that they need.
        """
        targets = (index != torch.arange(len(index), device=index.device)).nonzero().flatten()
        self.window.rows, self.window.start = len(index), start
        for layer in self.layers:
            layer.move(targets, index[targets])


def full_attention_layers(config: PreTrainedConfig) -> int:
    """Number of layers if a model keeps plain keys and values in all of them, else 0."""
    layers = DynamicCache(config=config).layers
    return len(layers) if all(type(layer) is DynamicLayer for layer in layers) else 0
